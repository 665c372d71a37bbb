"""`crane reproduce`: published tables and ablations made again, published beside ours."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from omegaconf import DictConfig, ListConfig
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from crane.cli.launch import alone_in, listed
from crane.config import compose, conf_dir
from crane.datasets import Card
from crane.errors import UsageError
from crane.files import shown_path as shown
from crane.files import write_text
from crane.gate import build
from crane.report.markup import heading
from crane.reproduce import (
    Changes,
    Cost,
    Gathering,
    Number,
    Places,
    Plan,
    Planner,
    Recipe,
    Runner,
    Suite,
    TableNames,
    expand,
    read_numbers,
    read_recipe,
    readme,
    write_numbers,
)
from crane.reproduce.checks import check_metrics, check_seeds
from crane.reproduce.notes import Notes
from crane.reproduce.numbers import FAILED, MISSING, OUTSIDE
from crane.reproduce.overrides import split
from crane.reproduce.plan import missing

PAPER = "paper"
"""The suite of the published tables."""
WORSE, INCOMPLETE = 1, 3
"""Exit codes: a number outside its tolerance or a failed run; something was missing."""


def reproduce(config: DictConfig) -> None:
    """Plan, run what can be run, and set the results beside the published ones.

    Raises:
        SystemExit: With 1 for a failed run or a number outside its tolerance, else with 3 where
            something was missing.
    """
    console = Console(highlight=False)
    changes, recipes = _changes(config), _recipes(config)
    suite: Suite = build(config.suite, "suite")
    planner = Planner(_places(config))
    plan = planner.plan({r.name: expand(r, suite, changes) for r in recipes})
    for recipe in recipes:
        check_metrics(recipe, plan)
        _results(recipe, but=suite.results)  # or a broken file would stop it after the runs
    folder, store = Path(config.run_dir), Path(config.results_store).expanduser()
    runner = Runner(
        planner, folder, store, lambda line: console.print(escape(line), soft_wrap=True)
    )
    show_plan(console, plan, runner, suite)
    if config.plan_only:
        return
    with alone_in(folder, "run_dir"):
        outcomes = runner.run(plan)
    names = _table_names(plan)
    found: dict[str, list[Number]] = {}
    for recipe in recipes:
        found[recipe.name] = Gathering(recipe, plan, outcomes, store, names).numbers()
        write_numbers(found[recipe.name], recipe.folder / suite.results)
        write_text(recipe.folder / "README.md", _page(recipe))
        show_numbers(console, recipe, found[recipe.name])
    failed = f"tests that failed: {len(outcomes.failed)}; " if outcomes.failed else ""
    console.print(
        f"{outcomes.num_runs} runs; {failed}the others were finished before or cannot be run"
    )
    for recipe in recipes:
        files = f"{suite.results}, README.md"
        console.print(f"  {escape(shown(recipe.folder.absolute()))}: {files}", soft_wrap=True)
    _leave({number.state for numbers in found.values() for number in numbers})


def _leave(states: set[str]) -> None:
    if states & {FAILED, OUTSIDE}:
        raise SystemExit(WORSE)
    if MISSING in states:
        raise SystemExit(INCOMPLETE)


def _recipes(config: DictConfig) -> list[Recipe]:
    folders = listed(config.experiments, "experiments", "folders with a recipe.yaml")
    recipes = [read_recipe(Path(folder)) for folder in folders]
    paths = [str(recipe.folder) for recipe in recipes]
    if len(set(paths)) < len(paths):
        raise UsageError("each folder once", paths, key="experiments")
    if len({recipe.name for recipe in recipes}) < len(recipes):
        raise UsageError(
            "folders of different names, as recipes go by them",
            paths,
            key="experiments",
            hint="run them one after the other, or rename one",
        )
    return recipes


def _changes(config: DictConfig) -> Changes:
    seeds = None
    if config.seeds is not None:
        if not isinstance(config.seeds, ListConfig):
            raise UsageError("a list of seeds such as [1,2,3]", config.seeds, key="seeds")
        seeds = tuple(config.seeds)
        check_seeds(seeds, "seeds")
    overrides, train = (split(config[name], name) for name in ("overrides", "train"))
    return Changes(seeds, overrides, train)


def _places(config: DictConfig) -> Places:
    return Places(
        datasets_dir=str(config.datasets_dir),
        weights_dir=str(config.weights_dir),
        checkpoints_dir=Path(config.checkpoints_dir).expanduser(),
        allow_download=bool(config.allow_download),
    )


def show_plan(console: Console, plan: Plan, runner: Runner, suite: Suite) -> None:
    """Print what will be run, what is finished, what is missing, and the cost."""
    tests, device = plan.distinct_tests, "gpu" if torch.cuda.is_available() else "cpu"
    able = [test for test in tests if missing(test.lacks) is None]
    done = [test for test in able if runner.tested(test) is not None]
    to_run = [test for test in able if test not in done]
    trainings = list(dict.fromkeys(t.training for t in to_run if t.training is not None))
    to_train = [one for one in trainings if runner.trained(one) is None]
    console.print(f"[bold]Plan[/bold] of {escape(', '.join(plan.cells))}: {escape(suite.title)}")
    num_cells = sum(len(own) for own in plan.cells.values())
    left_out = num_cells - len(plan.tests)
    console.print(
        f"  {num_cells} cells by {len(tests)} tests of {len(plan.trainings)} trainings and of "
        f"checkpoints; {left_out} cells make no sense in this suite"
    )
    console.print(f"  finished before: {len(done)} tests; cannot be run: {len(tests) - len(able)}")
    cost = Cost.of(to_train, to_run, suite, device)
    console.print(
        f"  to run: {cost.num_trainings} trainings, {cost.num_tests} tests, "
        f"{cost.num_images:,} images: about {cost.time} on this {device.upper()}, "
        f"{cost.megabytes:.0f} MB on the disk"
    )
    console.print(f"  [dim]{escape(suite.basis)}[/dim]", soft_wrap=True)
    for lack in plan.lacks():
        size = f", about {lack.size_mb} MB" if lack.size_mb else ""
        how = "will be fetched" if lack.can_be_fetched and to_run else "missing"
        text = f"{lack.kind} {lack.name}{size}: {lack.help}"
        console.print(f"  [yellow]{how}[/yellow] {escape(text)}", soft_wrap=True)


def show_numbers(console: Console, recipe: Recipe, numbers: Sequence[Number]) -> None:
    """Print a recipe's numbers, those outside their tolerance marked."""
    table = Table(
        title=escape(recipe.title), box=SIMPLE, title_justify="left", padding=(0, 1, 0, 0)
    )
    table.add_column("row and data set", no_wrap=True)
    for metric in recipe.metrics:
        table.add_column(heading(metric), justify="right")
    notes = Notes()
    found = {(n.row, n.dataset, n.metric): n for n in numbers}
    for row in recipe.rows:
        own = [number for number in numbers if number.row == row.name]
        if len({n.text for n in own}) == 1 and own[0].percent is None:
            table.add_row(f"[bold]{escape(row.name)}[/bold] {notes.place(own[0])}")
            continue
        table.add_row(f"[bold]{escape(row.name)}[/bold]")
        for dataset in dict.fromkeys(number.dataset for number in own):
            cells = [
                _cell(found.get((row.name, dataset, metric)), notes) for metric in recipe.metrics
            ]
            table.add_row(f"  {escape(dataset)}", *cells)
    console.print(table)
    for line in notes.lines():
        console.print(escape(line), soft_wrap=True)


