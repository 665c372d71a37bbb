"""The long frame: one row per number, and the statistics over seeds that every table shows.

Sweep tables, reports and reproduced experiments all bring their numbers into this form, so that a
mean, a spread and a difference from a baseline mean the same everywhere.
"""

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from crane.metrics.counts import MEAN, DatasetResult

S = TypeVar("S", bound=Hashable)


class Measurement(NamedTuple):
    """A row of the frame: one number of one run."""

    setting: str
    """What the run computes, apart from its seed; any label that tells settings apart."""
    seed: Hashable
    """Which repetition of the setting it is: a seed, or several seeds as a tuple."""
    dataset: str
    """The data set tested on."""
    class_name: str
    """A class, or `MEAN` for the mean over classes."""
    metric: str
    """The metric, named as in the configuration."""
    value: float
    """A fraction, not percent; NaN where the metric is undefined."""
    bound: float = math.nan
    """Bound on the discretisation error; NaN where it is unknown."""
    reason: str = ""
    """Why the metric is undefined; empty where it has a value."""
    run_id: str = ""
    """The run; two runs of one setting, seed and data set must differ in it."""


class Quantity(NamedTuple):
    """What one cell of a table is about: a `Measurement` without its repetition."""

    setting: str
    dataset: str
    class_name: str
    metric: str


