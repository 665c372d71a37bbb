"""Recipes: a table or an ablation as data, in `recipe.yaml` of a folder under `experiments/`."""

import json
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, ClassVar, TypeVar

import yaml
from annotated_types import MinLen
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import AfterValidator, ConfigDict, TypeAdapter, ValidationError

from crane.checks import NonNegativeFloat, NonNegativeInt, PositiveInt, Seed, Text, one_of, shown
from crane.config import parse_override
from crane.errors import UsageError
from crane.report import read_published
from crane.reproduce.resources import suites

RECIPE = "recipe.yaml"

BESIDE = "type it as a word of its own"
SET_ELSEWHERE: Mapping[str, str] = {
    "seed": "seeds=[1,2] says which seeds run",
    **dict.fromkeys(("dataset@source", "source"), "source of a recipe or row names the sources"),
    **dict.fromkeys(
        ("dataset@targets", "targets"), "targets of a recipe, or suite.targets=[…], name them"
    ),
    "checkpoint": "checkpoint of a row names one",
    "epoch": "epoch of a row says whose prompts are tested",
    "resume": "an interrupted training resumes by itself",
    "run_dir": "hydra.run.dir=… says where runs go",
    **dict.fromkeys(("datasets_dir", "weights_dir", "allow_download", "results_store"), BESIDE),
    "hydra": BESIDE,
}
"""Keys that `crane reproduce` sets itself in every run, and where to set them instead."""

T = TypeVar("T", bound=Sequence[Hashable])


@cache
def key_of(override: str) -> str:
    """The key or group of an override, such as `dataset@source` of `dataset@source=[visa]`.

    Raises:
        UsageError: It is not an override.
    """
    try:
        return parse_override(override).get_key_element()
    except HydraException as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"{override!r} is not of the form KEY=VALUE: {reason}") from error


def check_override(override: str) -> str:
    """Return an override; refuse one that the runs of a recipe would not follow.

    Raises:
        UsageError: It is not an override, or of a key that is set elsewhere.
    """
    key = key_of(override).lstrip("+~")
    hint = SET_ELSEWHERE.get("hydra" if key.startswith(("hydra.", "hydra/")) else key)
    if hint is not None:
        raise UsageError(f"{override} has no effect here; {hint}")
    return override


def check_distinct(values: T) -> T:
    """Return a list; refuse one that holds a value twice.

    Raises:
        ValueError: Names the value.
    """
    for place, value in enumerate(values):
        if value in values[:place]:
            raise ValueError(f"{value!r} is listed twice")
    return values


def _check_pattern(pattern: str) -> str:
    try:
        pattern.format(source="source", epoch=1)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        raise ValueError(
            f"{pattern!r} must be a path with no other braces than {{source}} and {{epoch}}"
        ) from error
    return pattern


Names = Annotated[tuple[Text, ...], MinLen(1), AfterValidator(check_distinct)]
Seeds = Annotated[
    tuple[Seed, ...],
    "a list of integers from 0 to 4294967295, each once",
    MinLen(1),
    AfterValidator(check_distinct),
]
Overrides = tuple[Annotated[str, AfterValidator(check_override)], ...]


@dataclass(frozen=True)
class Case:
    """Exceptions from a protocol for some data sets."""

    targets: Names
    """The data sets tested this way."""
    source: Names | None = None
    """Data sets trained on for them; None for those of the row or recipe."""
    epoch: PositiveInt | None = None
    """Epoch whose prompts are tested; None for that of the row."""
    train: Overrides = ()
    """Overrides of the training for them."""
    test: Overrides = ()
    """Overrides of their tests."""


@dataclass(frozen=True)
class RecipeRow:
    """One row of a table: a setting, trained and tested.

    Raises:
        ValueError: It names a checkpoint without its epoch, or says how to train what it does not.
    """

    name: Text
    """Its name in the table."""
    overrides: Overrides = ()
    """Overrides of training and tests: what makes the setting."""
    train: Overrides = ()
    """Overrides of the training alone."""
    test: Overrides = ()
    """Overrides of the tests alone."""
    source: Names | None = None
    """Data sets trained on; None for the recipe's."""
    checkpoint: Annotated[Text, AfterValidator(_check_pattern)] | None = None
    """The authors' prompts, below `checkpoints_dir`, with `{source}` and `{epoch}` in the path;
    such a row trains nothing."""
    trains: bool = True
    """Whether it is trained; false for methods that train nothing."""
    epoch: PositiveInt | None = None
    """Epoch whose prompts are tested; None for the last one."""
    published: str | None = None
    """Method of the published table that it is compared with."""
    tolerance: NonNegativeFloat | None = None
    """Allowed difference from published values, in points; None for the recipe's."""
    protocol: tuple[Case, ...] = ()
    """Exceptions for some data sets in this row."""
    suites: Mapping[str, str | Overrides] = field(default_factory=dict)
    """Suite to the overrides that replace `overrides` there, or to the reason why the row is left
    out of it."""

    def __post_init__(self) -> None:
        if self.checkpoint is not None and (self.train or self.epoch is None):
            raise ValueError("a row with a checkpoint needs an epoch and no overrides in train")
        if not self.trains and (self.train or self.source or self.checkpoint or self.epoch):
            raise ValueError("a row with trains: false has no train, source, checkpoint or epoch")


def _check_names(rows: tuple[RecipeRow, ...]) -> tuple[RecipeRow, ...]:
    check_distinct([row.name for row in rows])
    return rows


@dataclass(frozen=True)
class StatedCost:
    """Cost of a recipe in the paper's suite."""

    images: NonNegativeInt
    """Images through the vision towers."""
    gpu_hours: NonNegativeFloat
    """Hours on one GPU, estimated from the images."""


