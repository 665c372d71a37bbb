"""The README of an experiment: published, ours, difference, and why they differ."""

from collections.abc import Sequence

from crane.report.markup import heading
from crane.reproduce.notes import Notes
from crane.reproduce.numbers import NOT_RUN, OUTSIDE, UNDEFINED, Number, gravest
from crane.reproduce.published import published_metrics
from crane.reproduce.recipe import Case, Recipe, Row
from crane.reproduce.suite import Suite

OVER_ALL = "all data sets"
"""Heading of the means over the data sets where a metric is defined."""
LEVELS = {"image": "Detection (images)", "pixel": "Localisation (pixels)"}
GAINED = Number("", "", "", NOT_RUN, reason="the recipe has gained it since these results")
"""A cell that results are too old for."""


def readme(recipe: Recipe, results: Sequence[tuple[Suite, Sequence[Number]]], basis: str) -> str:
    """Write the page.

    Args:
        recipe: The recipe.
        results: The suites that were run, with their numbers.
        basis: Where the hours of the recipe's cost come from.
    """
    where = f"experiments/{recipe.name}"
    parts = [
        f"<!-- Written by crane reproduce from recipe.yaml and the results: edit those. -->\n"
        f"# {recipe.title}",
        recipe.shows.strip(),
        "```sh\n"
        f"crane reproduce {where} plan_only=true   # what it needs, what is missing\n"
        f"crane reproduce {where}\n"
        f"crane reproduce {where} suite=mini       # in small, without downloads\n"
        "```",
        _rows(recipe),
    ]
    for suite, numbers in results:
        parts += [f"## {suite.title}", _summary(recipe, suite, numbers), _tables(recipe, numbers)]
    parts += [
        f"## Reading it\n\n{recipe.differs.strip()}",
        f"## Cost\n\n{recipe.cost['images']:,} images through the towers in the paper's suite, "
        f"about {recipe.cost['gpu_hours']:.1f} GPU hours. {basis.strip()}",
    ]
    return "\n\n".join(parts) + "\n"


def _rows(recipe: Recipe) -> str:
    lines = [_bar(["row", "what makes it"]), _bar(["---", "---"])]
    lines += [_bar([row.name, _made_by(row)]) for row in recipe.rows]
    seeds = ", ".join(map(str, recipe.seeds))
    targets = ", ".join(f"`{name}`" for name in recipe.targets)
    plural = "s" if len(recipe.seeds) > 1 else ""
    about = f"Trained on `{' + '.join(recipe.source)}`, tested on {targets}; seed{plural} {seeds}."
    cases = [
        f"{', '.join(f'`{name}`' for name in case.targets)}: {_case(case)}"
        for case in recipe.protocol
    ]
    exceptions = f" But {'; '.join(cases)}." if cases else ""
    return f"{about}{exceptions}\n\n" + "\n".join(lines)


def _case(case: Case) -> str:
    own = [f"trained on `{' + '.join(case.source)}`"] if case.source else []
    own += [f"epoch {case.epoch}"] if case.epoch else []
    return ", ".join([*own, *(f"`{one}`" for one in case.test)])


def _made_by(row: Row) -> str:
    parts = [f"`{one}`" for one in row.overrides]
    parts += [f"trained on `{' + '.join(row.source)}`"] if row.source else []
    parts += [f"`{one}` in training" for one in row.train]
    parts += [f"`{one}` in testing" for one in row.test]
    parts += [f"prompts `{row.checkpoint}`"] if row.checkpoint else []
    parts += [f"on {', '.join(case.targets)}: {_case(case)}" for case in row.protocol]
    return "; ".join(parts) or "as published"


def _summary(recipe: Recipe, suite: Suite, numbers: Sequence[Number]) -> str:
    counts = {
        state: sum(n.state == state for n in numbers)
        for state in dict.fromkeys(number.state for number in numbers)
    }
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    text = f"{len(numbers)} numbers: {told} ([{suite.results}]({suite.results}))."
    measured = [number for number in numbers if number.percent is not None and number.commit]
    if measured:
        commits = sorted({c for number in measured for c in number.commit.split()})
        devices = sorted({number.device for number in measured})
        shown = ", ".join(f"`{commit[:12]}{'+' * commit.endswith('+')}`" for commit in commits)
        seeds = list(dict.fromkeys(seed for n in measured for seed in n.seeds.split()))
        if set(seeds) - set(map(str, recipe.seeds)):
            text += f" Seeds {', '.join(seeds)}, other than the recipe's."
        text += f" Commit {shown}, on {', '.join(devices)}. Per cent"
        text += (
            ", mean ± standard deviation over seeds." if any(n.spread for n in measured) else "."
        )
    return text


def _tables(recipe: Recipe, numbers: Sequence[Number]) -> str:
    notes = Notes()
    if any(number.published is not None for number in numbers):
        tables = _beside_published(recipe, numbers, notes)
    else:
        tables = _beside_baseline(recipe, numbers, notes)
    return "\n\n".join([*tables, "  \n".join(notes.lines())]).rstrip()


