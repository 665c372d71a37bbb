"""Checks whether a copy of a data set is complete, and whether it is the published one."""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from crane.data.doubts import Doubt, class_lines, image_doubt, mask_doubt, remarks
from crane.data.filenames import first_few, may_be_image
from crane.data.index import UNMASKED, Index, MissingClassError, MissingSplitError
from crane.datasets.card import Card
from crane.errors import UsageError, counted
from crane.samples import ANOMALOUS, NORMAL, Sample

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
    lines: list[str] = field(default_factory=list)
    """What counts as normal and as anomalous in each class of the split that runs use."""
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
            _find_unused_files(index, indices.values(), found)
    for one, index in indices.items():
        areas = None if fast else _open_all(index, one, found, num_workers, advance)
        if one == split:
            found.lines = class_lines(index, areas)
    return found


def _read(
    read: ReadIndex, split: str, used: str, card: Card | None, found: Verification
) -> Index | None:
    """Read a split; if that fails, read its classes one by one to find everything wrong."""
    try:
        with _hearing() as heard:
            index = read(split=split)
        found.remarks += [text for text in heard if text not in found.remarks]
        return index
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


@contextmanager
def _hearing() -> Iterator[list[str]]:
    """Collect the warnings of `crane.data`, such as what was left out, instead of logging them."""
    heard: list[str] = []
    logger, handler = logging.getLogger("crane.data"), _Collecting(heard)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield heard
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


class _Collecting(logging.Handler):
    """Keeps warnings, but for those about missing masks, which are told by class."""

    def __init__(self, heard: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg != UNMASKED:
            self.heard.append(record.getMessage())


def _error_of(read: ReadIndex, split: str, class_name: str) -> str:
    """What is wrong with one class; empty for a missing class, which is counted elsewhere."""
    try:
        with _hearing():
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


def _find_unused_files(index: Index, indices: Iterable[Index], found: Verification) -> None:
    """Remark on files under the root that are not part of the data set; texts are not counted."""
    used = {path for i in indices for s in i.samples for path in (s.image, *s.masks)}
    unused: Counter[str] = Counter()
    for path in sorted(index.root.rglob("*")):
        if path in used or path.is_dir() or not may_be_image(path):
            continue
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
    doubts: tuple[Doubt | None, Doubt | None] = (None, None)
    """What is doubtful about the image and about its mask."""
    area: float = 0.0
    """Fraction of the image that is anomalous."""


def _open_all(
    index: Index, split: str, found: Verification, num_workers: int, advance: Advance
) -> dict[str, float]:
    """Open every image and mask of a split and report what is wrong with them.

    Returns:
        Class to the fraction of its pixels that are anomalous, each image counting the same.
    """
    opened: list[_Opened] = []
    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        for one in pool.map(lambda sample: _open(sample, index), index.samples):
            opened.append(one)
            advance(split, len(opened), len(index.samples))
    found.num_opened += len(opened)
    found.faults += [fault for one in opened for fault in one.faults]
    found.faults += _repeated_folders(index, opened)
    prefix = f"targets.{index.name}."
    masks = [one for one in opened if one.sample.mask is not None]
    for what, number, files in (("image", 0, opened), ("mask", 1, masks)):
        doubts = [(index.key(o.sample), d) for o in files if (d := o.doubts[number]) is not None]
        found.remarks += remarks(doubts, len(files), what, prefix)
    by_class: dict[str, list[float]] = defaultdict(list)
    for one in opened:
        by_class[one.sample.class_name].append(one.area)
    return {name: sum(areas) / len(areas) for name, areas in by_class.items()}


def _open(sample: Sample, index: Index) -> _Opened:
    """Open one image and its mask."""
    opened = _Opened(sample)
    size = mask = None
    try:
        size = index.read_image(sample).size
        if index.white_level is None:
            opened.doubts = (image_doubt(sample.image), None)
        opened.digest = hashlib.blake2b(sample.image.read_bytes()).hexdigest()
    except UsageError as error:
        opened.faults.append(Fault("unreadable", f"{index.key(sample)}: {error}"))
    if sample.mask is None:
        return opened
    name = index.relative(sample.mask)
    try:
        mask = index.read_mask(sample)
    except UsageError as error:
        opened.faults.append(Fault("unreadable", f"{name}: {error}"))
        return opened
    if size not in (None, mask.shape[::-1]):
        text = f"{name} is {mask.shape[1]} x {mask.shape[0]}, "
        text += f"its image {index.key(sample)} {size[0]} x {size[1]}"
        opened.faults.append(Fault("mask", text))
    opened.area = float(mask.mean())
    opened.doubts = (opened.doubts[0], mask_doubt(sample, index))
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
