"""Mistakes of a recipe that its types do not show, found before anything runs."""

import difflib
from collections.abc import Iterator, Sequence

import yaml

from crane.config import conf_dir
from crane.errors import UsageError
from crane.reproduce.overrides import check_overrides
from crane.reproduce.plan import Plan, Test
from crane.reproduce.published import published_values
from crane.reproduce.recipe import Case, Recipe
from crane.training.run import NUM_SEEDS

COST = {"images", "gpu_hours"}


def check_recipe(recipe: Recipe) -> None:
    """Check what a recipe says against what there is.

    Raises:
        UsageError: It names something that is not there, or that would be ignored.
    """
    path = recipe.path
    check_seeds(recipe.seeds, f"seeds in {path}")
    if set(recipe.cost) != COST:
        raise UsageError("images and gpu_hours", sorted(recipe.cost), key=f"cost in {path}")
    published_values(recipe)
    targets_of = _targets_of_suites()
    known = dict.fromkeys([*recipe.targets, *(one for own in targets_of.values() for one in own)])
    for where, case in _cases(recipe):
        if strange := [name for name in case.targets if name not in known]:
            wanted = f"data sets that are tested, out of {', '.join(known)}"
            raise UsageError(wanted, strange, key=f"targets of {where}")
        check_overrides(case.test, f"test of {where}")
    for row in recipe.rows:
        where = f"row {row.name!r} in {path}"
        if strange := sorted(set(row.suites) - set(targets_of)):
            raise UsageError(
                f"suites out of {', '.join(targets_of)}", strange, key=f"suites of {where}"
            )
        here = {f"suites.{k}": own for k, own in row.suites.items() if not isinstance(own, str)}
        own = {"overrides": row.overrides, "train": row.train, "test": row.test, **here}
        for name, overrides in own.items():
            check_overrides(overrides, f"{name} of {where}")
        if row.checkpoint is not None:
            _check_pattern(row.checkpoint, f"checkpoint of {where}")


def check_seeds(seeds: Sequence[object], key: str) -> None:
    """Refuse what is no list of seeds.

    Args:
        seeds: What was given.
        key: Where it was given, for errors.

    Raises:
        UsageError: One is no seed or there twice, or there is none.
    """
    is_seed = [type(seed) is int and 0 <= seed < NUM_SEEDS for seed in seeds]
    if not seeds or not all(is_seed) or len(set(seeds)) < len(seeds):
        wanted = f"a list of seeds, each once, from 0 to {NUM_SEEDS - 1}"
        raise UsageError(wanted, list(seeds), key=key)


def check_metrics(recipe: Recipe, plan: Plan) -> None:
    """Refuse metrics that the tests of a plan do not measure.

    Raises:
        UsageError: With the name that comes nearest.
    """
    tests = {test.composed: test for (name, _), test in plan.tests.items() if name == recipe.name}
    for test in tests.values():
        measured = _measures(test)
        if strange := [metric for metric in recipe.metrics if metric not in measured]:
            near = difflib.get_close_matches(strange[0], measured, n=1)
            raise UsageError(
                f"metrics out of {', '.join(measured)}",
                ", ".join(strange),
                key=f"metrics in {recipe.path}",
                hint=f"did you mean {near[0]}?" if near else None,
            )


def _measures(test: Test) -> list[str]:
    metrics = test.composed.config.metrics
    groups = (metrics.get(name) or () for name in ("image_measures", "pixel_measures"))
    return [str(name) for group in groups for name in group]


def _targets_of_suites() -> dict[str, Sequence[str]]:
    """Suite to the data sets that it tests in the place of the recipes'."""
    files = sorted((conf_dir() / "suite").glob("*.yaml"))
    suites = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in files]
    return {suite["name"]: suite.get("targets") or () for suite in suites}


def _cases(recipe: Recipe) -> Iterator[tuple[str, Case]]:
    """Every case of the protocols, with where it stands."""
    for place, case in enumerate(recipe.protocol, 1):
        yield f"protocol {place} in {recipe.path}", case
    for row in recipe.rows:
        for place, case in enumerate(row.protocol, 1):
            yield f"protocol {place} of row {row.name!r} in {recipe.path}", case


def _check_pattern(pattern: str, key: str) -> None:
    try:
        pattern.format(source="source", epoch=1)
    except (AttributeError, IndexError, KeyError, ValueError) as error:
        wanted = "a path in which {source} and {epoch} may stand"
        raise UsageError(wanted, pattern, key=key) from error
