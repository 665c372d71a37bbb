"""Numbers of a recipe: collected from finished runs, written to its results file and read again."""

import csv
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from crane.errors import UsageError
from crane.files import csv_text, uncell, write_json, write_text
from crane.reproduce.plan import Cell, Plan, Test
from crane.reproduce.recipe import Recipe, RecipeRow
from crane.reproduce.resources import DataSet
from crane.reproduce.runner import Outcomes
from crane.runs import MEAN, Spread, paired, read_store

WITHIN, OUTSIDE, MEASURED = "within tolerance", "outside tolerance", "measured"
MISSING, FAILED, UNDEFINED, LEFT_OUT = "missing", "failed", "not defined", "left out"
STATES = (FAILED, OUTSIDE, MISSING, WITHIN, MEASURED, LEFT_OUT, UNDEFINED)
"""What a number may be, the worst first. Left out is what makes no sense in a suite."""

ROUNDING = 0.05
"""Error of published values, which have one decimal."""
SHA256 = re.compile("[0-9a-f]{64}")


def worst(states: Iterable[str]) -> str:
    """The state that counts for several numbers together."""
    return min(states, key=STATES.index)


@dataclass(frozen=True)
class Number:
    """One number of a table, or why there is none."""

    row: str
    dataset: str
    metric: str
    state: str
    percent: float | None = None
    """Mean over the seeds."""
    spread: float | None = None
    """Standard deviation over the seeds; None for fewer than two."""
    seeds: str = ""
    """The seeds measured."""
    published: float | None = None
    """The published value, in percent."""
    difference: float | None = None
    """Measured minus published, in points."""
    to_baseline: float | None = None
    """Measured minus the baseline row's, in points: the mean over the seeds that both have."""
    reason: str = ""
    """Why there is no value, or why some seeds have none."""

    @property
    def text(self) -> str:
        """The value, or why there is none; never empty."""
        if self.percent is None:
            return f"{self.state}: {self.reason}" if self.reason else self.state
        spread = "" if self.spread is None else f" ± {self.spread:.1f}"
        return f"{self.percent:.1f}{spread}"


FLOATS = ("percent", "spread", "published", "difference", "to_baseline")


def write_results(path: Path, numbers: Sequence[Number], provenance: Mapping[str, Any]) -> None:
    """Write a results file, one line per number, and beside it where the numbers come from.

    The same numbers make the same results file, wherever and from whichever commit they are
    measured.

    Args:
        path: The results file, such as `results.csv`.
        numbers: Written with four decimals.
        provenance: `runs`: the distinct sources (`+`: changed since the commit), devices, machines
            and package versions; `data`: data set to fingerprint; `weights`: row to the files that
            measured it, prompts among them, with the first digits of their sha256.
    """
    lines = [
        [f"{value:.4f}" if isinstance(value, float) else value for value in astuple(number)]
        for number in numbers
    ]
    write_text(path, csv_text([[one.name for one in fields(Number)], *lines]))
    if provenance["runs"]:
        write_json(_provenance_path(path), provenance)
    else:
        _provenance_path(path).unlink(missing_ok=True)


