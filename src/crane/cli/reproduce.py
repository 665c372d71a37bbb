"""`crane reproduce`: published tables and ablations again, beside the published values."""

import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from crane.checks import check_value
from crane.cli.launch import alone_in
from crane.config import plain, recipe_dir
from crane.errors import UsageError, counted
from crane.files import making, shown_path, write_text
from crane.gate import build
from crane.reproduce import (
    Changes,
    Plan,
    Planner,
    Recipe,
    Runner,
    Suite,
    SuiteResults,
    collect,
    estimate,
    expand,
    read_recipe,
    read_results,
    readme,
    write_results,
)
from crane.reproduce.numbers import FAILED, MISSING, OUTSIDE
from crane.reproduce.plan import split, trainings_of
from crane.reproduce.readme import section
from crane.reproduce.recipe import Seeds
from crane.reproduce.resources import why_missing

WORSE, INCOMPLETE = 1, 3
"""Exit codes: a number outside its tolerance or a failed run; something was missing."""


def reproduce(config: DictConfig) -> None:
    """Plan, run what can run, and write the results beside the published values.

    Raises:
        SystemExit: 1 if a run failed or a number is outside its tolerance, else 3 if something
            was missing.
    """
    console = Console(highlight=False)
    changes, recipes = _changes(plain(config)), _recipes(config)
    own = {recipe.folder: _own_folder(recipe, console, config) for recipe in recipes}
    recipes = [replace(recipe, folder=own[recipe.folder]) for recipe in recipes]
    suite: Suite = build(config.suite, "suite")
    places = {key: config[key] for key in ("datasets_dir", "weights_dir", "allow_download")}
    planner = Planner(places, Path(config.checkpoints_dir).expanduser())
    plan = planner.plan({recipe.name: expand(recipe, suite, changes) for recipe in recipes})
    for recipe in recipes:
        plan.check_metrics(recipe)
        read_results(recipe, but=suite)  # a damaged file stops the command before it runs anything
    folder, store = Path(config.run_dir), Path(config.results_store).expanduser()
    runner = Runner(
        planner, folder, store, lambda line: console.print(escape(line), soft_wrap=True)
    )
    show_plan(console, plan, runner, suite)
    if config.plan_only:
        return
    with alone_in(folder, "run_dir"):
        outcomes = runner.run(plan)
    states: set[str] = set()
    for recipe in recipes:
        numbers, provenance = collect(recipe, plan, outcomes, store)
        write_results(recipe.folder / suite.results, numbers, provenance)
        write_text(recipe.folder / "README.md", readme(recipe, read_results(recipe)))
        found = SuiteResults(suite, numbers, provenance)
        found.draw_sizes(recipe.folder)
        tables = section(recipe, found)
        console.print(escape(f"\n# {recipe.title}\n\n{tables}"), soft_wrap=True)
        states |= {number.state for number in numbers}
    failed = f"tests that failed: {len(outcomes.failed)}; " if outcomes.failed else ""
    console.print(
        f"{counted(outcomes.num_runs, 'run')}; {failed}"
        "the others were finished before or cannot be run"
    )
    for recipe in recipes:
        files = f"{suite.results}, README.md"
        console.print(f"  {escape(shown_path(recipe.folder))}: {files}", soft_wrap=True)
    if states & {FAILED, OUTSIDE}:
        raise SystemExit(WORSE)
    if MISSING in states:
        raise SystemExit(INCOMPLETE)


def _recipes(config: DictConfig) -> list[Recipe]:
    found: dict[str, Recipe] = {}
    for folder in map(str, config.experiments):
        recipe = read_recipe(recipe_dir(folder) or Path(folder))
        earlier = found.setdefault(recipe.name, recipe)
        if earlier is not recipe:
            problem = f"{recipe.folder} is listed twice"
            if earlier.folder != recipe.folder:
                problem = f"{earlier.folder} and {recipe.folder} have the same name; rename one"
            raise UsageError(problem, key="experiments")
    return list(found.values())


def _own_folder(recipe: Recipe, console: Console, config: DictConfig) -> Path:
    """Where the results of a recipe go; one of the package is copied into `experiments/` here."""
    package = Path(str(files("crane"))).resolve() / "experiments"
    if config.plan_only or recipe.folder.resolve().parent != package:
        return recipe.folder
    here = Path("experiments") / recipe.name
    if not here.exists():
        with making(here) as folder:
            shutil.copytree(recipe.folder, folder, dirs_exist_ok=True)
        console.print(f"the recipe is now in {here}, where its results go", soft_wrap=True)
    return here


def _changes(config: dict[str, Any]) -> Changes:
    check_value(config["seeds"], Seeds | None, "seeds")
    seeds = None if config["seeds"] is None else tuple(config["seeds"])
    return Changes(seeds, *(split(config[key], key) for key in ("overrides", "train")))


def show_plan(console: Console, plan: Plan, runner: Runner, suite: Suite) -> None:
    """Print what will run, what finished before, what is missing, and the cost."""
    tests, device = plan.distinct_tests, "gpu" if torch.cuda.is_available() else "cpu"
    able = [test for test in tests if why_missing(test.missing) is None]
    to_run = [test for test in able if runner.tested(test) is None]
    to_train = [one for one in trainings_of(to_run) if runner.trained(one) is None]
    cost = estimate(to_train, to_run, suite, device)
    num_cells = sum(len(own) for own in plan.cells.values())
    console.print(f"[bold]Plan[/bold] of {escape(', '.join(plan.cells))}: {escape(suite.title)}")
    console.print(
        f"  {counted(num_cells, 'cell')} by {counted(len(tests), 'test')} of "
        f"{counted(len(plan.trainings), 'training')} and of checkpoints; "
        f"{counted(num_cells - len(plan.tests), 'cell makes', 'cells make')} no sense "
        "in this suite\n"
        f"  finished before: {counted(len(able) - len(to_run), 'test')}; "
        f"cannot be run: {len(tests) - len(able)}\n"
        f"  to run: {counted(len(to_train), 'training')}, {counted(len(to_run), 'test')}, "
        f"{counted(cost.num_images, 'image')}: about {cost.time} on this {device.upper()}, "
        f"{cost.megabytes:.0f} MB on the disk"
    )
    console.print(f"  [dim]{escape(suite.basis)}[/dim]", soft_wrap=True)
    for one in plan.missing():
        size = f", about {one.size_mb} MB" if one.size_mb else ""
        how = "will be fetched" if one.downloadable and to_run else "missing"
        text = f"{one.kind} {one.name}{size}: {one.help}"
        console.print(f"  [yellow]{how}[/yellow] {escape(text)}", soft_wrap=True)
