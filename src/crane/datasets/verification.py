"""Checks whether a copy of a data set is complete, and whether it is the published one."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from crane.data.filenames import first_few, is_image
from crane.data.images import read_mask, read_rgb
from crane.data.index import Index, MissingClassError, MissingSplitError
from crane.datasets.card import Card
from crane.errors import UsageError, counted
from crane.samples import ANOMALOUS, NORMAL, Sample

JPEG = frozenset({".jpg", ".jpeg"})
"""Mask files whose compression leaves grey around every region."""

CLEAN_THRESHOLD = 127
"""The mask threshold that excludes the artefacts of JPEG masks."""

MAX_ARTEFACTS = 0.01
"""Fraction of the pixels from which artefacts are worth a remark."""

ReadIndex = Callable[..., Index]
"""A reader such as `index_set`, called with `split` and, if not all are wanted, `classes`."""

Advance = Callable[[str, int, int], None]
"""Called with a split, how many of its images are done, and how many there are."""


@dataclass(frozen=True)
class Fault:
    """Something that makes a copy another data set than it should be."""

    kind: str
    """`layout`, `count`, `mask`, `unreadable` or `repeated`."""
    text: str
    """What is wrong, with the names of files."""


@dataclass(frozen=True)
class ClassCount:
    """Images of one class of one split."""

    split: str
    class_name: str
    num_normal: int
    num_anomalous: int
    num_masks: int
    expected: tuple[int, int, str] | None
    """Published normal and anomalous images, and the evidence; None if not known."""


@dataclass
class Verification:
    """The result of checking a copy."""

    name: str
    fingerprint: str | None = None
    """Of the split that runs use, as in result files; None if it cannot be read."""
    root: Path | None = None
    counts: list[ClassCount] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """Worth knowing, but not faults."""
    num_opened: int = 0
    """Number of images that were opened, with their masks."""

    def faults_by_kind(self) -> dict[str, list[str]]:
        """The texts of the faults, grouped by their kind.

        >>> faults = [Fault("mask", "a"), Fault("count", "b"), Fault("mask", "c")]
        >>> Verification("x", faults=faults).faults_by_kind()
        {'mask': ['a', 'c'], 'count': ['b']}
        """
        kinds: dict[str, list[str]] = defaultdict(list)
        for fault in self.faults:
            kinds[fault.kind].append(fault.text)
        return dict(kinds)


def verify(
    name: str,
    read: ReadIndex,
    split: str,
    card: Card | None,
    *,
    fast: bool,
    num_workers: int,
    advance: Advance = lambda split, done, total: None,
) -> Verification:
    """Check a copy of a data set.

    Every split with known counts is read and counted, masks are paired, and, unless `fast`, every
    image and mask is opened.

    Args:
        name: The data set.
        read: Reads one split of it.
        split: The one that runs use; other splits may be missing, but not faulty.
        card: What is known of the data set; None for a user's own.
        fast: Whether to stop at names and counts.
        num_workers: Threads that open files.
        advance: Called with the progress.

    Returns:
        Everything found; the copy is good if and only if there are no faults.
    """
    found = Verification(name)
    splits = dict.fromkeys([split, *(card.splits() if card else ())])
    read_indices = {one: _read(read, one, split, card, found) for one in splits}
    indices = {one: index for one, index in read_indices.items() if index is not None}
    for one, index in indices.items():
        _count(index, one, card, found)
        if one == split:
            found.root, found.fingerprint = index.root, index.fingerprint()
            _find_unused_images(index, indices.values(), found)
    if not fast:
        for one, index in indices.items():
            _open_all(index, one, found, num_workers, advance)
    return found


def _read(
    read: ReadIndex, split: str, used: str, card: Card | None, found: Verification
) -> Index | None:
    """Read a split; if that fails, read its classes one by one to find everything wrong."""
    try:
        return read(split=split)
    except MissingSplitError as error:
        if split == used:
            found.faults.append(Fault("layout", str(error)))
        else:
            found.remarks.append(f"split {split} is missing; only {used} is needed")
    except UsageError as error:
        errors = [_error_of(read, split, name) for name in (card.class_names if card else ())]
        faults = [Fault("layout", text) for text in dict.fromkeys([str(error), *errors]) if text]
        found.faults += [fault for fault in faults if fault not in found.faults]
    return None


def _error_of(read: ReadIndex, split: str, class_name: str) -> str:
    """What is wrong with one class; empty for a missing class, which is counted elsewhere."""
    try:
        read(split=split, classes=[class_name])
    except MissingClassError:
        return ""
    except UsageError as error:
        return str(error)
    return ""


def _count(index: Index, split: str, card: Card | None, found: Verification) -> None:
    """Count images and masks of each class, and compare."""
    images = Counter((s.class_name, s.label) for s in index.samples)
    masks = Counter(s.class_name for s in index.samples if s.mask is not None)
    for name in index.class_names:
        numbers = (images[name, NORMAL], images[name, ANOMALOUS], masks[name])
        expected = card.expected(split, name) if card else None
        found.counts.append(ClassCount(split, name, *numbers, expected))
    for mismatch in card.mismatches(index, split, None) if card else ():
        if mismatch.evidence == "memory":
            found.remarks.append(f"{mismatch.text}: from memory only, so not a fault")
        else:
            found.faults.append(Fault("count", f"{split}: {mismatch.text}"))
    lacking = [index.key(s) for s in index.samples if s.label == ANOMALOUS and s.mask is None]
    text = f"{counted(len(lacking), 'anomalous image')} without a mask"
    if lacking and card and card.has_masks:
        found.faults.append(Fault("mask", f"{text}: {first_few(lacking)}"))
    elif lacking and index.has_masks:
        verb = "counts" if len(lacking) == 1 else "count"
        found.remarks.append(f"{text} {verb} in image metrics only: {first_few(lacking)}")


def _find_unused_images(index: Index, indices: Iterable[Index], found: Verification) -> None:
    """Remark on images under the root that are not part of the data set."""
    used = {path for i in indices for s in i.samples for path in (s.image, s.mask)}
    unused: Counter[str] = Counter()
    for path in sorted(index.root.rglob("*")):
        if is_image(path) and path not in used and path.is_file():
            unused[path.parent.relative_to(index.root).as_posix()] += 1
    if unused:
        folders = [f"{folder} ({number})" for folder, number in unused.items()]
        found.remarks.append(f"images that are not part of it: {first_few(folders)}")


@dataclass
class _Opened:
    """The result of opening one image and its mask."""

    sample: Sample
    digest: str | None = None
    """Hash of the image file; None if it cannot be read."""
    faults: list[Fault] = field(default_factory=list)
    is_empty: bool = False
    """Whether the mask of an anomalous image has no anomalous pixel."""
    artefacts: float = 0.0
    """Fraction of pixels marked only because of JPEG artefacts in the mask."""


def _open_all(
    index: Index, split: str, found: Verification, num_workers: int, advance: Advance
) -> None:
    """Open every image and mask of a split and report what is wrong with them."""
    opened: list[_Opened] = []
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        for one in pool.map(lambda sample: _open(sample, index), index.samples):
            opened.append(one)
            advance(split, len(opened), len(index.samples))
    found.num_opened += len(opened)
    found.faults += [fault for one in opened for fault in one.faults]
    found.faults += _repeated_folders(index, opened)
    empty = [index.key(one.sample) for one in opened if one.is_empty]
    if empty:
        found.remarks.append(
            counted(len(empty), "mask of an anomalous image has", "masks of anomalous images have")
            + f" no pixel above mask_threshold {index.mask_threshold}: {first_few(empty)}"
        )
    artefacts = [one.artefacts for one in opened if one.artefacts > MAX_ARTEFACTS]
    if artefacts:
        found.remarks.append(
            f"{len(artefacts)} JPEG masks have compression artefacts: with mask_threshold "
            f"{index.mask_threshold}, up to {max(artefacts):.0%} more of an image is anomalous "
            f"than with {CLEAN_THRESHOLD}"
        )


def _open(sample: Sample, index: Index) -> _Opened:
    """Open one image and its mask."""
    opened = _Opened(sample)
    size = mask = None
    try:
        size = read_rgb(sample.image, sample.box).size
        opened.digest = hashlib.blake2b(sample.image.read_bytes()).hexdigest()
    except UsageError as error:
        opened.faults.append(Fault("unreadable", f"{index.key(sample)}: {error}"))
    if sample.mask is None:
        return opened
    name = index.relative(sample.mask)
    try:
        mask = read_mask(sample.mask, index.mask_threshold, sample.box)
    except UsageError as error:
        opened.faults.append(Fault("unreadable", f"{name}: {error}"))
        return opened
    if size not in (None, mask.shape[::-1]):
        text = f"{name} is {mask.shape[1]} x {mask.shape[0]}, "
        text += f"its image {index.key(sample)} {size[0]} x {size[1]}"
        opened.faults.append(Fault("mask", text))
    if sample.mask.suffix.casefold() in JPEG and index.mask_threshold < CLEAN_THRESHOLD:
        clean = read_mask(sample.mask, CLEAN_THRESHOLD, sample.box)
        opened.artefacts = float((mask & ~clean).mean())
    opened.is_empty = sample.label == ANOMALOUS and not mask.any()
    return opened


def _repeated_folders(index: Index, opened: Sequence[_Opened]) -> list[Fault]:
    """Find folders whose images are all, byte for byte, in another folder too."""
    homes: dict[object, set[Path]] = defaultdict(set)
    contents: dict[Path, list[object]] = defaultdict(list)
    for one in opened:
        if one.digest is not None:
            key = (one.digest, one.sample.box)
            homes[key].add(one.sample.image.parent)
            contents[one.sample.image.parent].append(key)
    pairs: dict[frozenset[Path], Fault] = {}
    for folder, keys in contents.items():
        twins = set.intersection(*(homes[key] for key in keys)) - {folder}
        for twin in sorted(twins) if len(keys) > 1 else ():
            number = counted(len(keys), "image")
            names = f"{index.relative(folder)} ({number}) and {index.relative(twin)}"
            fault = Fault("repeated", f"the same images in two folders: {names}")
            pairs.setdefault(frozenset((folder, twin)), fault)
    return list(pairs.values())
