"""Recipes: a table or an ablation as data, in `recipe.yaml` of a folder under `experiments/`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crane.errors import UsageError

RECIPE = "recipe.yaml"


@dataclass(frozen=True)
class Case:
    """What some data sets have of their own in a protocol.

    Raises:
        UsageError: It holds for no data set, trains on none, or tests no epoch.
    """

    targets: tuple[str, ...]
    """The data sets it holds for."""
    source: tuple[str, ...] | None = None
    """What is trained on for them; None: what is trained on for the others."""
    epoch: int | None = None
    """The epoch whose prompts are tested; None: the last one trained."""
    test: tuple[str, ...] = ()
    """Overrides of their tests."""

    def __post_init__(self) -> None:
        _check_list("targets", "target", self.targets)
        _check_own(self.source, self.epoch)


@dataclass(frozen=True)
class Row:
    """One row of a table: a setting, trained and tested.

    Raises:
        UsageError: The row names a checkpoint and overrides of a training, trains on nothing, tests
            no epoch, or allows less than nothing.
    """

    name: str
    """As the table calls it."""
    overrides: tuple[str, ...] = ()
    """What makes the setting, in training and in testing."""
    train: tuple[str, ...] = ()
    """Overrides of the training alone."""
    test: tuple[str, ...] = ()
    """Overrides of the tests alone."""
    source: tuple[str, ...] | None = None
    """Data sets trained on; None for the recipe's."""
    checkpoint: str | None = None
    """Prompts of someone else's, below `checkpoints_dir`, with `{source}` and `{epoch}` in it; such
    a row trains nothing."""
    epoch: int | None = None
    """The epoch whose prompts are tested; None: the last one trained."""
    published: str | None = None
    """The method of `published.csv` that it is compared with."""
    tolerance: float | None = None
    """How far from the published value, in points, a value may be; None for the recipe's."""
    protocol: tuple[Case, ...] = ()
    """What some data sets have of their own in this row."""
    suites: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """Suite to the overrides that take the place of `overrides` there, or to the reason why the
    row makes no sense in it."""

    def __post_init__(self) -> None:
        if self.checkpoint is not None and (self.train or self.epoch is None):
            raise UsageError(
                "an epoch and no overrides of a training beside a checkpoint",
                f"train={list(self.train)}, epoch={self.epoch}",
                key="checkpoint",
            )
        _check_own(self.source, self.epoch)
        _check_tolerance(self.tolerance, "tolerance")


@dataclass(frozen=True)
class Recipe:
    """A table or an ablation: what is run, under which protocol, and what it should come to.

    Raises:
        UsageError: There is nothing to run, something is named twice, or the baseline is no row.
    """

    folder: Path
    """Where `recipe.yaml` lies."""
    title: str
    """Heading of the README."""
    shows: str
    """What the table shows."""
    metrics: tuple[str, ...]
    """What is tabulated, in this order."""
    source: tuple[str, ...]
    """Data sets trained on, unless a row or a case says otherwise."""
    targets: tuple[str, ...]
    """Data sets tested on."""
    rows: tuple[Row, ...]
    """The rows of the table."""
    seeds: tuple[int, ...]
    """Each row is run with each of them."""
    differs: str
    """Why values may differ from the published ones, or what to keep in mind reading them."""
    cost: Mapping[str, float]
    """Of the paper's suite: `images` through the towers, `gpu_hours` estimated from them."""
    baseline: str | None = None
    """The row that the others are compared with; None where published values are."""
    published: str | None = None
    """File of published values beside the recipe."""
    tolerance: float | None = None
    """How far from the published value, in points, a value may be."""
    protocol: tuple[Case, ...] = ()
    """What some data sets have of their own in every row."""

    def __post_init__(self) -> None:
        for name, one in (("metrics", "metric"), ("source", "source"), ("targets", "target")):
            _check_list(f"{name} in {self.path}", one, getattr(self, name))
        _check_list(f"seeds in {self.path}", "seed", self.seeds)
        _check_list(f"rows in {self.path}", "row", [row.name for row in self.rows])
        _check_tolerance(self.tolerance, f"tolerance in {self.path}")
        names = [row.name for row in self.rows]
        if self.baseline is not None and self.baseline not in names:
            raise UsageError(
                f"a row out of {', '.join(names)}", self.baseline, key=f"baseline in {self.path}"
            )
        if self.published is not None and any(self.tolerance_of(row) is None for row in self.rows):
            raise UsageError("a tolerance for every row", "none", key=f"tolerance in {self.path}")

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def path(self) -> Path:
        """The file it was read from."""
        return self.folder / RECIPE

    def tolerance_of(self, row: Row) -> float | None:
        """How far from the published value, in points, a row's values may be."""
        return self.tolerance if row.tolerance is None else row.tolerance


def _check_list(key: str, what: str, found: Sequence[object]) -> None:
    if not found:
        raise UsageError(f"at least one {what}", "none", key=key)
    if len(set(found)) < len(found):
        raise UsageError(f"each {what} once", list(found), key=key)


def _check_own(source: Sequence[str] | None, epoch: int | None) -> None:
    if source is not None:
        _check_list("source", "source", source)
    if epoch is not None and epoch < 1:
        raise UsageError("an epoch from 1 on", epoch, key="epoch")


def _check_tolerance(tolerance: float | None, key: str) -> None:
    if tolerance is not None and tolerance < 0:
        raise UsageError("points from 0 on", tolerance, key=key)


def case_of(target: str, *protocols: Sequence[Case]) -> Case:
    """What holds for a target: of each protocol the first case that names it, the later ones first.

    >>> mvtec = Case(("mvtec",), source=("visa",))
    >>> late = Case(("mvtec", "dagm"), epoch=1)
    >>> case_of("mvtec", [mvtec], [late]) == Case(("mvtec",), ("visa",), 1)
    True
    """
    source: tuple[str, ...] | None = None
    epoch: int | None = None
    test: tuple[str, ...] = ()
    for protocol in protocols:
        found = next((case for case in protocol if target in case.targets), None)
        if found is not None:
            source = source if found.source is None else found.source
            epoch = epoch if found.epoch is None else found.epoch
            test = (*test, *found.test)
    return Case((target,), source, epoch, test)
