"""The `meta.json` that this field's repositories publish beside their data.

    {"train": {CLASS: [...]}, "test": {CLASS: [
        {"img_path": "bottle/test/broken/000.png",
         "mask_path": "bottle/ground_truth/broken/000_mask.png",
         "cls_name": "bottle", "specie_name": "broken", "anomaly": 1}, ...]}}

Paths are relative to the file's folder. A key `box`, crane's own, gives the part of a file that is
the image: left, top, right, bottom in pixels. Some published files hold the absolute paths of the
machine they were made on; these are found again by their last parts.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from crane.data.files import MissingSplitError, checked_classes, checked_root, shown
from crane.data.folder import checked_index, index_folder
from crane.data.images import Box
from crane.data.index import Index, sorted_samples
from crane.data.pairing import loose_stem, mask_stem
from crane.errors import UsageError
from crane.types import ANOMALOUS, NORMAL, Sample

META_NAME = "meta.json"


def index_auto(
    name: str,
    root: str | Path,
    split: str,
    *,
    mask_threshold: int,
    classes: str | Sequence[str] | None = None,
    fetch: str = "",
) -> Index:
    """Read `root/meta.json` if there is one, and the folders otherwise.

    Arguments, result and errors as in `index_folder` and `index_meta_json`.
    """
    folder = checked_root(name, root, fetch)
    reader = index_meta_json if (folder / META_NAME).is_file() else index_folder
    return reader(name, folder, split, mask_threshold=mask_threshold, classes=classes, fetch=fetch)


def index_meta_json(
    name: str,
    root: str | Path,
    split: str,
    *,
    mask_threshold: int,
    classes: str | Sequence[str] | None = None,
    fetch: str = "",
) -> Index:
    """Read a data set listed in `root/meta.json`.

    Args:
        name: what to call the data set.
        root: the folder of `meta.json`, under which all files lie.
        split: a top-level key of the file; `test` is the one with anomalies.
        mask_threshold: a mask's pixel is anomalous where its 8-bit luminance exceeds this.
        classes: the classes to keep; None keeps all.
        fetch: where the data can be got, for the message if they are not there.

    Returns:
        The images with their labels and masks. An empty `mask_path` (or one that is a folder, as
        published files have it) of an anomalous image means that it has no mask.

    Raises:
        UsageError: if the file is missing or not of this form, lists a file that is not there or
            twice, or gives an image the mask that bears another image's name.
    """
    folder = checked_root(name, root, fetch)
    listed = listed_classes(folder / META_NAME, name, split)
    wanted = {c: listed[c] for c in checked_classes(name, classes, tuple(listed))}
    samples = read_listed(folder / META_NAME, name, split, wanted)
    return checked_index(Index(name, folder, sorted_samples(samples), mask_threshold))


def read_listed(
    path: Path, name: str, split: str, listed: Mapping[str, Sequence[Any]]
) -> list[Sample]:
    """Make the samples of some classes of a split.

    Args:
        path: the `meta.json`.
        name: of the data set.
        split: which of its splits.
        listed: class to its entries, as `listed_classes` gives them.

    Raises:
        UsageError: as `index_meta_json`.
    """
    entries = [
        _entry(raw, class_name, f"entry {number} of {split}/{class_name} in {path}")
        for class_name, raws in listed.items()
        for number, raw in enumerate(raws)
    ]
    samples = _located(path, entries, name)
    _check_names_agree(samples)
    return samples


@dataclass(frozen=True)
class _Entry:
    """One line of the file, before its paths are looked for."""

    image: str
    mask: str
    class_name: str
    defect: str
    label: int
    box: Box | None


def listed_classes(path: Path, name: str, split: str) -> Mapping[str, list[Any]]:
    """Read the lists of one split, class by class.

    Raises:
        UsageError: if the file is missing or not of this form; a `MissingSplitError` if it has no
            such split.
    """
    try:
        meta = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UsageError(
            f"a {path.name} of data set {name}",
            f"nothing at {path}",
            key=f"source.{name}.root or targets.{name}.root",
        ) from None
    except (ValueError, OSError) as error:
        raise UsageError(f"readable JSON in {path}", str(error)) from error
    if not isinstance(meta, dict) or not isinstance(meta.get(split), dict):
        keys = ", ".join(meta) if isinstance(meta, dict) else type(meta).__name__
        raise MissingSplitError(
            f"a split {split} with its classes in {path}",
            keys,
            key=f"source.{name}.split or targets.{name}.split",
        )
    if not all(isinstance(entries, list) for entries in meta[split].values()):
        raise UsageError(f"a list of images for each class in {path}", "something else")
    return meta[split]


def _entry(raw: object, class_name: str, where: str) -> _Entry:
    """Check one line's form."""
    if not isinstance(raw, dict) or not isinstance(raw.get("img_path"), str):
        raise UsageError(f"an object with img_path and anomaly as {where}", str(raw)[:200])
    label = raw.get("anomaly")
    if label not in (NORMAL, ANOMALOUS):
        raise UsageError(f"anomaly 0 or 1 in {where}", label)
    if raw.get("cls_name", class_name) != class_name:
        raise UsageError(f"cls_name {class_name} in {where}", raw["cls_name"])
    defect = "good" if label == NORMAL else str(raw.get("specie_name") or "anomalous")
    mask = raw.get("mask_path") or ""
    if not isinstance(mask, str):
        raise UsageError(f"mask_path as text in {where}", mask)
    return _Entry(raw["img_path"], mask, class_name, defect, int(label), _box(raw, where))