def _beside_published(recipe: Recipe, numbers: Sequence[Number], notes: Notes) -> list[str]:
    """For each row and level a table: data sets down, published, ours and difference across."""
    tables = []
    could_be = set(recipe.metrics) & published_metrics(recipe)
    gained = could_be - {number.metric for number in numbers}
    for row in recipe.rows:
        tables.append(f"### {row.name}")
        if all(number.row != row.name for number in numbers):
            tables.append(f"{notes.cell(GAINED).capitalize()}.")
            continue
        if row.published is not None:
            tolerance = recipe.tolerance_of(row)
            tables.append(
                f"Published as {row.published}. Outside tolerance, marked **bold**, is what "
                f"differs by more than {tolerance:g} points."
            )
        for level, title in LEVELS.items():
            own = [n for n in numbers if n.row == row.name and _level(n.metric) == level]
            shown = {number.metric for number in own} | gained
            metrics = [m for m in recipe.metrics if m in shown and _level(m) == level]
            if not metrics:
                continue
            names = list(dict.fromkeys(n.dataset for n in own or numbers if n.row == row.name))
            found = {(n.dataset, n.metric): n for n in own}
            head = [
                title,
                *(
                    f"{heading(m)}: published" if i == 0 else text
                    for m in metrics
                    for i, text in enumerate(("", "ours", "difference"))
                ),
            ]
            lines = [_bar(head), _bar(["---", *["---:"] * (len(head) - 1)])]
            for name in names:
                cells = [
                    text
                    for m in metrics
                    for text in _three(GAINED if m in gained else found.get((name, m)), notes)
                ]
                lines.append(_bar([name.replace("_", " ") if "average" in name else name, *cells]))
            tables.append("\n".join(lines))
    return tables


def _level(metric: str) -> str:
    return "image" if metric.startswith("image_") else "pixel"


def _three(number: Number | None, notes: Notes) -> tuple[str, str, str]:
    if number is None:
        return "not published", "-", "-"
    published = "-" if number.published is None else f"{number.published:.1f}"
    ours = notes.cell(number)
    if number.difference is None:
        return published, ours, "-"
    difference = f"{number.difference:+.1f}"
    return published, ours, f"**{difference}**" if number.state == OUTSIDE else difference


def _beside_baseline(recipe: Recipe, numbers: Sequence[Number], notes: Notes) -> list[str]:
    """A table over all data sets, and one for each: rows down, metrics across."""
    datasets = list(dict.fromkeys(number.dataset for number in numbers))
    if all(number.percent is None for number in numbers):
        datasets = []  # nothing to tell apart
    head = ["row", *(heading(metric) for metric in recipe.metrics)]
    tables = []
    if recipe.baseline is not None and datasets:
        tables.append(f"In brackets: the difference from *{recipe.baseline}*, in points.")
    for dataset in [None, *(datasets if len(datasets) > 1 else [])]:
        lines = [_bar([dataset or OVER_ALL, *head[1:]]), _bar(["---", *["---:"] * (len(head) - 1)])]
        for row in recipe.rows:
            own = [n for n in numbers if n.row == row.name and dataset in (None, n.dataset)]
            cells = [
                _mean_cell([n for n in own if n.metric == metric], notes)
                for metric in recipe.metrics
            ]
            lines.append(_bar([row.name, *cells]))
        tables.append("\n".join(lines))
    return tables


def _mean_cell(numbers: Sequence[Number], notes: Notes) -> str:
    """One number as it is; of several the mean over those that are defined."""
    if not numbers:
        return notes.cell(GAINED)
    defined = [n for n in numbers if n.percent is not None]
    unmeasured = [n for n in numbers if n.percent is None and n.state != UNDEFINED]
    if len(numbers) > 1 and unmeasured and defined:
        text = f"{len(unmeasured)} of {len(numbers)} data sets: {unmeasured[0].text}"
        return notes.cell(Number("", "", "", unmeasured[0].state, reason=text))
    if len(numbers) == 1:
        return notes.cell(numbers[0], _difference([numbers[0].to_baseline]))
    if not defined:
        first = (unmeasured or numbers)[0]
        reasons = dict.fromkeys(n.reason for n in numbers if n.state == first.state)
        return notes.cell(Number("", "", "", first.state, reason="; ".join(reasons)))
    mean = sum(n.percent for n in defined if n.percent is not None) / len(defined)
    state = gravest(n.state for n in [n for n in defined if n.reason] or defined)
    reasons = dict.fromkeys(f"{n.dataset}: {n.reason}" for n in defined if n.reason)
    whole = Number("", "", "", state, mean, reason="; ".join(reasons))
    return notes.cell(whole, _difference([n.to_baseline for n in defined]))


def _difference(differences: Sequence[float | None]) -> str:
    known = [one for one in differences if one is not None]
    if not known or len(known) < len(differences):
        return ""
    return f" ({sum(known) / len(known):+.1f})"


def _bar(cells: Sequence[str]) -> str:
    escaped = (cell.replace("|", r"\|") for cell in cells)
    return f"| {' | '.join(escaped)} |"
