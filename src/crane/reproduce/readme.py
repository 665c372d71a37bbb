"""README of an experiment: published values, ours, the difference, and why they differ."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from crane.errors import counted
from crane.report.markup import TableRow, heading, markdown_table
from crane.reproduce.numbers import (
    FAILED,
    LEFT_OUT,
    MISSING,
    OUTSIDE,
    UNDEFINED,
    Number,
    read_numbers,
    read_provenance,
    worst,
)
from crane.reproduce.recipe import Case, Recipe, RecipeRow
from crane.reproduce.resources import PAPER, Suite, suites
from crane.runs import MEAN, SIZES, Spread

NOT_RUN = "not run"
GAINED = Number("", "", "", NOT_RUN, reason="added to the recipe after these results")
"""A cell that the results are too old for."""
LEVELS = {"image": "Detection (images)", "pixel": "Localisation (pixels)"}
KINDS = ("data", "weights", "checkpoint")
"""What may be missing."""
IN_PART = {FAILED: "a seed failed", MISSING: "a seed missing"}
"""State to what is said beside the value of the other seeds."""


class SuiteResults(NamedTuple):
    """What one suite measured for a recipe."""

    suite: Suite
    numbers: Sequence[Number]
    provenance: Mapping[str, Any]
    """Where they come from: see `read_provenance`."""

    @property
    def picture(self) -> str:
        """Name of the picture of AUPRO by region size."""
        return self.suite.results.replace("results", "sizes").replace(".csv", ".png")

    @property
    def has_sizes(self) -> bool:
        """Whether that picture has anything to show: a row with every size measured."""
        measured = {n.metric for n in self.numbers if n.percent is not None}
        return measured.issuperset(SIZES)

    def draw_sizes(self, folder: Path) -> None:
        """Draw the picture, if it has anything to show."""
        from crane.report.figures import write_sizes  # imports matplotlib

        found: dict[tuple[str, str], dict[str, Spread]] = {}
        for n in self.numbers:
            if n.percent is not None and n.metric in SIZES:
                found.setdefault((n.row, n.dataset), {})[n.metric] = Spread((n.percent / 100,))
        if self.has_sizes:
            rows = [TableRow(*place, MEAN, values, 1) for place, values in found.items()]
            write_sizes(rows, folder / self.picture)


class Footnotes:
    """Formats table cells and collects numbered footnotes, one per reason.

    >>> notes = Footnotes()
    >>> notes.cell(Number("Crane", "visa", "aupro", MISSING, reason="data visa + btad"))
    'missing: data (1)'
    >>> notes.cell(Number("Crane", "visa", "aupro", FAILED, 61.2, reason="seed 3 failed"))
    '61.2, a seed failed (2)'
    """

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}

    def cell(self, number: Number, difference: str = "") -> str:
        """The value with a difference, or in short why there is none, and the footnote's mark."""
        if number.percent is not None and not number.reason:
            return number.text + difference
        note = number.reason if number.percent is not None else number.text
        mark = f"({self._marks.setdefault(note, len(self._marks) + 1)})"
        if number.percent is not None:
            partly = IN_PART.get(number.state, "not all seeds")
            return f"{number.text}{difference}, {partly} {mark}"
        if number.state in (LEFT_OUT, UNDEFINED, FAILED, NOT_RUN):
            return f"{number.state} {mark}"
        kinds = [kind for kind in KINDS if re.search(rf"(^|, ){kind} ", number.reason)]
        return f"{number.state}: {', '.join(kinds) or number.reason} {mark}"

    def __str__(self) -> str:
        return "  \n".join(f"({mark}) {text}" for text, mark in self._marks.items())


def read_results(recipe: Recipe, but: Suite | None = None) -> list[SuiteResults]:
    """Read the results beside a recipe, of every suite that was run, except for one.

    Raises:
        UsageError: A file is damaged.
    """
    files = {suite.name: recipe.folder / suite.results for suite in suites().values()}
    return [
        SuiteResults(suite, read_numbers(files[name]), read_provenance(files[name]))
        for name, suite in suites().items()
        if files[name].is_file() and (but is None or name != but.name)
    ]