def read_numbers(path: Path) -> list[Number]:
    """Read the numbers of a results file; columns of earlier versions are ignored.

    Raises:
        UsageError: The file holds something else.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_parsed(line) for line in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not a results file of crane reproduce: {error!r}") from error


def _parsed(line: Mapping[str, str]) -> Number:
    values = {one.name: uncell(line[one.name]) for one in fields(Number)}
    floats = {name: float(values[name]) if values[name] else None for name in FLOATS}
    return Number(**{**values, **floats})  # type: ignore[arg-type]


def read_provenance(results: Path) -> Mapping[str, Any]:
    """Where the numbers of a results file come from; empty if nobody wrote it down.

    Raises:
        UsageError: The file beside it is damaged.
    """
    path = _provenance_path(results)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {name: content[name] for name in ("runs", "data", "weights")}
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is damaged: {error!r}; delete it and run again") from error


def _provenance_path(results: Path) -> Path:
    return results.with_suffix(".provenance.json")


class Result(NamedTuple):
    """What one seed measured, or why it measured nothing."""

    state: str
    percent: float | None = None
    reason: str = ""


Key = tuple[str, str]
"""Data set, or row of averages in published tables, and metric."""
Results = Mapping[int, Result]
"""Seed to its result."""


def collect(
    recipe: Recipe, plan: Plan, outcomes: Outcomes, store: Path
) -> tuple[list[Number], dict[str, Any]]:
    """Collect the numbers of a recipe from the runs of a plan.

    Args:
        recipe: The recipe.
        plan: The plan with its cells.
        outcomes: How the tests of the plan ended.
        store: The results store.

    Returns:
        One number per row, data set and metric (where values are published, only for those), and
        their provenance as `write_results` takes it.
    """
    tests = {cell: test for (name, cell), test in plan.tests.items() if name == recipe.name}
    runs = {cell: outcomes.done[test] for cell, test in tests.items() if test in outcomes.done}
    stored = read_store(store, dict.fromkeys(runs.values())).to_dict("records")
    values = {(line["run_id"], line["metric"]): line for line in stored if line["class"] == MEAN}
    rows: dict[str, dict[Key, dict[int, Result]]] = {row.name: {} for row in recipe.rows}
    for cell in plan.cells[recipe.name]:
        for metric in recipe.metrics:
            result = _lost(cell, tests, outcomes) or _measured(values.get((runs[cell], metric)))
            rows[cell.row].setdefault((cell.dataset, metric), {})[cell.seed] = result
    datasets = {test.dataset.name: test.dataset for test in plan.distinct_tests}
    numbers, others = [], rows.get(recipe.baseline or "", {})
    for row in recipe.rows:
        published = _published(recipe, row, datasets)
        in_tables = {dataset for dataset, _ in published}
        for key, own in (rows[row.name] | _averages(rows[row.name], published, datasets)).items():
            if key in published or key[0] not in in_tables:
                number = Number(row.name, *key, MEASURED, published=published.get(key))
                baseline = {} if row.name == recipe.baseline else others.get(key, {})
                numbers.append(_filled(number, own, baseline, recipe.tolerance_of(row)))
    return numbers, _provenance(runs, stored)


def _lost(cell: Cell, tests: Mapping[Cell, Test], outcomes: Outcomes) -> Result | None:
    """Why a cell has no run; None if it has one."""
    if cell.excluded is not None:
        return Result(LEFT_OUT, reason=cell.excluded)
    for state, reasons in ((FAILED, outcomes.failed), (MISSING, outcomes.missing)):
        if tests[cell] in reasons:
            return Result(state, reason=reasons[tests[cell]])
    return None


def _measured(stored: Mapping[str, Any] | None) -> Result:
    if stored is None:
        return Result(MISSING, reason="not among the metrics of its test")
    if math.isnan(stored["value"]):
        return Result(UNDEFINED, reason=stored["reason"])
    return Result(MEASURED, 100 * stored["value"])


def _published(recipe: Recipe, row: RecipeRow, datasets: Mapping[str, DataSet]) -> dict[Key, float]:
    """The published values of a row, in percent."""
    names = {name: dataset.table_rows for name, dataset in datasets.items()}
    names |= {dataset.average: (dataset.average,) for dataset in datasets.values()}
    found = {}
    for name, in_tables in names.items():
        for metric in recipe.metrics:
            tables = (recipe.published_values.get((row.published or "", n), {}) for n in in_tables)
            value = next((table[metric] for table in tables if metric in table), None)
            if value is not None:
                found[name, metric] = round(100 * value, 4)
    return found


def _averages(
    results: Mapping[Key, Results],
    published: Mapping[Key, float],
    datasets: Mapping[str, DataSet],
) -> dict[Key, dict[int, Result]]:
    """The averages of published tables, over the data sets that have a published value."""
    found = {}
    for (average, metric), value in published.items():
        known = {
            name: own
            for (name, other), own in results.items()
            if other == metric and (name, metric) in published
            if datasets[name].average == average
        }
        if not known:
            continue
        mean = math.fsum(published[name, metric] for name in known) / len(known)
        if abs(mean - value) < 2 * ROUNDING + 1e-6:
            found[average, metric] = _mean(list(known.values()))
        else:
            left_out = Result(LEFT_OUT, reason="the published mean is over other data sets")
            found[average, metric] = {0: left_out}
    return found


def _mean(datasets: Sequence[Results]) -> dict[int, Result]:
    """Mean over data sets for each seed; it has a value if all of them have one."""
    found = {}
    for seed in dict.fromkeys(seed for own in datasets for seed in own):
        results = [own.get(seed, Result(MISSING)) for own in datasets]
        percents = _percents(dict(enumerate(results)))
        if len(percents) == len(results):
            found[seed] = Result(MEASURED, math.fsum(percents.values()) / len(results))
        else:
            state = worst(one.state for one in results if one.percent is None)
            reason = f"{len(results) - len(percents)} of {len(results)} data sets"
            found[seed] = Result(state, reason=reason)
    return found


def _filled(number: Number, results: Results, baseline: Results, tolerance: float | None) -> Number:
    """A number with the mean of its seeds and all that follows from it."""
    percents = _percents(results)
    lost = {seed: one for seed, one in results.items() if one.percent is None}
    states, reason = [one.state for one in lost.values()], _why_lost(lost, whole=not percents)
    if not percents:
        return replace(number, state=worst(states), reason=reason)
    spread, state = Spread(tuple(percents.values())), MEASURED
    difference = None if number.published is None else spread.mean - number.published
    if difference is not None and tolerance is not None:
        state = WITHIN if abs(difference) <= tolerance + ROUNDING else OUTSIDE
    pairs = tuple(paired(percents, _percents(baseline)).values())
    return replace(
        number,
        state=worst([state, *states]),
        percent=spread.mean,
        spread=spread.deviation,
        seeds=" ".join(map(str, percents)),
        difference=difference,
        to_baseline=Spread(pairs).mean if pairs else None,
        reason=reason,
    )


def _provenance(runs: Mapping[Cell, str], stored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where the numbers of runs come from, each thing once; of files the first digits suffice."""
    lines = {line["run_id"]: line for line in stored}
    found: dict[str, Any] = {"runs": [], "data": {}, "weights": {}}
    for cell, run_id in runs.items():
        run = lines[run_id]
        commit = f"{run['commit'] or 'unknown'}{'+' if run['dirty'] else ''}"
        about = {"commit": commit, "device": run["device"], **_machine(Path(run["folder"]))}
        _add(found["runs"], {**about, "versions": json.loads(run["versions"])})
        for digest in json.loads(run["data"]).values():
            _add(found["data"].setdefault(cell.dataset, []), digest)
        for name, digest in json.loads(run["weights"]).items():
            short = digest[:12] if SHA256.fullmatch(digest) else digest
            _add(found["weights"].setdefault(cell.row, []), f"{name}:{short}")
    return found


def _machine(folder: Path) -> dict[str, Any]:
    """What the record of a run says about its machine; empty if the run's folder is gone."""
    try:
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: record[name] for name in ("processor", "threads") if name in record}


def _add(known: list[Any], value: object) -> None:
    if value not in known:
        known.append(value)


def _percents(results: Mapping[int, Result]) -> dict[int, float]:
    return {seed: one.percent for seed, one in results.items() if one.percent is not None}


def _why_lost(lost: Mapping[int, Result], *, whole: bool) -> str:
    """Why seeds have no value; without naming them if the whole number has one reason.

    >>> why = Result("failed", reason="no memory")
    >>> _why_lost({2: why, 3: why}, whole=False)
    'seeds 2, 3 failed: no memory'
    """
    seeds: dict[Result, list[int]] = {}
    for seed, why in lost.items():
        seeds.setdefault(why, []).append(seed)
    if whole and len(seeds) == 1:
        return next(iter(seeds)).reason
    return "; ".join(
        f"seed{'s' * (len(own) > 1)} {', '.join(map(str, own))} {why.state}: {why.reason}"
        for why, own in seeds.items()
    )