def _box(raw: Mapping[str, Any], where: str) -> Box | None:
    box = raw.get("box")
    if box is None:
        return None
    if not (isinstance(box, list) and len(box) == 4 and all(type(b) is int for b in box)):
        raise UsageError(f"four whole numbers as box in {where}", box)
    return box[0], box[1], box[2], box[3]


def _located(path: Path, entries: Sequence[_Entry], name: str) -> list[Sample]:
    """Find the samples' files beside the list; name all that are missing in one error."""
    root = path.parent
    samples, missing = [], []
    for entry in entries:
        image = _find(root, entry.image)
        mask = _find(root, entry.mask) if entry.label == ANOMALOUS and entry.mask else None
        if image is None or not image.is_file():
            missing.append(entry.image)
            continue
        if entry.label == ANOMALOUS and entry.mask and mask is None:
            missing.append(entry.mask)
        known = mask is not None and mask.is_file()
        samples.append(
            Sample(
                image,
                entry.label,
                entry.class_name,
                entry.defect,
                mask if known else None,
                entry.box,
            )
        )
    if missing:
        raise UsageError(
            f"every file listed in {path} under its folder",
            f"{len(missing)} missing: {shown(missing)}",
            key=f"source.{name}.root or targets.{name}.root",
            hint="the file and the images may be of different versions of the data set",
        )
    return samples


def _find(root: Path, text: str) -> Path | None:
    """Find the file or folder a path of the file names, None if there is none.

    Raises:
        UsageError: if a relative path leaves the root.
    """
    slashed = text.replace("\\", "/")
    parts = PurePosixPath(slashed).parts
    absolute = slashed.startswith("/") or slashed[1:3] == ":/"
    if ".." in parts:
        raise UsageError(f"paths inside {root} in its {META_NAME}", text)
    tails = range(1, len(parts)) if absolute else range(1)
    candidates = (root.joinpath(*parts[start:]) for start in tails)
    return next((path for path in candidates if path.exists()), None)


def _check_names_agree(samples: Sequence[Sample]) -> None:
    """Refuse masks that bear another image's name, as scripts that pair by order produce them.

    A mask whose name is no image's at all is believed.
    """
    groups: dict[tuple[str, str], list[tuple[Path, Path]]] = defaultdict(list)
    for sample in samples:
        if sample.mask is not None:
            groups[sample.class_name, sample.defect].append((sample.image, sample.mask))
    for pairs in groups.values():
        owners = {loose_stem(image.stem): image for image, _ in pairs}
        for image, mask in pairs:
            names = (loose_stem(mask.stem), loose_stem(mask_stem(mask)))
            others = [owners[n] for n in names if n in owners]
            if loose_stem(image.stem) not in names and others:
                raise UsageError(
                    f"the mask of {image} to bear its name",
                    f"{mask.name}, the name of {others[0].name}",
                    hint="a list paired by order has shifted; make the meta.json again",
                )
