"""Numbers of runs brought together: mean and spread over the seeds of a setting."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from crane.errors import UsageError
from crane.report.runs import Run
from crane.runs import MEAN


@dataclass(frozen=True)
class Spread:
    """The values of one metric over repetitions.

    >>> spread = Spread((0.5, 0.7))
    >>> round(spread.mean, 3), round(spread.deviation, 3)
    (0.6, 0.141)
    """

    values: tuple[float, ...]
    """One a repetition; those that are not defined are left out."""

    @property
    def mean(self) -> float:
        """Their mean; NaN where there is none."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float | None:
        """Their standard deviation (n - 1); None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Row:
    """One line of a table: a setting, or a published method, on a data set or a class of it."""

    setting: str
    dataset: str
    class_name: str
    """A class, or `mean`."""
    metrics: Mapping[str, Spread]
    """Metric name to its values, as fractions."""
    num_seeds: int
    """Repetitions; 0 for published numbers."""


def summarise(runs: Sequence[Run], labels: Sequence[str]) -> list[Row]:
    """Bring the runs of each setting together.

    Of several runs of one setting, seed and data set, the last one counts.

    Args:
        runs: in the order in which they began.
        labels: the setting of each.

    Returns:
        A row for each setting, data set and class, and for the mean over classes.

    Raises:
        UsageError: A class is called `mean`, as the mean over classes is.
    """
    latest: dict[tuple[str, str, object], dict[str, dict[str, float]]] = {}
    for run, label in zip(runs, labels, strict=True):
        for result in run.results:
            if MEAN in result.class_names:
                wanted = f"results in which no class is called {MEAN}"
                raise UsageError(wanted, str(run.folder), hint="rename it and test again")
            per_class = {
                name: {metric: column[place] for metric, column in result.values.items()}
                for place, name in enumerate(result.class_names)
            }
            found = {MEAN: dict(result.means), **per_class}
            latest[result.dataset, label, run.repetition] = found
    groups: dict[tuple[str, str], list[dict[str, dict[str, float]]]] = {}
    for (dataset, label, _), found in latest.items():
        groups.setdefault((dataset, label), []).append(found)
    datasets, settings = dict.fromkeys(d for d, _ in groups), dict.fromkeys(labels)
    return [
        row
        for dataset in datasets
        for setting in settings
        if (dataset, setting) in groups
        for row in _rows(setting, dataset, groups[dataset, setting])
    ]


def _rows(setting: str, dataset: str, each: Sequence[dict[str, dict[str, float]]]) -> list[Row]:
    rows = []
    for name in dict.fromkeys(name for found in each for name in found):
        own = [found[name] for found in each if name in found]
        metrics = {
            metric: Spread(
                tuple(one[metric] for one in own if metric in one and not math.isnan(one[metric]))
            )
            for metric in dict.fromkeys(metric for one in own for metric in one)
        }
        rows.append(Row(setting, dataset, name, metrics, len(own)))
    return rows