def readme(recipe: Recipe, results: Sequence[SuiteResults]) -> str:
    """Write the page as Markdown, from a recipe and the results of every suite that was run."""
    loader = PackageLoader("crane.reproduce", "")
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["code"] = "`{}`".format
    rows = [[row.name, _described(row)] for row in recipe.rows]
    return environment.get_template("readme.md.jinja").render(
        recipe=recipe,
        exceptions=[f"{_codes(case.targets)}: {_exception(case)}" for case in recipe.protocol],
        rows=markdown_table(["row", "setting"], rows, numbers=False),
        sections=[
            section(recipe, one) + f"\n\n![AUPRO by region size]({one.picture})" * one.has_sizes
            for one in results
        ],
        basis=suites()[PAPER].basis,
    )


def _codes(texts: Iterable[str]) -> str:
    return ", ".join(f"`{text}`" for text in texts)


def _exception(case: Case) -> str:
    source = f"trained on `{' + '.join(case.source)}`" if case.source else ""
    epoch = f"epoch {case.epoch}" if case.epoch else ""
    train = f"{_codes(case.train)} in training" if case.train else ""
    return ", ".join(filter(None, (source, train, epoch, _codes(case.test))))


def _described(row: RecipeRow) -> str:
    parts = [f"`{one}`" for one in row.overrides]
    parts += [f"trained on `{' + '.join(row.source)}`"] if row.source else []
    parts += [f"`{one}` in training" for one in row.train]
    parts += [f"`{one}` in testing" for one in row.test]
    parts += [f"checkpoint `{row.checkpoint}`"] if row.checkpoint else []
    parts += [] if row.trains else ["nothing is trained"]
    parts += [f"on {', '.join(case.targets)}: {_exception(case)}" for case in row.protocol]
    return "; ".join(parts) or "as published"


def section(recipe: Recipe, results: SuiteResults) -> str:
    """The section of one suite as Markdown: a summary, tables and their footnotes."""
    numbers, notes = results.numbers, Footnotes()
    has_published = any(number.published is not None for number in numbers)
    layout = _beside_published if has_published else _beside_baseline
    blocks = layout(recipe, numbers, notes)
    parts = [f"## {results.suite.title}", _summary(recipe, results), *blocks, str(notes)]
    return "\n\n".join(filter(None, parts))


def _summary(recipe: Recipe, results: SuiteResults) -> str:
    numbers, file = results.numbers, results.suite.results
    counts = Counter(number.state for number in numbers)
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    text = f"{counted(len(numbers), 'number')}: {told} ([{file}]({file}))."
    seeds = dict.fromkeys(seed for number in numbers for seed in number.seeds.split())
    if set(seeds) - set(map(str, recipe.seeds)):
        text += f" Seeds {', '.join(seeds)}, other than the recipe's."
    runs = results.provenance.get("runs", ())
    if runs:
        commits = {f"{run['commit'][:12]}{'+' * run['commit'].endswith('+')}" for run in runs}
        devices = sorted({run["device"] for run in runs})
        text += f" Commit {_codes(sorted(commits))}, on {', '.join(devices)}."
    if any(number.percent is not None for number in numbers):
        has_spread = any(number.spread for number in numbers)
        text += f" Per cent{', mean ± standard deviation over seeds' * has_spread}."
    return text


def _beside_published(recipe: Recipe, numbers: Sequence[Number], notes: Footnotes) -> list[str]:
    """Per row and level a table: data sets down; published, ours and difference across."""
    methods = {row.published for row in recipe.rows}
    values = recipe.published_values.items()
    known = {metric for (method, _), own in values if method in methods for metric in own}
    gained = known - {number.metric for number in numbers}
    blocks = []
    for row in recipe.rows:
        blocks.append(f"### {row.name}")
        own = [number for number in numbers if number.row == row.name]
        if not own:
            blocks.append(f"{notes.cell(GAINED).capitalize()}.")
            continue
        if row.published is not None:
            blocks.append(
                f"Published as {row.published}. Differences of more than "
                f"{recipe.tolerance_of(row):g} points are outside tolerance and **bold**."
            )
        shown = {number.metric for number in own} | gained
        for level, title in LEVELS.items():
            metrics = [m for m in recipe.metrics if m in shown and _level(m) == level]
            if metrics:
                of_level = [number for number in own if _level(number.metric) == level]
                blocks.append(_level_table(title, metrics, of_level or own, notes))
    return blocks


