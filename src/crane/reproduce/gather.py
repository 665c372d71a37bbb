"""From finished runs to the numbers of a recipe."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crane.reproduce.cells import Cell
from crane.reproduce.numbers import (
    FAILED,
    LEFT_OUT,
    MEASURED,
    MISSING,
    OUTSIDE,
    UNDEFINED,
    WITHIN,
    Number,
    gravest,
)
from crane.reproduce.plan import Plan
from crane.reproduce.published import published_values
from crane.reproduce.recipe import Recipe, Row
from crane.reproduce.runner import Outcomes
from crane.runs import MEAN, Spread, read_store

ROUNDING = 0.05
"""Published values are rounded to a tenth, so they may be off by this."""
OF_OTHERS = "the published mean is over other data sets"

Measured = Mapping[int, float]
"""Seed to value in per cent, for the seeds where it is defined."""
Lost = Mapping[int, tuple[str, str]]
"""Seed to state and reason, for the others."""
SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class TableNames:
    """What published tables call a data set."""

    rows: tuple[str, ...] = ()
    """Its names there; empty where no table has it."""
    average: str = ""
    """The line of averages that it counts towards."""


class Gathering:
    """The numbers of one recipe, from the runs that were done.

    Args:
        recipe: The recipe.
        plan: With its cells.
        outcomes: What came of the plan.
        store: The results store.
        names: Data set to what published tables call it.
    """

    def __init__(
        self,
        recipe: Recipe,
        plan: Plan,
        outcomes: Outcomes,
        store: Path,
        names: Mapping[str, TableNames],
    ) -> None:
        self.recipe, self.outcomes, self.names = recipe, outcomes, names
        self.tests = {
            cell: test for (name, cell), test in plan.tests.items() if name == recipe.name
        }
        self.published = published_values(recipe)
        self.cells: dict[tuple[str, str], list[Cell]] = {}
        for cell in plan.cells[recipe.name]:
            self.cells.setdefault((cell.row, cell.dataset), []).append(cell)
        runs = [outcomes.done[t] for t in self.tests.values() if t in outcomes.done]
        stored = read_store(store, runs)
        self.frame = stored[stored["class"] == MEAN]
        self.measured = {key: self._measured(cells) for key, cells in self.cells.items()}

    def numbers(self) -> list[Number]:
        """One for each row, data set and metric; where values are published, for those only."""
        found = []
        for row in self.recipe.rows:
            datasets = [dataset for name, dataset in self.cells if name == row.name]
            for dataset in datasets:
                found += [self._one(row, dataset, metric) for metric in self._metrics(row, dataset)]
            found += self._averages(row, datasets)
        return found

    def _one(self, row: Row, dataset: str, metric: str) -> Number:
        measured = self.measured[row.name, dataset].get(metric, {})
        published = self._value(row, self._names(dataset).rows, metric)
        about = self._about(self.cells[row.name, dataset])
        lost = self._lost(row, dataset, metric)
        return self._number(row, dataset, metric, measured, lost, published, about)

    def _averages(self, row: Row, datasets: Sequence[str]) -> list[Number]:
        """Means over the data sets that the published table averages too."""
        found = []
        groups = dict.fromkeys(self._names(dataset).average for dataset in datasets)
        for average in filter(None, groups):
            for metric in self.recipe.metrics:
                published = self._value(row, (average,), metric)
                members = [
                    one
                    for one in datasets
                    if self._names(one).average == average
                    and self._value(row, self._names(one).rows, metric) is not None
                ]
                if published is None or not members:
                    continue
                if self._is_over(members, row, metric, published):
                    found.append(self._average(row, average, metric, members, published))
                else:
                    name = (row.name, average, metric)
                    found.append(Number(*name, LEFT_OUT, reason=OF_OTHERS, published=published))
        return found

    def _is_over(self, members: Sequence[str], row: Row, metric: str, published: float) -> bool:
        """Whether a published mean is that of some data sets, but for rounding."""
        each = [self._value(row, self._names(one).rows, metric) or 0.0 for one in members]
        return abs(math.fsum(each) / len(each) - published) < 2 * ROUNDING + 1e-6

    def _average(
        self, row: Row, average: str, metric: str, members: Sequence[str], published: float
    ) -> Number:
        """Over the seeds that every data set has."""
        measured = [self.measured[row.name, one].get(metric, {}) for one in members]
        losses = [self._lost(row, one, metric) for one in members]
        mean, lost = {}, {}
        for seed in dict.fromkeys(seed for one in (*measured, *losses) for seed in one):
            states = [
                loss[seed][0] if seed in loss else MISSING
                for own, loss in zip(measured, losses, strict=True)
                if seed not in own
            ]
            if states:
                lost[seed] = gravest(states), f"{len(states)} of {len(members)} data sets"
            else:
                mean[seed] = math.fsum(own[seed] for own in measured) / len(members)
        return self._number(row, average, metric, mean, lost, published, {})

    def _number(
        self,
        row: Row,
        dataset: str,
        metric: str,
        measured: Measured,
        lost: Lost,
        published: float | None,
        about: Mapping[str, str],
    ) -> Number:
        states, reason = [state for state, _ in lost.values()], _told(lost, whole=not measured)
        if not measured:
            state = gravest(states)
            return Number(row.name, dataset, metric, state, reason=reason, published=published)
        spread = Spread(tuple(measured.values()))
        difference = None if published is None else spread.mean - published
        tolerance = self.recipe.tolerance_of(row)
        state = MEASURED
        if difference is not None and tolerance is not None:
            state = WITHIN if abs(difference) <= tolerance + ROUNDING else OUTSIDE
        base = self.measured.get((self.recipe.baseline or "", dataset), {}).get(metric, {})
        pairs = [value - base[seed] for seed, value in measured.items() if seed in base]
        is_baseline = row.name == self.recipe.baseline
        return Number(
            row=row.name,
            dataset=dataset,
            metric=metric,
            state=gravest([state, *states]),
            percent=spread.mean,
            spread=spread.deviation,
            seeds=" ".join(map(str, measured)),
            published=published,
            difference=difference,
            to_baseline=Spread(tuple(pairs)).mean if pairs and not is_baseline else None,
            reason=reason,
            **about,
        )

    def _measured(self, cells: Sequence[Cell]) -> dict[str, dict[int, float]]:
        values: dict[str, dict[int, float]] = {}
        for cell in cells:
            own = self.frame[self.frame["run_id"] == self._run(cell)]
            for metric, value in zip(own["metric"], own["value"], strict=True):
                if not math.isnan(value):
                    values.setdefault(metric, {})[cell.seed] = 100 * value
        return values

    def _run(self, cell: Cell) -> str | None:
        return self.outcomes.done.get(self.tests[cell]) if cell in self.tests else None

    def _names(self, dataset: str) -> TableNames:
        return self.names.get(dataset, TableNames())

    def _value(self, row: Row, names: Iterable[str], metric: str) -> float | None:
        """What is published, in per cent."""
        for name in names:
            known = self.published.get((row.published or "", name), {})
            if metric in known:
                return round(100 * known[metric], 4)
        return None

    def _metrics(self, row: Row, dataset: str) -> list[str]:
        """The recipe's, without those that the published table leaves out for this data set."""
        names = self._names(dataset).rows
        listed = [m for m in self.recipe.metrics if self._value(row, names, m) is not None]
        return listed or list(self.recipe.metrics)

    def _about(self, cells: Sequence[Cell]) -> dict[str, str]:
        """Where the values of some cells come from."""
        runs = {self._run(cell) for cell in cells}
        own = self.frame[self.frame["run_id"].isin(runs)].drop_duplicates("run_id")
        commits = zip(own["commit"], own["dirty"], strict=True)
        return {
            "commit": _once(f"{c or 'unknown'}{'+' if dirty else ''}" for c, dirty in commits),
            "device": _once(own["device"]),
            "data": _once(digest for text in own["data"] for digest in json.loads(text).values()),
            "weights": _once(
                f"{name}:{digest[:12] if SHA256.fullmatch(digest) else digest}"
                for text in own["weights"]
                for name, digest in json.loads(text).items()
            ),
        }

    def _lost(self, row: Row, dataset: str, metric: str) -> Lost:
        """The seeds that have no value, and why."""
        measured = self.measured[row.name, dataset].get(metric, {})
        cells = [cell for cell in self.cells[row.name, dataset] if cell.seed not in measured]
        return {cell.seed: self._why_not(cell, metric) for cell in cells}

    def _why_not(self, cell: Cell, metric: str) -> tuple[str, str]:
        """State and reason of a number that a seed does not have."""
        if cell.excluded is not None:
            return LEFT_OUT, cell.excluded
        test = self.tests[cell]
        if test in self.outcomes.failed:
            return FAILED, self.outcomes.failed[test]
        if test in self.outcomes.missing:
            return MISSING, self.outcomes.missing[test]
        is_it = (self.frame["run_id"] == self._run(cell)) & (self.frame["metric"] == metric)
        if is_it.any():
            return UNDEFINED, str(self.frame.loc[is_it, "reason"].iloc[0])
        return MISSING, "not among the metrics of its test"


def _told(lost: Lost, *, whole: bool) -> str:
    """Why seeds have no value; without naming them where it is the same for all there are.

    >>> _told({2: ("failed", "no memory"), 3: ("failed", "no memory")}, whole=False)
    'seeds 2, 3 failed: no memory'
    """
    seeds: dict[tuple[str, str], list[int]] = {}
    for seed, why in lost.items():
        seeds.setdefault(why, []).append(seed)
    if whole and len(seeds) == 1:
        return next(iter(seeds))[1]
    return "; ".join(
        f"seed{'s' * (len(own) > 1)} {', '.join(map(str, own))} {state}: {reason}"
        for (state, reason), own in seeds.items()
    )


def _once(texts: Iterable[object]) -> str:
    return " ".join(dict.fromkeys(map(str, texts)))
