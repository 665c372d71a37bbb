"""A data set as a list of labelled images, before any of them is opened."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from crane.errors import UsageError
from crane.types import ANOMALOUS, NORMAL, Sample


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
    """What tables and result files call the data set."""
    root: Path
    """The folder every sample lies under."""
    samples: tuple[Sample, ...]
    """The images; `class_id` and `index` of a batch refer to `class_names` and to this."""
    mask_threshold: int
    """A mask's pixel is anomalous where its 8-bit luminance exceeds this (see `read_mask`)."""
    mismatches: tuple[str, ...] = ()
    """Where the numbers of images are not those behind the published results; see `Card`."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every class once, sorted."""
        return tuple(sorted({sample.class_name for sample in self.samples}))

    @property
    def has_masks(self) -> bool:
        """Whether the place of any defect is known."""
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
        """Name a sample's file under `root`, with forward slashes.

        Raises:
            UsageError: if the file does not lie under `root`.
        """
        try:
            return path.relative_to(self.root).as_posix()
        except ValueError:
            raise UsageError(f"files of {self.name} under {self.root}", str(path)) from None

    def key(self, sample: Sample) -> str:
        """Name a sample: its file under `root`, and the part of the file where it is a part.

        >>> index = Index("x", Path("/data"), (), mask_threshold=0)
        >>> index.key(Sample(Path("/data/a.png"), 0, "a", box=(0, 0, 8, 4)))
        'a.png[0,0,8,4]'

        Raises:
            UsageError: if the file does not lie under `root`.
        """
        part = "" if sample.box is None else "[" + ",".join(map(str, sample.box)) + "]"
        return self.relative(sample.image) + part

    def fingerprint(self) -> str:
        """Hash what the data set holds: a sha256, the same on every machine and in every folder.

        Covers the relative path, box, label, mask path and both file sizes of every sample, and
        the mask threshold; not the pixels, which would take minutes to read. Samples may be in any
        order.

        Raises:
            UsageError: if a file has gone since the folder was read.
        """
        lines = []
        for sample in self.samples:
            fields = [self.key(sample), str(sample.label), _size(sample.image)]
            if sample.mask is not None:
                fields += [self.relative(sample.mask), _size(sample.mask)]
            lines.append("\t".join(fields))
        text = "\n".join([f"mask_threshold={self.mask_threshold}", *sorted(lines)])
        return hashlib.sha256(text.encode()).hexdigest()


def sorted_samples(samples: Iterable[Sample]) -> tuple[Sample, ...]:
    """Put samples in the one order: class, then defect (normal images first), then path and box."""

    def place(sample: Sample) -> tuple[str, int, str, str, tuple[int, ...]]:
        where = (sample.image.as_posix(), sample.box or ())
        return sample.class_name, sample.label, sample.defect, *where

    return tuple(sorted(samples, key=place))


def _size(path: Path) -> str:
    try:
        return str(path.stat().st_size)
    except OSError:
        raise UsageError("a file that was there when the data set was indexed", str(path)) from None
