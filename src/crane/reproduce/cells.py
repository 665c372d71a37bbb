"""From a recipe and a suite to cells: each a setting, a data set and a seed."""

from collections.abc import Iterable
from dataclasses import dataclass

from crane.errors import UsageError
from crane.reproduce.overrides import key_of
from crane.reproduce.recipe import Recipe, Row, case_of
from crane.reproduce.suite import Suite


@dataclass(frozen=True)
class Cell:
    """What one run of a test measures: a row's metrics on one data set, for one seed."""

    row: str
    """The row of the recipe."""
    dataset: str
    """The data set, as an option of the group `dataset`."""
    seed: int
    """The seed of training and test."""
    train: tuple[str, ...] | None = None
    """Overrides of the `crane train` whose prompts are tested, its seed and targets left out; None
    for a checkpoint."""
    checkpoint: str | None = None
    """A checkpoint of someone else's, below `checkpoints_dir`."""
    epoch: int | None = None
    """The epoch whose prompts are tested; None for the last one."""
    test: tuple[str, ...] = ()
    """Overrides of the `crane test`, its checkpoint, seed and target left out."""
    excluded: str | None = None
    """Why it is not run in this suite; None if it is."""


@dataclass(frozen=True)
class Changes:
    """What the user wants otherwise than recipe and suite say."""

    seeds: tuple[int, ...] | None = None
    """In the place of the recipe's; None for these."""
    overrides: tuple[str, ...] = ()
    """Of every run."""
    train: tuple[str, ...] = ()
    """Of every training."""


NO_CHANGES = Changes()


def expand(recipe: Recipe, suite: Suite, changes: Changes = NO_CHANGES) -> list[Cell]:
    """Every cell of a recipe in a suite, row by row.

    Args:
        recipe: The recipe.
        suite: Where it is run.
        changes: What the user wants otherwise.

    Raises:
        UsageError: A source has no stand-in in the suite, or an override cannot be read.
    """
    targets = recipe.targets if suite.targets is None else tuple(suite.targets)
    seeds = recipe.seeds if changes.seeds is None else changes.seeds
    return [
        _cell(recipe, row, suite, target, seed, changes)
        for row in recipe.rows
        for target in targets
        # Prompts that are not trained here do not depend on a seed.
        for seed in seeds[: 1 if row.checkpoint else None]
    ]


def _cell(recipe: Recipe, row: Row, suite: Suite, target: str, seed: int, changes: Changes) -> Cell:
    here = row.suites.get(suite.name)
    if isinstance(here, str):
        return Cell(row.name, target, seed, excluded=here)
    case = case_of(target, recipe.protocol, row.protocol)
    named = case.source or row.source or recipe.source
    source = tuple(_source(name, suite) for name in named)
    if target in source:
        return Cell(row.name, target, seed, excluded="it is trained on")
    epoch = row.epoch if case.epoch is None else case.epoch
    own = row.overrides if here is None else here
    common = [*suite.overrides, *_replaced(own, suite)]
    test = joined(common, _replaced([*row.test, *case.test], suite), changes.overrides)
    if row.checkpoint is not None:
        path = row.checkpoint.format(source="+".join(source), epoch=epoch)
        return Cell(row.name, target, seed, checkpoint=path, epoch=epoch, test=test)
    trained_on = [f"dataset@source=[{','.join(source)}]"]
    own_train = _replaced(row.train, suite)
    asked = (*changes.overrides, *changes.train)
    train = joined(common, suite.train, own_train, asked, trained_on)
    return Cell(row.name, target, seed, train=train, epoch=epoch, test=test)


def _source(name: str, suite: Suite) -> str:
    if suite.sources and name not in suite.sources:
        wanted = f"a stand-in for {name} in suite.sources"
        raise UsageError(wanted, ", ".join(suite.sources), key=f"conf/suite/{suite.name}.yaml")
    return suite.sources.get(name, name)


def _replaced(overrides: Iterable[str], suite: Suite) -> list[str]:
    return [new for old in overrides for new in suite.replace.get(old, (old,))]


def joined(*groups: Iterable[str]) -> tuple[str, ...]:
    """Overrides one after the other; of those for one key only the last is kept.

    >>> joined(["method=crane_plus", "guide=mini"], ["guide=none", "seed=1"])
    ('method=crane_plus', 'guide=none', 'seed=1')

    Raises:
        UsageError: One is no override.
    """
    last: dict[str, str] = {}
    for override in (one for group in groups for one in group):
        key = key_of(override)
        last.pop(key, None)
        last[key] = override
    return tuple(last.values())
