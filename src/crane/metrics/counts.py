"""Counts of one class at falling scores, from which all is computed, and the numbers of a data set.

Needs no torch, so that reports and tables open quickly.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from crane.errors import UsageError, counted


class Counts(NamedTuple):
    """Counts of one class in groups of scores, from the highest group to the lowest.

    In exact mode a group is one distinct score; in streaming mode it is an occupied bin, and the
    order of the scores inside is unknown. Images have no regions: S is 0 there.
    """

    lower: Float[np.ndarray, " K"]
    """Lowest score of each group."""
    upper: Float[np.ndarray, " K"]
    """Highest score of each group."""
    negatives: Int[np.ndarray, " K"]
    """Normal pixels (or images) in each group."""
    positives: Int[np.ndarray, " K"]
    """Anomalous pixels (or images) in each group."""
    regions: Float[np.ndarray, "S K"]
    """By size bin, summed over regions: the fraction of the region's pixels in each group."""
    num_regions: Int[np.ndarray, " S"]
    """Number of regions in each size bin."""
    unit: str
    """What is counted, for the wording of reasons: `image` or `pixel`."""

    @property
    def tied(self) -> Bool[np.ndarray, " K"]:
        """Whether a group is known to hold one distinct score."""
        return (self.lower == self.upper) | (self.negatives + self.positives == 1)


@dataclass(frozen=True)
class Value:
    """A metric's value with a proven interval around it, or the reason why there is none.

    >>> value = Value(0.5, low=0.25, high=0.625)
    >>> value.error
    0.25
    >>> undefined("no region").value
    nan
    """

    value: float
    low: float
    """The metric of the unbinned scores is at least this,"""
    high: float
    """and at most this."""
    threshold: float | None = None
    """Score at the optimum: scores at or above it count as anomalous, and give this very value."""
    reason: str = ""
    """Why there is no value; empty where there is one."""

    @property
    def error(self) -> float:
        """Bound on the discretisation error: how far the exact value can be from this one."""
        return max(self.value - self.low, self.high - self.value)


Measure = Callable[[Counts], Value]
"""A metric of one class, as a pure function."""


def undefined(reason: str) -> Value:
    """Return a metric without a value, for the given reason."""
    return Value(math.nan, math.nan, math.nan, reason=reason)


def missing_label(counts: Counts) -> str:
    """Why two labels cannot be told apart here; empty if they can."""
    num_negatives, num_positives = counts.negatives.sum(), counts.positives.sum()
    if num_negatives + num_positives == 0:
        return "no image" if counts.unit == "image" else "no image with a mask"
    if num_positives == 0:
        return f"no anomalous {counts.unit}"
    return f"no normal {counts.unit}" if num_negatives == 0 else ""


def missing_region(counts: Counts, size_bin: int | None) -> str:
    """Why no region curve can be drawn here; empty if one can."""
    if counts.num_regions.sum() == 0:
        return "no region" if counts.negatives.sum() else "no image with a mask"
    if counts.negatives.sum() == 0:
        return "no normal pixel"
    if size_bin is not None and counts.num_regions[size_bin] == 0:
        return "no region of this size"
    return ""


ROUNDING = 2.0**-19
"""Relative difference up to which scores of images may be rounding noise: 32 times float32's last
bit. Of one image in batches of 1 to 12, up to half of it was measured."""