@dataclass(frozen=True)
class Spread:
    """The values of one metric over seeds, with their mean and sample standard deviation.

    >>> spread = Spread((0.5, 0.7))
    >>> round(spread.mean, 3), round(spread.deviation, 3)
    (0.6, 0.141)
    """

    values: tuple[float, ...]
    """One per seed, undefined ones left out."""

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Collect values and leave NaN out.

        >>> Spread.of([0.5, math.nan])
        Spread(values=(0.5,))
        """
        return cls(tuple(value for value in values if not math.isnan(value)))

    @property
    def mean(self) -> float:
        """Their mean; NaN without values."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float | None:
        """Their sample standard deviation (n - 1); None for fewer than two values."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def percent(self, sign: str = "", plus_minus: str = " ± ") -> str:
        """Mean and deviation in percent with one decimal; `-` without values.

        Args:
            sign: `+` to show the sign of positive means too, as differences do.
            plus_minus: What separates mean and deviation.

        >>> Spread((0.5, 0.7)).percent(), Spread((0.5,)).percent("+"), Spread(()).percent()
        ('60.0 ± 14.1', '+50.0', '-')
        """
        if not self.values:
            return "-"
        mean, deviation = f"{100 * self.mean:{sign}.1f}", self.deviation
        return mean if deviation is None else f"{mean}{plus_minus}{100 * deviation:.1f}"


def measurements(
    result: DatasetResult, setting: str, seed: Hashable, run_id: str = ""
) -> list[Measurement]:
    """The rows of one tested data set: every class, then the mean, metric by metric.

    Args:
        result: The numbers.
        setting: The label of the run's setting.
        seed: The repetition.
        run_id: The run.

    >>> result = DatasetResult("d", ("nut",), {"aupro": (0.5,)}, {"aupro": 0.5}, (1,), (2,))
    >>> [(row.class_name, row.value) for row in measurements(result, "vv", seed=1)]
    [('nut', 0.5), ('mean', 0.5)]
    """
    rows = []
    for metric, column in result.values.items():
        bounds = result.bounds.get(metric, (math.nan,) * len(column))
        why = [result.reasons.get((metric, name), "") for name in result.class_names]
        mean, mean_bound = result.means[metric], result.mean_bounds.get(metric, math.nan)
        all_reasons = "; ".join(sorted(set(filter(None, why)))) if math.isnan(mean) else ""
        rows += [
            Measurement(setting, seed, result.dataset, name, metric, value, bound, reason, run_id)
            for name, value, bound, reason in zip(
                (*result.class_names, MEAN),
                (*column, mean),
                (*bounds, mean_bound),
                (*why, all_reasons),
                strict=True,
            )
        ]
    return rows


def latest(frame: Iterable[Measurement]) -> list[Measurement]:
    """Keep the last run of each setting, seed and data set, and each of its numbers once.

    A setting that ran twice with one seed is not two repetitions. The later run replaces the
    earlier one as a whole, even where it has fewer numbers.

    Args:
        frame: Earlier runs before later ones.

    >>> rows = [Measurement("vv", 1, "d", MEAN, "aupro", value, run_id=run_id)
    ...         for value, run_id in ((0.4, "a"), (0.6, "b"))]
    >>> [(row.value, row.run_id) for row in latest(rows)]
    [(0.6, 'b')]
    """
    runs: dict[tuple[str, Hashable, str], dict[tuple[str, str], Measurement]] = {}
    for row in frame:
        kept = runs.setdefault((row.setting, row.seed, row.dataset), {})
        if kept and next(iter(kept.values())).run_id != row.run_id:
            kept.clear()
        kept[row.class_name, row.metric] = row
    return [row for kept in runs.values() for row in kept.values()]


def by_seed(frame: Iterable[Measurement]) -> dict[Quantity, dict[Hashable, float]]:
    """The values of each cell by seed, NaN included; a seed counts once, as in `latest`."""
    cells: dict[Quantity, dict[Hashable, float]] = {}
    for row in latest(frame):
        cell = Quantity(row.setting, row.dataset, row.class_name, row.metric)
        cells.setdefault(cell, {})[row.seed] = row.value
    return cells


def spreads(frame: Iterable[Measurement]) -> dict[Quantity, Spread]:
    """Mean and spread of each cell over its seeds, in the order of the frame.

    >>> rows = [Measurement("vv", seed, "d", MEAN, "aupro", value, run_id=str(seed))
    ...         for seed, value in ((1, 0.5), (2, 0.7), (3, math.nan))]
    >>> spreads(rows)[Quantity("vv", "d", MEAN, "aupro")].values
    (0.5, 0.7)
    """
    return {cell: Spread.of(values.values()) for cell, values in by_seed(frame).items()}


def paired(values: Mapping[S, float], baseline: Mapping[S, float]) -> dict[S, float]:
    """Value minus baseline for each seed that both have; NaN where either is undefined.

    Args:
        values: Seed to value.
        baseline: The same for the baseline.

    >>> paired({1: 0.75, 2: 0.5, 3: 0.5}, {1: 0.5, 2: 0.625})
    {1: 0.25, 2: -0.125}
    """
    return {seed: value - baseline[seed] for seed, value in values.items() if seed in baseline}


def differences(frame: Iterable[Measurement], baseline: str) -> list[Measurement]:
    """Each setting's difference from a baseline, paired by seed, as a frame again.

    Args:
        frame: The numbers.
        baseline: The setting subtracted; it is left out of the result.

    Returns:
        A row for each row of the other settings. The value is NaN, with the reason, where the
        baseline has no number for this seed; bounds add up.

    >>> rows = [Measurement(setting, 1, "d", MEAN, "aupro", value)
    ...         for setting, value in (("clip", 0.5), ("vv", 0.75))]
    >>> [(row.setting, row.value) for row in differences(rows, baseline="clip")]
    [('vv', 0.25)]
    """
    rows = latest(frame)
    base = {
        (row.seed, row.dataset, row.class_name, row.metric): row
        for row in rows
        if row.setting == baseline
    }
    found = []
    for row in rows:
        if row.setting == baseline:
            continue
        other = base.get((row.seed, row.dataset, row.class_name, row.metric))
        if other is None:
            lacking = f"{baseline} has no number for seed {row.seed}"
            found.append(row._replace(value=math.nan, bound=math.nan, reason=lacking))
        else:
            found.append(
                row._replace(
                    value=row.value - other.value,
                    bound=row.bound + other.bound,
                    reason=row.reason or other.reason,
                )
            )
    return found
