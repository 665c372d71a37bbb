"""From a recipe and a suite to cells: each a setting, a data set and a seed."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from crane.errors import UsageError
from crane.reproduce.recipe import Recipe, RecipeRow, case_of, check_override, key_of
from crane.reproduce.resources import Suite


@dataclass(frozen=True)
class Cell:
    """One test of a row on one data set with one seed."""

    row: str
    """The row of the recipe."""
    dataset: str
    """The data set, as an option of the group `dataset`."""
    seed: int
    """The seed of training and test."""
    train: tuple[str, ...] | None = None
    """Overrides of the `crane train` whose prompts are tested, without its seed and targets; None
    for a checkpoint, and for methods that train nothing."""
    checkpoint: str | None = None
    """A checkpoint of the authors, below `checkpoints_dir`."""
    epoch: int | None = None
    """Epoch whose prompts are tested; None for the last one."""
    test: tuple[str, ...] = ()
    """Overrides of the `crane test`, without its checkpoint, seed and target."""
    excluded: str | None = None
    """Why it does not run in this suite; None if it runs."""


@dataclass(frozen=True)
class Changes:
    """What the command line changes in every recipe."""

    seeds: tuple[int, ...] | None = None
    """Seeds in place of the recipes'; None for the recipes'."""
    overrides: tuple[str, ...] = ()
    """Overrides of every run."""
    train: tuple[str, ...] = ()
    """Overrides of every training."""


NO_CHANGES = Changes()


def expand(recipe: Recipe, suite: Suite, changes: Changes = NO_CHANGES) -> list[Cell]:
    """Every cell of a recipe in a suite, row by row.

    Raises:
        UsageError: The suite has no replacement for a source, or an override cannot be parsed.
    """
    kept = tuple(target for target in recipe.targets if target in suite.kept)
    targets = recipe.targets if suite.targets is None else kept or tuple(suite.targets)
    own = recipe.suite_seeds.get(suite.name, recipe.seeds)
    seeds = own if changes.seeds is None else changes.seeds
    return [
        _cell(recipe, row, suite, target, seed, changes)
        for row in recipe.rows
        for target in targets
        # What is not trained does not depend on the seed.
        for seed in seeds[: None if row.trains and not row.checkpoint else 1]
    ]


def _cell(
    recipe: Recipe, row: RecipeRow, suite: Suite, target: str, seed: int, changes: Changes
) -> Cell:
    own = row.suites.get(suite.name, row.overrides)
    if isinstance(own, str):
        return Cell(row.name, target, seed, excluded=own)
    case = case_of(target, recipe.protocol, row.protocol)
    common = [*suite.overrides, *_replaced(own, suite)]
    test = joined(common, _replaced([*row.test, *case.test], suite), changes.overrides)
    if not row.trains:
        return Cell(row.name, target, seed, test=test)
    names = case.source or row.source or recipe.source
    sources = list(dict.fromkeys(_source(name, suite) for name in names))
    if target in sources:
        return Cell(row.name, target, seed, excluded="it is trained on")
    epoch = case.epoch or row.epoch
    if row.checkpoint is not None:
        path = row.checkpoint.format(source="+".join(sources), epoch=epoch)
        return Cell(row.name, target, seed, checkpoint=path, epoch=epoch, test=test)
    own_train = [*suite.train, *_replaced([*row.train, *case.train], suite)]
    typed = [*changes.overrides, *changes.train, f"dataset@source=[{','.join(sources)}]"]
    return Cell(row.name, target, seed, joined(common, own_train, typed), epoch=epoch, test=test)


def _source(name: str, suite: Suite) -> str:
    if suite.sources and name not in suite.sources:
        raise UsageError(f"suite.sources does not say what replaces {name}", key="suite.sources")
    return suite.sources.get(name, name)


def _replaced(overrides: Iterable[str], suite: Suite) -> list[str]:
    return [new for old in overrides for new in suite.replace.get(old, (old,))]


def joined(*groups: Iterable[str]) -> tuple[str, ...]:
    """Concatenate overrides, keeping only the last one of each key.

    >>> joined(["method=crane_plus", "guide=mini"], ["guide=none", "seed=1"])
    ('method=crane_plus', 'guide=none', 'seed=1')

    Raises:
        UsageError: One is not an override.
    """
    last: dict[str, str] = {}
    for override in (one for group in groups for one in group):
        key = key_of(override)
        last.pop(key, None)
        last[key] = override
    return tuple(last.values())


def split(text: str, key: str) -> tuple[str, ...]:
    """Split overrides typed as one text at its spaces, and check each.

    Args:
        text: The overrides.
        key: The key that holds them.

    Raises:
        UsageError: A quotation mark is not closed, or an override is refused.
    """
    try:
        return tuple(map(check_override, shlex.split(text)))
    except ValueError as error:
        raise UsageError(f"{key}: {error}", key=key) from error