def with_ties(scores: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Level scores that differ by no more than rounding: batch size and threads decide that much.

    From the lowest score up, scores within `ROUNDING` of the first of a group become that first.

    Args:
        scores: Scores of images, in any order.

    >>> with_ties(np.array([0.5, 0.4999999, 0.6, -1.0000001, 0.500002])).tolist()
    [0.4999999, 0.4999999, 0.6, -1.0000001, 0.500002]
    """
    distinct, place = np.unique(scores.astype(np.float64), return_inverse=True)
    reach, end = distinct + ROUNDING * np.abs(distinct), 0
    for first in np.flatnonzero(distinct[1:] <= reach[:-1]):
        if first >= end:
            end = int(np.searchsorted(distinct, reach[first], side="right"))
            distinct[first:end] = distinct[first]
    return distinct[place.reshape(-1)]


def group_scores(
    scores: Float[np.ndarray, " n"], anomalous: Bool[np.ndarray, " n"], unit: str
) -> tuple[Counts, Int[np.ndarray, " n"]]:
    """Group equal scores: exact counts (without regions), and the group of each score.

    >>> counts, group = group_scores(np.array([0.1, 0.9, 0.9]), np.array([False, True, False]),
    ...                              unit="image")
    >>> counts.lower.tolist(), counts.positives.tolist(), group.tolist()
    ([0.9, 0.1], [1, 0], [1, 0, 0])
    """
    distinct, group = np.unique(scores, return_inverse=True)
    group = len(distinct) - 1 - group.reshape(-1)
    total = np.bincount(group, minlength=len(distinct))
    positives = np.bincount(group[anomalous], minlength=len(distinct))
    falling = distinct[::-1].astype(np.float64)
    counts = Counts(
        lower=falling,
        upper=falling,
        negatives=total - positives,
        positives=positives,
        regions=np.zeros((0, len(distinct))),
        num_regions=np.zeros(0, dtype=np.int64),
        unit=unit,
    )
    return counts, group


class Curve(NamedTuple):
    """A curve of one class over falling thresholds; it has no points where it is undefined.

    >>> from crane.metrics.counts import group_scores
    >>> counts, _ = group_scores(np.array([0.1, 0.8]), np.array([False, True]), unit="image")
    >>> curve = roc_curve(counts)
    >>> curve.x_name, curve.x.tolist(), curve.threshold.tolist()
    ('false_positive_rate', [0.0, 0.0, 1.0], [inf, 0.8, 0.1])
    """

    x_name: str
    """What `x` is, in small letters with underscores."""
    y_name: str
    threshold: Float[np.ndarray, " T"]
    """Scores at or above it count as anomalous."""
    x: Float[np.ndarray, " T"]
    """From 0 to 1."""
    y: Float[np.ndarray, " T"]
    """From 0 to 1."""

    def thinned(self, num_points: int) -> "Curve":
        """At most `num_points` points, both ends among them, evenly spaced along its length.

        Args:
            num_points: How many to keep; a curve with fewer is returned as it is.
        """
        if len(self.x) <= num_points:
            return self
        along = np.append(0.0, np.cumsum(np.abs(np.diff(self.x)) + np.abs(np.diff(self.y))))
        wanted = np.linspace(0, along[-1], num_points)
        kept = np.unique(np.append(np.searchsorted(along, wanted), len(along) - 1))
        kept = kept[kept < len(along)]
        return self._replace(threshold=self.threshold[kept], x=self.x[kept], y=self.y[kept])


def roc_curve(counts: Counts) -> Curve:
    """Recall over the false-positive rate, from (0, 0) to (1, 1)."""
    fpr, recall = _rates(counts, counts.positives, missing_label(counts))
    return Curve("false_positive_rate", "recall", _thresholds(counts, fpr), fpr, recall)


def pr_curve(counts: Counts) -> Curve:
    """Precision over recall; at recall 0 the precision is set to 1."""
    fpr, recall = _rates(counts, counts.positives, missing_label(counts))
    tp = recall * counts.positives.sum()
    found = tp + fpr * counts.negatives.sum()
    precision = np.divide(tp, found, out=np.ones_like(tp), where=found > 0)
    return Curve("recall", "precision", _thresholds(counts, fpr), recall, precision)


def pro_curve(counts: Counts) -> Curve:
    """Mean overlap of the regions over the false-positive rate, from (0, 0) to (1, 1)."""
    amounts = counts.regions.sum(axis=0)
    fpr, overlap = _rates(counts, amounts, missing_region(counts, None))
    return Curve("false_positive_rate", "region_overlap", _thresholds(counts, fpr), fpr, overlap)


def _rates(
    counts: Counts, amounts: np.ndarray, missing: str
) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]:
    if missing:
        return np.zeros(0), np.zeros(0)
    fpr = np.append(0.0, np.cumsum(counts.negatives) / counts.negatives.sum())
    return fpr, np.append(0.0, np.cumsum(amounts) / amounts.sum())


def _thresholds(counts: Counts, fpr: np.ndarray) -> Float[np.ndarray, " T"]:
    return np.append(np.inf, counts.lower)[: len(fpr)]


MEAN = "mean"
"""What stands in the place of a class name for the mean over classes."""


@dataclass(frozen=True)
class DatasetResult:
    """What was measured on one data set. All values are fractions, not percent.

    Raises:
        UsageError: A metric, bound or count does not have one entry per class, or NaN comes
            without its reason.

    >>> DatasetResult(
    ...     dataset="mvtec",
    ...     class_names=("bottle", "cable"),
    ...     values={"image_auroc": (0.9, 0.8)},
    ...     means={"image_auroc": 0.85},
    ...     num_normal=(20, 58),
    ...     num_anomalous=(63, 92),
    ... ).rows()[-1]
    {'dataset': 'mvtec', 'class': 'mean', 'num_normal': 78, 'num_anomalous': 155,
     'image_auroc': 0.85}
    """

    dataset: str
    """Name of the data set."""
    class_names: tuple[str, ...]
    """Its classes; the tuples below have one entry for each, in this order."""
    values: Mapping[str, tuple[float, ...]]
    """Metric name to the value of each class; NaN where the metric is undefined."""
    means: Mapping[str, float]
    """Metric name to the mean over the classes where it is defined; NaN if there is none."""
    num_normal: tuple[int, ...]
    """Normal images of each class."""
    num_anomalous: tuple[int, ...]
    """Anomalous images of each class."""
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(metric, class) to the reason why the value is NaN."""
    bounds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Metric name to a bound on the discretisation error of each class's value."""
    mean_bounds: Mapping[str, float] = field(default_factory=dict)
    """Metric name to a bound on the discretisation error of the mean."""

    def __post_init__(self) -> None:
        columns: list[tuple[str, Sequence[float]]] = [
            *((f"values of {metric}", column) for metric, column in self.values.items()),
            *((f"bounds of {metric}", column) for metric, column in self.bounds.items()),
            ("num_normal", self.num_normal),
            ("num_anomalous", self.num_anomalous),
        ]
        for name, column in columns:
            if len(column) != len(self.class_names):
                classes = counted(len(self.class_names), "class", "classes")
                raise UsageError(f"{classes}, but {len(column)} {name}")
        if set(self.means) != set(self.values):
            differing = ", ".join(sorted(set(self.means) ^ set(self.values)))
            raise UsageError(f"each metric needs values and a mean; one is missing for {differing}")
        for metric, column in self.values.items():
            for class_name, value in zip(self.class_names, column, strict=True):
                if math.isnan(value) and (metric, class_name) not in self.reasons:
                    raise UsageError(f"{metric} of {class_name} is NaN without a reason")

    def rows(self) -> list[dict[str, str | int | float]]:
        """One flat row per class and one for the mean, at full precision."""
        rows: list[dict[str, str | int | float]] = [
            {
                "dataset": self.dataset,
                "class": class_name,
                "num_normal": self.num_normal[place],
                "num_anomalous": self.num_anomalous[place],
                **{metric: column[place] for metric, column in self.values.items()},
            }
            for place, class_name in enumerate(self.class_names)
        ]
        total: dict[str, str | int | float] = {
            "dataset": self.dataset,
            "class": MEAN,
            "num_normal": sum(self.num_normal),
            "num_anomalous": sum(self.num_anomalous),
        }
        return [*rows, {**total, **self.means}]