def _level(metric: str) -> str:
    return "image" if metric.startswith("image_") else "pixel"


def _level_table(
    title: str, metrics: Sequence[str], numbers: Sequence[Number], notes: Footnotes
) -> str:
    measured = {number.metric for number in numbers}
    found = {(number.dataset, number.metric): number for number in numbers}
    head = [title]
    for metric in metrics:
        head += [f"{heading(metric)}: published", "ours", "difference"]
    lines = []
    for name in dict.fromkeys(number.dataset for number in numbers):
        line = [name.replace("_", " ") if "average" in name else name]
        for metric in metrics:
            number = found.get((name, metric)) if metric in measured else GAINED
            line += _compared(number, notes)
        lines.append(line)
    return markdown_table(head, lines)


def _compared(number: Number | None, notes: Footnotes) -> tuple[str, str, str]:
    if number is None:
        return "not published", "-", "-"
    published = "-" if number.published is None else f"{number.published:.1f}"
    if number.difference is None:
        return published, notes.cell(number), "-"
    difference = f"{number.difference:+.1f}"
    is_outside = number.state == OUTSIDE
    return published, notes.cell(number), f"**{difference}**" if is_outside else difference


def _beside_baseline(recipe: Recipe, numbers: Sequence[Number], notes: Footnotes) -> list[str]:
    """A table over all data sets, and one for each: rows down, metrics across."""
    datasets = list(dict.fromkeys(number.dataset for number in numbers))
    is_measured = any(number.percent is not None for number in numbers)
    blocks = []
    if recipe.baseline is not None and is_measured:
        blocks.append(f"In parentheses: the difference from *{recipe.baseline}*, in points.")
    for dataset in [None, *(datasets if is_measured and len(datasets) > 1 else [])]:
        lines = []
        for row in recipe.rows:
            own = [n for n in numbers if n.row == row.name and dataset in (None, n.dataset)]
            line = [_mean_cell([n for n in own if n.metric == m], notes) for m in recipe.metrics]
            lines.append([row.name, *line])
        head = [dataset or "all data sets", *map(heading, recipe.metrics)]
        blocks.append(markdown_table(head, lines))
    return blocks


def _mean_cell(numbers: Sequence[Number], notes: Footnotes) -> str:
    """A single number, or the mean of several over those that are defined."""
    if not numbers:
        return notes.cell(GAINED)
    if len(numbers) == 1:
        return notes.cell(numbers[0], _difference(numbers))
    defined = [n for n in numbers if n.percent is not None]
    unmeasured = [n for n in numbers if n.percent is None and n.state != UNDEFINED]
    if unmeasured and defined:
        reason = f"{len(unmeasured)} of {len(numbers)} data sets: {unmeasured[0].text}"
        return notes.cell(Number("", "", "", unmeasured[0].state, reason=reason))
    if not defined:
        state = (unmeasured or numbers)[0].state
        reasons = dict.fromkeys(n.reason for n in numbers if n.state == state)
        return notes.cell(Number("", "", "", state, reason="; ".join(reasons)))
    in_part = [n for n in defined if n.reason]
    reasons = dict.fromkeys(f"{n.dataset}: {n.reason}" for n in in_part)
    state = worst(n.state for n in in_part or defined)
    mean = sum(n.percent or 0.0 for n in defined) / len(defined)
    return notes.cell(
        Number("", "", "", state, mean, reason="; ".join(reasons)), _difference(defined)
    )


def _difference(numbers: Sequence[Number]) -> str:
    known = [n.to_baseline for n in numbers if n.to_baseline is not None]
    return f" ({sum(known) / len(known):+.1f})" if known and len(known) == len(numbers) else ""
