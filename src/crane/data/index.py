"""A data set as a list of labelled images, before any of them is opened, and choices from it.

Held-out validation, few shots and portions rank the images of a class and label by a hash of the
seed and their names. So a choice is the same on every machine and in any order of files, adding or
removing a class does not affect the others, and a smaller choice is part of a larger one.
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from crane.checks import Interval, PathText, Text, checked
from crane.data.filenames import first_few
from crane.errors import UsageError
from crane.samples import ANOMALOUS, NORMAL, Sample

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool
    from PIL import Image

logger = logging.getLogger(__name__)

RESERVED = "mean"
"""Not allowed as the name of a class: tables and the results store use it for the average."""

MaskThreshold = Annotated[int, Interval(ge=0, le=254)]
"""Mask pixels are anomalous where their 8-bit luminance exceeds this (see `read_mask`)."""

MaskValues = Literal["luminance", "brightest", "alpha", "index"]
"""What of a mask's pixels is compared: their luminance, the brightest of red, green and blue, the
opacity, or the number of the colour in a palette."""

WhiteLevel = Annotated[int, Interval(ge=1, le=65535)] | None
"""The value of 16-bit grey images that is white, such as 4095 for 12 bits; None for 65535."""

ClassNames = str | int | Sequence[str | int] | None
"""One class, several, or None for all."""

ReadClass = Callable[[], list[Sample]]
"""Makes the samples of one class."""

Readers = Mapping[str, ReadClass]
"""Class to its reader."""

Layout = Callable[[str, Path, str], Readers | None]
"""How a data set lies on disk. Called with its name, a folder and a split; returns the readers of
its classes, or None if the folder is laid out in another way."""


class MissingSplitError(UsageError):
    """The data set on disk has no such split."""


class MissingClassError(UsageError):
    """The data set on disk has no such class."""


@dataclass(frozen=True)
class Index:
    """The images of one split of one data set, in a fixed order.

    >>> index = Index("screws", Path("/data"), (
    ...     Sample(Path("/data/screw/good/0.png"), 0, "screw"),
    ...     Sample(Path("/data/screw/bent/0.png"), 1, "screw", "bent"),
    ... ), mask_threshold=0)
    >>> index.class_names, index.num_normal, index.num_anomalous, index.has_masks
    (('screw',), 1, 1, False)
    """

    name: str
    """The data set's name in tables and result files."""
    root: Path
    """The folder that holds every sample."""
    samples: tuple[Sample, ...]
    """The images; `class_id` and `index` of a batch refer to `class_names` and to this."""
    mask_threshold: int
    """See `MaskThreshold`."""
    mismatches: tuple[str, ...] = ()
    """Where the numbers of images differ from those behind the published results; see `Card`."""
    mask_values: MaskValues = "luminance"
    """See `MaskValues`."""
    mask_invert: bool = False
    """Whether masks mark what is normal."""
    white_level: WhiteLevel = None
    """See `WhiteLevel`."""
    listed_in: str = ""
    """The list that gives the labels; empty if folders do."""

    def read_image(self, sample: Sample) -> "Image.Image":
        """An image as 8-bit RGB; see `read_rgb`."""
        from crane.data.images import read_rgb  # imports torch, which listing does without

        return read_rgb(sample.image, sample.box, white_level=self.white_level)

    def read_mask(self, sample: Sample) -> "Bool[np.ndarray, 'H W']":
        """The mask of a sample that has one; see `crane.data.images.read_mask`."""
        from crane.data.images import read_mask

        return read_mask(
            *(sample.masks, self.mask_threshold, sample.box),
            values=self.mask_values,
            invert=self.mask_invert,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every class once, sorted."""
        return tuple(sorted({sample.class_name for sample in self.samples}))

    @property
    def has_masks(self) -> bool:
        """Whether any sample has a mask."""
        return any(sample.mask is not None for sample in self.samples)

    @property
    def num_normal(self) -> int:
        """Images labelled normal."""
        return sum(sample.label == NORMAL for sample in self.samples)

    @property
    def num_anomalous(self) -> int:
        """Images labelled anomalous."""
        return sum(sample.label == ANOMALOUS for sample in self.samples)

    def relative(self, path: Path) -> str:
        """A sample's file relative to `root`, with forward slashes.

        Raises:
            UsageError: The file does not lie under `root`.
        """
        try:
            return path.relative_to(self.root).as_posix()
        except ValueError:
            raise UsageError(
                f"{path} lies outside {self.root}, the folder of data set {self.name}"
            ) from None

    def folders_of(self, path: Path) -> tuple[str, ...]:
        """The names of the folders between the root and a file."""
        return path.relative_to(self.root).parts[:-1] if self.root in path.parents else ()

    def key(self, sample: Sample) -> str:
        """A unique name: the file relative to `root`, with its box if it has one.

        >>> index = Index("x", Path("/data"), (), mask_threshold=0)
        >>> index.key(Sample(Path("/data/a.png"), 0, "a", box=(0, 0, 8, 4)))
        'a.png[0,0,8,4]'

        Raises:
            UsageError: The file does not lie under `root`.
        """
        part = "" if sample.box is None else "[" + ",".join(map(str, sample.box)) + "]"
        return self.relative(sample.image) + part

    def fingerprint(self) -> str:
        """A SHA-256 of what the data set holds, the same on every machine and in every folder.

        Covers the relative path, box, label, mask path and both file sizes of every sample, and
        how masks and 16-bit images are read; not the pixels, which would take minutes to read.
        Independent of the order of the samples.

        Raises:
            UsageError: A file was removed since the folder was read.
        """
        lines = []
        for sample in self.samples:
            fields = [self.key(sample), str(sample.label), self._size(sample.image)]
            for mask in sample.masks:
                fields += [self.relative(mask), self._size(mask)]
            lines.append("\t".join(fields))
        reading = [f"mask_threshold={self.mask_threshold}"]
        reading += [f"mask_values={self.mask_values}"] * (self.mask_values != "luminance")
        reading += ["mask_invert=true"] * self.mask_invert
        reading += [f"white_level={self.white_level}"] * (self.white_level is not None)
        text = "\n".join([*reading, *sorted(lines)])
        return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()

    def _size(self, path: Path) -> str:
        try:
            return str(path.stat().st_size)
        except OSError:
            raise UsageError(f"{path} was removed while data set {self.name} was in use") from None


@checked
@dataclass(frozen=True)
class Request:
    """What to read: a split, or some classes of it, of a data set on disk.

    Raises:
        UsageError: A value is of another type or out of range.
    """

    name: Text
    """What to call the data set."""
    root: PathText | Path
    """Its folder; may begin with `~`."""
    split: Text
    """Which split; `test` is the one with anomalies."""
    mask_threshold: MaskThreshold
    """Mask pixels are anomalous where their 8-bit luminance exceeds this."""
    classes: ClassNames = None
    """The classes to read; None for all."""
    fetch: str = ""
    """Where to get the data, for the error message if they are missing."""
    mask_values: MaskValues = "luminance"
    """See `MaskValues`."""
    mask_invert: bool = False
    """Whether masks mark what is normal."""
    white_level: WhiteLevel = None
    """See `WhiteLevel`."""

    @property
    def root_key(self) -> str:
        """The keys that name the folder."""
        return f"datasets_dir, source.{self.name}.root or targets.{self.name}.root"

    def folder(self) -> Path:
        """The data set's folder.

        Raises:
            UsageError: There is none; says where to get the data and which key to change.
        """
        folder = Path(self.root).expanduser()
        if not folder.is_dir():
            raise self.refusal("is not a folder" if folder.exists() else "does not exist", folder)
        return folder

    def refusal(self, problem: str, folder: Path) -> UsageError:
        """The error for a folder that does not hold the data set, with the way out."""
        fetch = f"{self.fetch}, or " if self.fetch else ""
        return UsageError(
            f"data set {self.name}: {folder} {problem}; {fetch}change {self.root_key}",
            key=self.root_key,
        )

    def index(self, folder: Path, readers: Readers, listed_in: str = "") -> Index:
        """Read the wanted classes.

        Args:
            folder: The folder that holds them.
            readers: Each class's reader, as a `Layout` returns them.
            listed_in: The list that gives the labels; empty if folders do.

        Raises:
            UsageError: A class does not exist, a class is called `mean`, there are no images, or
                one image or mask is listed twice.
        """
        wanted = self._wanted(readers)
        samples = sorted_samples(sample for name in wanted for sample in readers[name]())
        index = Index(
            *(self.name, folder, samples, self.mask_threshold),
            mask_values=self.mask_values,
            mask_invert=self.mask_invert,
            white_level=self.white_level,
            listed_in=listed_in,
        )
        if not samples:
            raise UsageError(f"data set {self.name}: no images under {folder}")
        if RESERVED in index.class_names:
            raise UsageError(
                f"data set {self.name}: no class may be called {RESERVED!r}, the name of the "
                f"average over classes; rename its folder under {folder}, or the class in meta.json"
            )
        files = Counter((path, s.box) for s in samples for path in (s.image, *s.masks))
        repeated = [path for (path, _), number in files.items() if number > 1]
        if repeated:
            raise UsageError(f"data set {self.name} lists files twice: {first_few(repeated)}")
        _warn_of_missing_masks(index)
        return index

    def _wanted(self, available: Iterable[str]) -> list[str]:
        if self.classes is None:
            return sorted(available)
        several = [self.classes] if isinstance(self.classes, (str, int)) else self.classes
        wanted = set(map(str, several))
        unknown = first_few(sorted(wanted - set(available)))
        if unknown or not wanted:
            raise MissingClassError(
                f"{self.name} has no class {unknown or '(the list is empty)'}; choose from "
                f"{', '.join(sorted(available))}",
                key=f"source.{self.name}.classes or targets.{self.name}.classes",
            )
        return sorted(wanted)


def missing_split(name: str, place: Path, split: str, splits: Iterable[str]) -> MissingSplitError:
    """The error for a split that the data set, as it lies in `place`, does not have."""
    return MissingSplitError(
        f"{name} has no split {split} in {place}, only {', '.join(splits) or 'empty ones'}",
        key=f"source.{name}.split or targets.{name}.split",
    )


def sorted_samples(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Sort samples by class, then defect (normal images first), then path and box."""

    def place(sample: Sample) -> tuple[str, int, str, str, tuple[int, ...]]:
        where = (sample.image.as_posix(), sample.box or ())
        return sample.class_name, sample.label, sample.defect, *where

    return tuple(sorted(samples, key=place))


UNMASKED = "%s: %d of %d anomalous images have no mask and count in the image metrics only: %s"
"""The warning about anomalous images without masks in a data set that has masks."""


def _warn_of_missing_masks(index: Index) -> None:
    lacking = [s.image for s in index.samples if s.label == ANOMALOUS and s.mask is None]
    if lacking and index.has_masks:
        logger.warning(
            UNMASKED,
            index.name,
            len(lacking),
            index.num_anomalous,
            first_few(index.relative(path) for path in lacking),
        )


def hold_out(index: Index, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split an index into images to train on and images to validate on.

    The fraction is taken of every class and label and rounded to the nearest, but at least one
    image is held out and at least one is left; a class's only image of a label is trained on.

    Args:
        index: The source.
        fraction: Fraction to hold out, in [0, 1); 0 holds out nothing.
        seed: Seed of the choice.

    Returns:
        Positions to train on and positions to validate on, both ascending.
    """

    def num_held(num: int) -> int:
        return min(max(1, round(num * fraction)), num - 1) if fraction > 0 else 0

    held = _choose(index, range(len(index.samples)), seed, "validation", num_held)
    return sorted(set(range(len(index.samples))) - set(held)), held


def few_shots(index: Index, positions: Sequence[int], k_shot: int, seed: int) -> list[int]:
    """Keep k images per class: k/2 normal and k/2 anomalous (paper and official `k_shot`).

    A class with fewer of a label keeps all it has, with a warning.

    Args:
        index: The source.
        positions: The images to choose from.
        k_shot: An even number k > 0.
        seed: Seed of the choice.

    Returns:
        The positions kept, ascending.
    """
    for (class_name, label), found in _strata(index, positions).items():
        if len(found) < k_shot // 2:
            kind = "normal" if label == NORMAL else "anomalous"
            logger.warning(
                "%s/%s has %d %s images, fewer than the %d of k_shot %d",
                index.name,
                class_name,
                len(found),
                kind,
                k_shot // 2,
                k_shot,
            )
    return _choose(index, positions, seed, "k_shot", lambda num: min(k_shot // 2, num))


def portion_of(index: Index, positions: Sequence[int], portion: float, seed: int) -> list[int]:
    """Keep a fraction of every class and label, rounded down (official `portion`).

    Args:
        index: The source.
        positions: The images to choose from.
        portion: Fraction to keep, in (0, 1].
        seed: Seed of the choice.

    Returns:
        The positions kept, ascending.

    Raises:
        UsageError: No image would be left.
    """
    kept = _choose(index, positions, seed, "portion", lambda num: int(num * portion))
    if positions and not kept:
        raise UsageError(
            f"{portion} leaves no image of {index.name} to train on", key="data.portion"
        )
    return kept


def _choose(
    index: Index,
    positions: Sequence[int],
    seed: int,
    purpose: str,
    num_chosen: Callable[[int], int],
) -> list[int]:
    """Take from each class and label the images that rank first."""

    def rank(position: int) -> bytes:
        name = index.key(index.samples[position])
        return hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).digest()

    chosen: list[int] = []
    for found in _strata(index, positions).values():
        chosen += sorted(found, key=rank)[: num_chosen(len(found))]
    return sorted(chosen)


def _strata(index: Index, positions: Sequence[int]) -> dict[tuple[str, int], list[int]]:
    """The positions of each class and label, with both labels of a class even if one is empty."""
    strata: dict[tuple[str, int], list[int]] = defaultdict(list)
    for position in positions:
        sample = index.samples[position]
        for label in (NORMAL, ANOMALOUS):
            strata[sample.class_name, label] += [position] if label == sample.label else []
    return strata
