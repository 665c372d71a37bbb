"""Recipes: a table or an ablation as data, in `recipe.yaml` of a folder under `experiments/`."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from crane.errors import UsageError

RECIPE = "recipe.yaml"

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """What some data sets have of their own in a protocol."""

    targets: tuple[str, ...]
    """The data sets it holds for."""
    source: tuple[str, ...] | None = None
    """What is trained on for them; None: what is trained on for the others."""
    epoch: int | None = None
    """The epoch whose prompts are tested; None: the last one trained."""
    test: tuple[str, ...] = ()
    """Overrides of their tests."""


@dataclass(frozen=True)
class Row:
    """One row of a table: a setting, trained and tested.

    Raises:
        UsageError: The row names a checkpoint and overrides of a training.
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
                key=f"row {self.name!r}",
            )


@dataclass(frozen=True)
class Recipe:
    """A table or an ablation: what is run, under which protocol, and what it should come to.

    Raises:
        UsageError: There is nothing to run, the baseline is no row, or rows share a name.
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
        for what, found in (("row", self.rows), ("seed", self.seeds), ("target", self.targets)):
            if not found:
                raise UsageError(f"at least one {what}", "none", key=f"{what}s in {self.path}")
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise UsageError("a name of its own for each row", names, key=str(self.path))
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


def read_recipe(folder: Path) -> Recipe:
    """Read `recipe.yaml` of a folder.

    Raises:
        UsageError: There is none, or it says something that recipes do not.
    """
    path = folder.expanduser() / RECIPE
    if not path.is_file():
        raise UsageError(f"a folder with {RECIPE}", str(folder), key="experiments")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UsageError("YAML", str(path), hint=str(error).splitlines()[0]) from error
    if not isinstance(content, Mapping):
        raise UsageError("keys and values", type(content).__name__, key=str(path))
    given = content.get("rows", ())
    rows = tuple(_row(row, f"row {place}", path) for place, row in enumerate(given, 1))
    facts = {**content, "rows": rows, "protocol": _cases(content, path)}
    return _made(Recipe, {**facts, "folder": path.parent}, path)


def _row(content: Mapping[str, Any], where: str, path: Path) -> Row:
    suites = {
        str(name): one if isinstance(one, str) else tuple(one)
        for name, one in content.get("suites", {}).items()
    }
    return _made(Row, {**content, "protocol": _cases(content, path), "suites": suites}, path, where)


def _cases(content: Mapping[str, Any], path: Path) -> tuple[Case, ...]:
    return tuple(_made(Case, case, path, "protocol") for case in content.get("protocol", ()))


def _made(kind: type[T], content: Mapping[str, Any], path: Path, where: str | None = None) -> T:
    """A dataclass from YAML: lists become tuples; keys that it lacks or needs are named."""
    known = {one.name: one for one in fields(kind)}  # type: ignore[arg-type]
    place = f"{path}" if where is None else f"{where} in {path}"
    if strange := sorted(set(content) - set(known)):
        raise UsageError(f"keys out of {', '.join(known)}", ", ".join(strange), key=place)
    needed = {
        name
        for name, one in known.items()
        if one.default is MISSING and one.default_factory is MISSING
    }
    if lacking := sorted(needed - set(content)):
        raise UsageError(f"the keys {', '.join(sorted(needed))}", f"no {lacking}", key=place)
    plain = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    return kind(**plain)


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