def _cell(number: Number | None, notes: Notes) -> str:
    if number is None:
        return "not in the table"
    if number.percent is None:
        return notes.place(number)
    difference = "" if number.difference is None else f" ({number.difference:+.1f})"
    text = number.text + difference
    is_bad = number.state in (FAILED, OUTSIDE, MISSING)
    text += f" {number.state.split()[0]}" * is_bad
    text += f" {notes.place(number)}" if number.note else ""
    return f"[red]{text}[/red]" if is_bad else text


def _table_names(plan: Plan) -> Mapping[str, TableNames]:
    """What published tables call each data set."""
    names = {}
    for test in plan.distinct_tests:
        node = test.composed.config.targets[test.dataset.name]
        if "card" in node and test.dataset.name not in names:
            card: Card = build(node.card, f"targets.{node.name}.card")
            rows = tuple(card.table_rows)
            average = f"average_{card.domain}" if rows else ""
            names[test.dataset.name] = TableNames(rows, average)
    return names


def _page(recipe: Recipe) -> str:
    """The README, from the results of every suite that was run."""
    return readme(recipe, _results(recipe), _suite(PAPER).basis)


def _results(recipe: Recipe, but: str | None = None) -> list[tuple[Suite, list[Number]]]:
    """Every suite that was run, but for the file named, with its numbers."""
    names = [path.stem for path in sorted((conf_dir() / "suite").glob("*.yaml"))]
    suites = [_suite(name) for name in sorted(names, key=lambda name: name != PAPER)]
    files = {suite.results: recipe.folder / suite.results for suite in suites}
    return [
        (suite, read_numbers(files[suite.results]))
        for suite in suites
        if files[suite.results].is_file() and suite.results != but
    ]


@cache
def _suite(name: str) -> Suite:
    overrides = ["experiments=[]", f"suite={name}"]
    suite: Suite = build(compose("reproduce", overrides).suite, "suite")
    return suite
