"""What is known of a published data set, and whether a copy agrees with it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from crane.checks import NonNegativeInt, Text, checked
from crane.data.index import ClassNames, Index
from crane.errors import InvalidValueError, UsageError, counted
from crane.samples import ANOMALOUS, NORMAL

EVIDENCE = ("counted", "stated", "thread", "memory")
"""How a count is known, the most reliable first: counted in a published list of the images, stated
by the data set's own page or a data card, mentioned in a repository's thread, or from memory. A
count from memory is compared, but a mismatch is not a fault."""

Pair = tuple[NonNegativeInt, NonNegativeInt]
"""Numbers of normal and anomalous images."""


@checked
@dataclass(frozen=True)
class ImageCounts:
    """One statement about the numbers of images of one split.

    Raises:
        UsageError: It states nothing, or a value does not fit.

    >>> ImageCounts("test", "counted", "a published list", classes={"bottle": [20, 63]}).totals
    (20, 63)
    """

    split: Text
    evidence: Literal["counted", "stated", "thread", "memory"]
    source: Text
    """Who says so."""
    classes: Mapping[str, Pair] = field(default_factory=dict)
    """Class to its normal and anomalous images."""
    total: Pair | None = None
    """Normal and anomalous images of the whole split."""
    num_images: NonNegativeInt | None = None
    """Images of the whole split, whatever their label."""

    def __post_init__(self) -> None:
        if not self.classes and self.total is None and self.num_images is None:
            raise UsageError("a count needs one of classes, total and num_images", key="counts")

    @property
    def totals(self) -> tuple[int, int] | None:
        """Normal and anomalous images of the whole split, if stated for it or for its classes."""
        if self.total is not None:
            return self.total[0], self.total[1]
        if self.classes:
            normal, anomalous = zip(*self.classes.values(), strict=True)
            return sum(normal), sum(anomalous)
        return None

    def differences(self, found: Mapping[str, Pair], *, is_part: bool) -> list[str]:
        """Where a copy differs.

        Args:
            found: Class to the numbers of normal and anomalous images of the copy.
            is_part: Whether the copy was restricted to some of its classes.
        """
        known = [name for name in sorted(self.classes) if name in found or not is_part]
        pairs = [(name, found.get(name, (0, 0)), self.classes[name]) for name in known]
        texts = []
        if not is_part:
            normal, anomalous = (sum(pair[i] for pair in found.values()) for i in (0, 1))
            pairs += [("in all", (normal, anomalous), self.total)] if self.total else []
            if self.num_images not in (None, normal + anomalous):
                texts = [f"in all: {counted(normal + anomalous, 'image')}, not {self.num_images}"]
        return [
            f"{where}: {pair[0]} normal and {pair[1]} anomalous images, "
            f"not {wanted[0]} and {wanted[1]}"
            for where, pair, wanted in pairs
            if tuple(pair) != tuple(wanted)
        ] + texts


@dataclass(frozen=True)
class Mismatch:
    """A count that a copy of a data set does not match."""

    text: str
    """The numbers expected and found."""
    evidence: str
    """How the expected count is known."""


@checked
@dataclass(frozen=True)
class Card:
    """What is known of a published data set; part of its YAML under conf/dataset.

    Raises:
        UsageError: A value does not fit.
    """

    title: Text
    """Its name in publications."""
    domain: Literal["industrial", "medical"]
    """What it shows; published averages are over one domain."""
    class_names: Sequence[str]
    """The classes, as `crane` calls them."""
    has_masks: bool = True
    """Whether every defect has a mask."""
    has_normals: bool = True
    """Whether there are normal images; without, image metrics are not defined."""
    licence: str = "not known"
    """As its page states it."""
    page: str = "not known"
    """Where its authors publish it."""
    citation: str = "not known"
    """Authors, title, venue."""
    size: str = "not known"
    """Size of the download."""
    table_rows: Sequence[str] = ()
    """Its names in the published tables (experiments/table1_zero_shot/published.csv)."""
    counts: Sequence[Any] = ()
    """Every statement about its numbers of images, as `ImageCounts` or their fields."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Class names of known copies to those of `class_names`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "counts", [_counts(i, one) for i, one in enumerate(self.counts)])

    def splits(self) -> tuple[str, ...]:
        """The splits with a known count."""
        return tuple(dict.fromkeys(counts.split for counts in self.counts))

    def name_of(self, class_name: str) -> str:
        """The name on this card of a copy's class."""
        return self.aliases.get(class_name, class_name)

    def expected(self, split: str, class_name: str) -> tuple[int, int, str] | None:
        """Normal and anomalous images of one class and the evidence; None if not known."""
        name = self.name_of(class_name)
        for counts in self.of(split):
            if name in counts.classes:
                normal, anomalous = counts.classes[name]
                return normal, anomalous, counts.evidence
            if counts.totals is not None and len(self.class_names) == 1:
                return (*counts.totals, counts.evidence)
        return None

    def of(self, split: str) -> list[ImageCounts]:
        """The statements about one split, the most reliable first."""
        found = [counts for counts in self.counts if counts.split == split]
        return sorted(found, key=lambda counts: EVIDENCE.index(counts.evidence))

    def mismatches(self, index: Index, split: str, classes: ClassNames) -> list[Mismatch]:
        """Compare a copy with every statement about its split.

        Args:
            index: The copy.
            split: Which split it is.
            classes: The classes it was restricted to; None if it is the whole split.

        Returns:
            The differences, the most reliable first.
        """
        numbers = Counter((self.name_of(s.class_name), s.label) for s in index.samples)
        found = {name: (numbers[name, NORMAL], numbers[name, ANOMALOUS]) for name, _ in numbers}
        # The only class of a data set is often renamed.
        unknown = set(found) - set(self.class_names) if len(self.class_names) > 1 else set()
        texts = [f"{name} is not one of its classes" for name in sorted(unknown)]
        return [
            Mismatch(f"{text} ({counts.evidence}: {counts.source})", counts.evidence)
            for counts in self.of(split)
            for text in texts + counts.differences(found, is_part=classes is not None)
        ]


def _counts(number: int, statement: Any) -> ImageCounts:
    """A statement from its fields in a YAML; errors name the field."""
    if isinstance(statement, ImageCounts):
        return statement
    try:
        return ImageCounts(**statement)
    except InvalidValueError as error:
        raise error.under(f"counts.{number}") from None
    except TypeError as error:  # no mapping, an unknown key or a missing one
        raise InvalidValueError(str(error), key=f"counts.{number}") from None
