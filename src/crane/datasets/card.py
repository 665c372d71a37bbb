"""What is known of a published data set, and whether a copy is that data set."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crane.data.index import Index
from crane.errors import UsageError
from crane.types import ANOMALOUS, NORMAL

EVIDENCE = ("counted", "stated", "thread", "memory")
"""How a count is known, the surest first: counted in a published list of the images, stated by a
data set's own page or a data card, said in a repository's thread, or remembered. What is only
remembered is compared, but nothing fails by it."""

DOMAINS = ("industrial", "medical")


@dataclass(frozen=True)
class Counts:
    """One statement about the numbers of images of one split.

    Raises:
        UsageError: if it states nothing, or its evidence is of no known kind.

    >>> Counts("test", "counted", "a published list", classes={"bottle": [20, 63]}).totals
    (20, 63)
    """

    split: str
    """Which split."""
    evidence: str
    """One of `EVIDENCE`."""
    source: str
    """Who says so."""
    classes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Class to its normal and anomalous images."""
    total: Sequence[int] | None = None
    """Normal and anomalous images of the whole split."""
    num_images: int | None = None
    """Images of the whole split, whatever their label."""

    def __post_init__(self) -> None:
        if self.evidence not in EVIDENCE:
            raise UsageError(f"evidence out of {', '.join(EVIDENCE)}", self.evidence)
        if not self.classes and self.total is None and self.num_images is None:
            raise UsageError("a count a class, a total or a number of images", "none of them")

    @property
    def totals(self) -> tuple[int, int] | None:
        """Normal and anomalous images of the whole split, where stated or summed up."""
        if self.total is not None:
            return self.total[0], self.total[1]
        if self.classes:
            normal, anomalous = zip(*self.classes.values(), strict=True)
            return sum(normal), sum(anomalous)
        return None


@dataclass(frozen=True)
class Mismatch:
    """A count that a copy of a data set does not have."""

    text: str
    """What is wanted and what is there."""
    evidence: str
    """How the wanted count is known."""


@dataclass(frozen=True)
class Card:
    """What is known of a published data set; stands in its YAML under conf/dataset.

    Raises:
        UsageError: if the domain is of no known kind.
    """

    title: str
    """Its name in publications."""
    domain: str
    """One of `DOMAINS`."""
    has_masks: bool
    """Whether the place of every defect is known."""
    has_normals: bool
    """Whether there are normal images; without, image metrics are not defined."""
    class_names: Sequence[str]
    """The classes, as `crane` calls them."""
    licence: str
    """As its page states it, where known."""
    page: str
    """Where its authors publish it."""
    citation: str
    """Authors, title, venue."""
    size: str
    """Of the download, where known."""
    table_rows: Sequence[str]
    """Its names in the published tables (experiments/table1_zero_shot/published.csv)."""
    counts: Sequence[Counts]
    """Every statement about its numbers of images."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Class names of known copies to those of `class_names`."""

    def __post_init__(self) -> None:
        if self.domain not in DOMAINS:
            raise UsageError(f"a domain out of {', '.join(DOMAINS)}", self.domain)

    def splits(self) -> tuple[str, ...]:
        """The splits that any count is known of."""
        return tuple(dict.fromkeys(counts.split for counts in self.counts))

    def expected(self, split: str, class_name: str) -> tuple[int, int, str] | None:
        """Normal and anomalous images of one class and the evidence; None where not known."""
        name = self.aliases.get(class_name, class_name)
        for counts in self.of(split):
            if name in counts.classes:
                normal, anomalous = counts.classes[name]
                return normal, anomalous, counts.evidence
            if counts.totals is not None and len(self.class_names) == 1:
                return (*counts.totals, counts.evidence)
        return None

    def of(self, split: str) -> list[Counts]:
        """The statements about one split, the surest first."""
        found = [counts for counts in self.counts if counts.split == split]
        return sorted(found, key=lambda counts: EVIDENCE.index(counts.evidence))

    def mismatches(
        self, index: Index, split: str, classes: str | Sequence[str] | None
    ) -> list[Mismatch]:
        """Compare a copy with every statement about its split.

        Args:
            index: the copy.
            split: which split it is.
            classes: the classes it was restricted to; None if it is the whole split.

        Returns:
            What differs, the best known first.
        """
        wanted = [classes] if isinstance(classes, str) else classes
        return [
            Mismatch(f"{text} ({counts.evidence}: {counts.source})", counts.evidence)
            for counts in self.of(split)
            for text in self._differences(counts, index, wanted)
        ]

    def _differences(self, counts: Counts, index: Index, wanted: Sequence[str] | None) -> list[str]:
        found: Counter[tuple[str, int]] = Counter()
        for sample in index.samples:
            found[self.aliases.get(sample.class_name, sample.class_name), sample.label] += 1
        there = {name for name, _ in found}
        known = set(counts.classes)
        if wanted is not None:
            known &= {self.aliases.get(name, name) for name in wanted}
        # The only class of a data set is often renamed.
        strange = there - set(self.class_names) if len(self.class_names) > 1 else set()
        texts = [f"{name} is no class of it" for name in sorted(strange)]
        for name in sorted(known):
            normal, anomalous = found[name, NORMAL], found[name, ANOMALOUS]
            if (normal, anomalous) != tuple(counts.classes[name]):
                texts.append(_wanted(name, counts.classes[name], normal, anomalous))
        if wanted is not None:
            return texts
        if counts.total is not None and counts.totals != (index.num_normal, index.num_anomalous):
            texts.append(_wanted("in all", counts.total, index.num_normal, index.num_anomalous))
        if counts.num_images is not None and counts.num_images != len(index.samples):
            texts.append(f"in all: {len(index.samples)} images, not {counts.num_images}")
        return texts


def read_card(*, counts: Sequence[Mapping[str, Any]], **facts: Any) -> Card:
    """Make a card of what a YAML under conf/dataset says.

    Args:
        counts: the fields of each `Counts`.
        facts: the other fields of `Card`.

    Raises:
        UsageError: as `Card` and `Counts`.
    """
    return Card(counts=[Counts(**statement) for statement in counts], **facts)


def _wanted(where: str, counts: Sequence[int], normal: int, anomalous: int) -> str:
    return (
        f"{where}: {normal} normal and {anomalous} anomalous images, not {counts[0]} and "
        f"{counts[1]}"
    )
