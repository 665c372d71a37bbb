"""Whether a copy of a data set is whole, and whether it is the published one."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from crane.data.files import MissingClassError, MissingSplitError, is_image, shown
from crane.data.images import read_mask, read_rgb
from crane.data.index import Index
from crane.datasets.card import Card
from crane.errors import UsageError
from crane.types import ANOMALOUS, NORMAL, Sample

RINGING = frozenset({".jpg", ".jpeg"})
"""Mask files whose compression leaves grey around every region."""

CLEAN_THRESHOLD = 127
"""The mask threshold that leaves ringing out."""

RINGING_SHARE = 0.01
"""Share of pixels beyond the regions from which ringing is worth a remark."""


ReadIndex = Callable[..., Index]
"""A reader such as `index_set`, to be called with `split` and, if not all are wanted, `classes`."""

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
    """Published normal and anomalous images, and the evidence; None where not known."""


@dataclass
class Verification:
    """What was found out about a copy."""

    name: str
    fingerprint: str | None = None
    """Of the split that runs use, as result files carry it; None if it cannot be read."""
    root: Path | None = None
    counts: list[ClassCount] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    """What is worth knowing and no fault."""
    num_opened: int = 0
    """Images that were opened, with their masks."""


def verify(
    name: str,
    read: ReadIndex,
    split: str,
    card: Card | None,
    *,
    fast: bool,
    num_workers: int,
    advance: Advance | None = None,
) -> Verification:
    """Check a copy of a data set.

    Every split of which counts are known is read and counted, masks are paired, and, unless `fast`,
    every image and mask is opened.

    Args:
        name: of the data set.
        read: reads one split of it.
        split: the one that runs use; a fault elsewhere is one too, but another split may be absent.
        card: what is known of the data set; None for a user's own.
        fast: whether to stop at names and counts.
        num_workers: threads that open files.
        advance: hears of progress.

    Returns:
        All that was found; there is no fault if and only if the copy is good.
    """
    found = Verification(name)
    splits = dict.fromkeys([split, *(card.splits() if card else ())])
    indices: dict[str, Index] = {}
    for one in splits:
        index = _read(read, one, split, card, found)
        if index is not None:
            indices[one] = index
    for one, index in indices.items():
        _count(index, one, card, found)
        if one == split:
            found.root, found.fingerprint = index.root, index.fingerprint()
            _look_beside(index, list(indices.values()), found)
    if not fast:
        for one, index in indices.items():
            _open_all(index, one, found, num_workers, advance)
    return found


def _read(
    read: ReadIndex, split: str, used: str, card: Card | None, found: Verification
) -> Index | None:
    """Read a split; if that fails, read its classes one by one for all that is wrong."""
    try:
        return read(split=split)
    except MissingSplitError as error:
        if split == used:
            found.faults.append(Fault("layout", str(error)))
        else:
            found.remarks.append(f"split {split} is not there; only {used} is needed")
    except UsageError as error:
        errors = [_error_of(read, split, name) for name in (card.class_names if card else ())]
        texts = dict.fromkeys([str(error), *map(str, filter(None, errors))])
        faults = [Fault("layout", text) for text in texts]
        found.faults += [fault for fault in faults if fault not in found.faults]
    return None


def _error_of(read: ReadIndex, split: str, class_name: str) -> UsageError | None:
    """What is wrong with one class; nothing if it is not there, which is counted elsewhere."""
    try:
        read(split=split, classes=[class_name])
    except MissingClassError:
        return None
    except UsageError as error:
        return error
    return None


def _count(index: Index, split: str, card: Card | None, found: Verification) -> None:
    """Count images and masks of each class, and compare."""
    numbers: Counter[tuple[str, str]] = Counter()
    for sample in index.samples:
        numbers[sample.class_name, "normal" if sample.label == NORMAL else "anomalous"] += 1
        numbers[sample.class_name, "masks"] += sample.mask is not None
    for name in index.class_names:
        expected = card.expected(split, name) if card else None
        found.counts.append(
            ClassCount(
                split,
                name,
                num_normal=numbers[name, "normal"],
                num_anomalous=numbers[name, "anomalous"],
                num_masks=numbers[name, "masks"],
                expected=expected,
            )
        )
    for mismatch in card.mismatches(index, split, None) if card else ():
        if mismatch.evidence == "memory":
            found.remarks.append(f"{mismatch.text}: from memory only, so no fault")
        else:
            found.faults.append(Fault("count", f"{split}: {mismatch.text}"))
    lacking = [index.key(s) for s in index.samples if s.label == ANOMALOUS and s.mask is None]
    if lacking and card and card.has_masks:
        text = f"{len(lacking)} anomalous images without a mask: {shown(lacking)}"
        found.faults.append(Fault("mask", text))
    elif lacking and index.has_masks:
        text = f"{len(lacking)} anomalous images without a mask count in image metrics only"
        found.remarks.append(f"{text}: {shown(lacking)}")


def _look_beside(index: Index, indices: Iterable[Index], found: Verification) -> None:
    """Remark on images under the root that are no part of the data set."""
    used = {path for i in indices for s in i.samples for path in (s.image, s.mask)}
    beside: Counter[str] = Counter()
    for path in sorted(index.root.rglob("*")):
        if is_image(path) and path not in used and path.is_file():
            beside[path.parent.relative_to(index.root).as_posix()] += 1
    if beside:
        folders = [f"{folder} ({number})" for folder, number in beside.items()]
        found.remarks.append(f"images that are no part of it: {shown(folders)}")


@dataclass(frozen=True)
class _Opened:
    """What opening one image and its mask told."""

    sample: Sample
    digest: str | None
    faults: tuple[Fault, ...]
    is_empty: bool = False
    """Whether the mask of an anomalous image has no anomalous pixel."""
    ringing: float = 0.0
    """Share of the pixels that are anomalous for the compression of the mask alone."""


def _open_all(
    index: Index, split: str, found: Verification, num_workers: int, advance: Advance | None
) -> None:
    """Open every image and mask of a split and report what is wrong with them."""
    opened: list[_Opened] = []
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        results = pool.map(lambda sample: _open(sample, index), index.samples)
        for number, one in enumerate(results, 1):
            opened.append(one)
            if advance is not None:
                advance(split, number, len(index.samples))
    found.num_opened += len(opened)
    found.faults += [fault for one in opened for fault in one.faults]
    found.faults += _repeated_folders(index, opened)
    empty = [index.key(one.sample) for one in opened if one.is_empty]
    if empty:
        found.remarks.append(
            f"{len(empty)} masks of anomalous images have no pixel above mask_threshold "
            f"{index.mask_threshold}: {shown(empty)}"
        )
    ringing = [one.ringing for one in opened if one.ringing > RINGING_SHARE]
    if ringing:
        found.remarks.append(
            f"{len(ringing)} JPEG masks ring: mask_threshold {index.mask_threshold} calls up to "
            f"{max(ringing):.0%} of an image anomalous beyond what {CLEAN_THRESHOLD} does"
        )


def _open(sample: Sample, index: Index) -> _Opened:
    """Open one image and its mask."""
    faults, digest = [], None
    mask = size = None
    try:
        size = read_rgb(sample.image, sample.box).size
        digest = hashlib.blake2b(sample.image.read_bytes()).hexdigest()
    except UsageError as error:
        faults.append(Fault("unreadable", f"{index.key(sample)}: {error}"))
    if sample.mask is None:
        return _Opened(sample, digest, tuple(faults))
    try:
        mask = read_mask(sample.mask, index.mask_threshold, sample.box)
    except UsageError as error:
        faults.append(Fault("unreadable", f"{index.relative(sample.mask)}: {error}"))
        return _Opened(sample, digest, tuple(faults))
    height, width = mask.shape
    if size is not None and size != (width, height):
        text = f"{index.relative(sample.mask)} is {width} x {height}, "
        text += f"its image {index.key(sample)} {size[0]} x {size[1]}"
        faults.append(Fault("mask", text))
    ringing = 0.0
    if sample.mask.suffix.casefold() in RINGING and index.mask_threshold < CLEAN_THRESHOLD:
        ringing = float((mask & ~read_mask(sample.mask, CLEAN_THRESHOLD, sample.box)).mean())
    is_empty = sample.label == ANOMALOUS and not mask.any()
    return _Opened(sample, digest, tuple(faults), is_empty, ringing)


def _repeated_folders(index: Index, opened: Sequence[_Opened]) -> list[Fault]:
    """Find folders all of whose images stand, byte for byte, in another one too."""
    homes: dict[tuple[str, object], set[Path]] = defaultdict(set)
    contents: dict[Path, list[tuple[str, object]]] = defaultdict(list)
    for one in opened:
        if one.digest is not None:
            key = (one.digest, one.sample.box)
            homes[key].add(one.sample.image.parent)
            contents[one.sample.image.parent].append(key)
    faults = []
    seen: set[frozenset[Path]] = set()
    for folder, keys in contents.items():
        twins = set.intersection(*(homes[key] for key in keys)) - {folder}
        for twin in sorted(twins) if len(keys) > 1 else ():
            if frozenset((folder, twin)) not in seen:
                seen.add(frozenset((folder, twin)))
                names = f"{index.relative(folder)} ({len(keys)} images) and {index.relative(twin)}"
                faults.append(Fault("repeated", f"the same images in two folders: {names}"))
    return faults


def faults_by_kind(faults: Iterable[Fault]) -> dict[str, list[str]]:
    """Group the texts of faults by their kind, in the order of their first.

    >>> faults_by_kind([Fault("mask", "a"), Fault("count", "b"), Fault("mask", "c")])
    {'mask': ['a', 'c'], 'count': ['b']}
    """
    kinds = list(dict.fromkeys(fault.kind for fault in faults))
    ranked = sorted(faults, key=lambda fault: kinds.index(fault.kind))
    return {
        kind: [fault.text for fault in group]
        for kind, group in groupby(ranked, key=lambda fault: fault.kind)
    }