@dataclass(frozen=True)
class Recipe:
    """A table or an ablation: what runs, under which protocol, and what it is compared with.

    Raises:
        ValueError: It refers to a row, method, target or suite that does not exist, or compares
            with published values without a tolerance.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False
    )

    folder: Path
    """Folder of `recipe.yaml`."""
    title: str
    """Heading of the README."""
    shows: str
    """What the table shows."""
    metrics: Names
    """The columns, in this order."""
    source: Names
    """Data sets trained on, unless a row or a case names others."""
    targets: Names
    """Data sets tested on."""
    rows: Annotated[tuple[RecipeRow, ...], MinLen(1), AfterValidator(_check_names)]
    """The rows of the table."""
    seeds: Seeds
    """Each row runs with each of them."""
    differs: str
    """Why values may differ from published ones, or what to keep in mind when reading them."""
    cost: StatedCost
    """Its cost in the paper's suite."""
    baseline: str | None = None
    """RecipeRow that the others are compared with; None if there are published values."""
    published: str | None = None
    """File of published values beside the recipe."""
    tolerance: NonNegativeFloat | None = None
    """Allowed difference from published values, in points."""
    protocol: tuple[Case, ...] = ()
    """Exceptions for some data sets in every row."""
    suite_seeds: Mapping[str, Seeds] = field(default_factory=dict)
    """Suite to the seeds that replace `seeds` there."""

    def __post_init__(self) -> None:
        if self.baseline is not None:
            one_of(self.baseline, [row.name for row in self.rows], "row", "baseline")
        methods = {method for method, _ in self.published_values}
        targets = {*self.targets, *(name for s in suites().values() for name in s.targets or ())}
        for row in self.rows:
            if row.published is not None and self.published is None:
                raise ValueError(
                    f"row {row.name!r} names a published method, but published is not set"
                )
            if self.published is not None and self.tolerance_of(row) is None:
                raise ValueError(f"tolerance is missing for row {row.name!r}")
            if row.published is not None:
                one_of(row.published, methods, "method", f"published of row {row.name!r}")
            for name in row.suites:
                one_of(name, suites(), "suite", f"suites of row {row.name!r}")
        for name in self.suite_seeds:
            one_of(name, suites(), "suite", "suite_seeds")
        for case in (*self.protocol, *(case for row in self.rows for case in row.protocol)):
            for name in case.targets:
                one_of(name, targets, "target", "targets of a protocol")

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def path(self) -> Path:
        """The file it was read from."""
        return self.folder / RECIPE

    @cached_property
    def published_values(self) -> Mapping[tuple[str, str], Mapping[str, float]]:
        """Method and data set of the published table to metric to fraction; empty without one."""
        return {} if self.published is None else read_published(self.folder / self.published).values

    def tolerance_of(self, row: RecipeRow) -> float | None:
        """Allowed difference of a row's values from published ones, in points."""
        return self.tolerance if row.tolerance is None else row.tolerance


def case_of(target: str, *protocols: Sequence[Case]) -> Case:
    """Combine what protocols say about one target.

    The first case of each protocol that names the target counts; later protocols override source
    and epoch of earlier ones, and their overrides come last.

    >>> mvtec = Case(("mvtec",), source=("visa",))
    >>> late = Case(("mvtec", "dagm"), epoch=1)
    >>> case_of("mvtec", [mvtec], [late]) == Case(("mvtec",), ("visa",), 1)
    True
    """
    whole = Case((target,))
    for protocol in protocols:
        case = next((case for case in protocol if target in case.targets), whole)
        if case is not whole:
            source, epoch = case.source or whole.source, case.epoch or whole.epoch
            train, test = (*whole.train, *case.train), (*whole.test, *case.test)
            whole = Case((target,), source, epoch, train, test)
    return whole


def read_recipe(folder: Path) -> Recipe:
    """Read `recipe.yaml` of a folder, and check all that can be checked before anything runs.

    Raises:
        UsageError: There is no recipe, or something in it is wrong; names file and key.
    """
    path = folder.expanduser().resolve() / RECIPE
    if not path.is_file():
        raise UsageError(f"{folder} has no {RECIPE}", key="experiments")
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))  # refuses duplicate keys
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or "folder" in content:
        raise UsageError("must hold the keys of a recipe, and no folder", key=str(path))
    text = json.dumps({**content, "folder": str(path.parent)}, default=str)
    try:
        return TypeAdapter(Recipe).validate_json(text)
    except ValidationError as error:
        raise UsageError(_problem(error), key=str(path)) from None


def _problem(error: ValidationError) -> str:
    """The first mistake in words: key, such as `rows.0.epoch`, and what is wrong."""
    errors = error.errors()
    first = next((one for one in errors if one["type"] == "value_error"), errors[0])
    of_types = re.compile(r"str|tuple\[.*")  # where a value may have one of two types
    key = ".".join(str(part) for part in first["loc"] if not of_types.fullmatch(str(part)))
    kind, value = first["type"], first["input"]
    if kind == "value_error":
        return f"{key}: {first['ctx']['error']}" if key else str(first["ctx"]["error"])
    if kind in ("missing", "unexpected_keyword_argument"):
        return f"{key} {'is missing' if kind == 'missing' else 'is not a key of recipes'}"
    in_quotes = kind == "string_type" and isinstance(value, (bool, int, float))
    hint = "; put it in quotes" * in_quotes
    return f"{key}: {first['msg'].replace('Input', 'it')}, not {shown(value)}{hint}"
