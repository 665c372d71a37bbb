"""What a data set tells of itself, and doubtful masks and images with the keys that mend them."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from crane.data.filenames import first_few
from crane.data.index import Index
from crane.data.roles import SPLITS, is_level, same_name
from crane.errors import UsageError, counted
from crane.samples import ANOMALOUS, NORMAL, Sample

CLEAN_THRESHOLD = 127
"""The mask threshold that excludes grey edges and the artefacts of JPEG masks."""
MAX_ARTEFACTS = 0.01
"""Fraction of an image from which artefacts of JPEG masks are worth a remark."""
MAX_EDGES = 0.05
"""Grey edges of masks are worth a remark from this fraction of the anomalous area."""
DEEP_RANGE = 65536 // 8
"""16-bit images that stay below this are taken to hold 12 bits or less."""
MAX_LOOKED_AT = 16
"""Images and masks of a data set that a run looks at before it starts."""


class Doubt(NamedTuple):
    """One thing that is doubtful about a file; equal kinds are told together."""

    kind: str
    """The sentence, without the number of files."""
    mend: str
    """The key to set, without its data set, as KEY=VALUE; or another way out."""
    detail: float = 0.0
    """A number for the sentence, of which the largest is told."""


def class_lines(index: Index, areas: dict[str, float] | None = None) -> list[str]:
    """One line for each class: what counts as normal, what as anomalous, and whence the masks.

    Args:
        index: The data set.
        areas: Class to the fraction of its pixels that are anomalous, if known.

    >>> root = Path("/data")
    >>> bent = Sample(root / "bent/0.png", 1, "nut", "bent")
    >>> samples = (Sample(root / "ok/0.png", 0, "nut"), bent)
    >>> class_lines(Index("mine", root, samples, mask_threshold=0))
    ['nut: 1 normal (ok), 1 anomalous (bent), no masks']
    """
    by_class: dict[str, list[Sample]] = defaultdict(list)
    for sample in index.samples:
        by_class[sample.class_name].append(sample)
    lines = []
    for class_name in index.class_names:
        kinds = []
        for label, word in ((NORMAL, "normal"), (ANOMALOUS, "anomalous")):
            found = [s for s in by_class[class_name] if s.label == label]
            names = Counter(_why(s, index) for s in found)
            shown = first_few(f"{n} {c}" if len(names) > 1 else n for n, c in names.items())
            kinds.append(f"{len(found)} {word}" + (f" ({shown})" if found else ""))
        masked = [s for s in by_class[class_name] if s.mask is not None]
        num_anomalous = sum(s.label == ANOMALOUS for s in by_class[class_name])
        parts = {same_name(p) for s in by_class[class_name] for p in index.folders_of(s.image)}
        split = ", split test_public" if "test_public" in parts else ""
        masks = "no masks"
        if masked:
            places = dict.fromkeys(_mask_place(s, index, class_name) for s in masked)
            masks = f"masks of {len(masked)} of {num_anomalous} {first_few(places, limit=2)}"
        area = (areas or {}).get(class_name)
        share = "" if area is None or not masked else f", {100 * area:.3g} % of pixels anomalous"
        lines.append(f"{class_name}: {', '.join([*kinds, masks])}{share}{split}")
    return lines


def _why(sample: Sample, index: Index) -> str:
    """The name that decided the label: of its folder, or the kind that a list gives."""
    if index.listed_in:
        return f"{sample.defect} in {index.listed_in}"
    if sample.label == ANOMALOUS:
        return sample.defect
    parts = index.folders_of(sample.image)
    own = [p for p in parts if same_name(p) not in SPLITS and not is_level(p)]
    own = [p for p in own if p != sample.class_name] or [*parts, sample.defect]
    return own[0]


def _mask_place(sample: Sample, index: Index, class_name: str) -> str:
    assert sample.mask is not None
    if sample.mask.parent == sample.image.parent:
        return "beside the images"
    parts = index.folders_of(sample.mask)
    known = [p for p in parts if p not in (class_name, sample.defect, sample.image.stem)]
    return f"from {'/'.join(known[:2]) or sample.mask.parent.name}"


def looks_like_mask(path: Path) -> bool:
    """Whether an image file looks like a mask: grey, with hardly any values but two or few ids.

    A file that cannot be read does not.
    """
    try:
        with Image.open(path) as image:
            if image.mode == "1":
                return True
            values: np.ndarray = np.asarray(image)
            if values.dtype == np.uint8 or values.dtype == bool:
                values = np.asarray(image.convert("RGB"))
            else:  # 16 bits or floats, which PIL would clip
                values = (values[..., None] * (255 / max(float(values.max()), 1e-9))).astype(int)
    except (OSError, ValueError, SyntaxError):
        return False
    if not (values == values[..., :1]).all():
        return False
    grey = values[..., 0]
    low, high = int(grey.min()), int(grey.max())
    if low == high or low > 8:
        return False
    if high <= 16:
        return bool(np.count_nonzero(grey == low) * 2 > grey.size)
    return bool(np.count_nonzero((grey <= low + 8) | (grey >= high - 8)) >= 0.98 * grey.size)


def mask_doubt(sample: Sample, index: Index) -> Doubt | None:
    """What is doubtful about the mask of an anomalous image, if anything.

    Raises:
        UsageError: It cannot be read.
    """
    from crane.data.images import mask_levels

    if sample.mask is None or sample.label != ANOMALOUS:
        return None
    threshold = index.mask_threshold
    levels = mask_levels(sample.masks, sample.box, index.mask_values, invert=index.mask_invert)
    mask = (levels > threshold) != index.mask_invert
    if not mask.any():
        return _empty(sample, index)
    low, high = float(levels.min()), float(levels.max())
    if mask.all():
        if low == high:
            return Doubt("hold one value only: the whole image is anomalous", "mask_values=alpha")
        between = CLEAN_THRESHOLD if low < CLEAN_THRESHOLD < high else int(low)
        kind = f"have a background that is not 0: no pixel is at most mask_threshold {threshold}"
        return Doubt(f"{kind} (values from {low:.0f} to {high:.0f})", f"mask_threshold={between}")
    border = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    if mask.mean() > 0.5 and border.mean() > 0.9:
        value = "false" if index.mask_invert else "true"
        return Doubt(
            "look inverted: the border and most of the image are anomalous", f"mask_invert={value}"
        )
    if index.mask_invert or threshold >= CLEAN_THRESHOLD or not (levels > CLEAN_THRESHOLD).any():
        return None
    grey = mask & (levels <= CLEAN_THRESHOLD)
    clean = mask.sum() - grey.sum()
    is_jpeg = sample.mask.suffix.casefold() in (".jpg", ".jpeg")
    if grey.mean() > MAX_ARTEFACTS if is_jpeg else grey.sum() > MAX_EDGES * clean:
        what = "are JPEG and have compression artefacts" if is_jpeg else "have grey edges"
        kind = f"{what}: with mask_threshold {threshold} more of an image is anomalous than with "
        return Doubt(
            f"{kind}{CLEAN_THRESHOLD}", f"mask_threshold={CLEAN_THRESHOLD}", float(grey.mean())
        )
    return None


def _empty(sample: Sample, index: Index) -> Doubt:
    """An anomalous image whose mask is empty, and the key under which it would not be."""
    from crane.data.images import mask_levels

    kind = f"are empty: no pixel exceeds mask_threshold {index.mask_threshold}"
    for values in ("brightest", "alpha", "index"):
        try:
            levels = mask_levels(sample.masks, sample.box, values, invert=index.mask_invert)
        except UsageError:
            continue
        above = levels > index.mask_threshold
        if above.any() and not above.all():
            return Doubt(kind, f"mask_values={values}")
    return Doubt(kind, "")


def image_doubt(path: str | Path) -> Doubt | None:
    """What may be doubtful about an image; its pixels are decoded only if they can be.

    Every 16-bit image is returned with its highest value, since only `remarks` knows whether all
    are dark.
    """
    try:
        with Image.open(path) as image:
            if image.mode.startswith("I"):
                return Doubt(_DARK, "white_level", float(np.asarray(image).max(initial=0)))
            if image.mode in ("RGBA", "LA") and not np.asarray(image.getchannel("A")).any():
                return Doubt("are wholly transparent and read as white", "")
    except (OSError, ValueError, SyntaxError):  # told where it is read
        return None
    return None


_DARK = "are 16-bit images that use less than an eighth of their range, and so are nearly black"


def remarks(found: Iterable[tuple[str, Doubt]], of_all: int, what: str, prefix: str) -> list[str]:
    """A sentence for each kind of doubt.

    Args:
        found: File names and their doubts.
        of_all: How many files were looked at.
        what: What they are: mask or image.
        prefix: In front of keys, such as `targets.folder.`.
    """
    groups: dict[tuple[str, str, str], list[tuple[str, float]]] = defaultdict(list)
    for name, doubt in found:
        folder = str(Path(name).parent) if doubt.kind == _DARK else ""
        groups[doubt.kind, doubt.mend, folder].append((name, doubt.detail))
    num_deep = sum(kind == _DARK for kind, _, _ in groups)
    texts = []
    for (kind, mend, folder), files in groups.items():
        most = max(detail for _, detail in files)
        if kind == _DARK:
            if most >= DEEP_RANGE:
                continue
            mend = f"white_level={2 ** max(int(most).bit_length(), 8) - 1}"
            mend += f" for the images of {folder} alone" if num_deep > 1 else ""
        up_to = f", up to {most:.1%} of an image" if 0 < most <= 1 else ""
        way = f"; set {prefix}{mend}" if mend else ""
        names = first_few((name for name, _ in files), limit=3)
        texts.append(f"{len(files)} of {counted(of_all, what)} {kind}{up_to}{way}: {names}")
    return texts


def examine(index: Index, prefix: str) -> list[str]:
    """Remarks on a few masks and images of a data set, spread evenly.

    Args:
        index: The data set.
        prefix: In front of keys.
    """
    masked = _spread([s for s in index.samples if s.mask is not None and s.label == ANOMALOUS])
    shown = _spread(index.samples)
    masks = [(sample, _doubt_if_readable(sample, index)) for sample in masked]
    images = [(index.key(s), image_doubt(s.image)) for s in shown if index.white_level is None]
    return [
        *remarks(((index.key(s), d) for s, d in masks if d), len(masks), "mask", prefix),
        *remarks(((name, d) for name, d in images if d), len(images), "image", prefix),
    ]


def _doubt_if_readable(sample: Sample, index: Index) -> Doubt | None:
    try:
        return mask_doubt(sample, index)
    except UsageError:  # told where the run reads it
        return None


def _spread(samples: Sequence[Sample]) -> list[Sample]:
    step = max(1, len(samples) // MAX_LOOKED_AT)
    return list(samples[::step][:MAX_LOOKED_AT])
