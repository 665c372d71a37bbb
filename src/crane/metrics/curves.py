"""Curves behind the metrics, to plot and to export."""

import csv
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from crane.metrics.counts import Counts, missing_label, missing_region


class Curve(NamedTuple):
    """A curve of one class over falling thresholds; without points where it is not defined.

    >>> from crane.metrics.counts import group_scores
    >>> counts, _ = group_scores(np.array([0.1, 0.8]), np.array([False, True]), unit="image")
    >>> roc_curve(counts).as_dict()
    {'threshold': [inf, 0.8, 0.1],
     'false_positive_rate': [0.0, 0.0, 1.0],
     'recall': [0.0, 1.0, 1.0]}
    """

    x_name: str
    y_name: str
    threshold: Float[np.ndarray, " T"]
    """Scores at or above it count as anomalous."""
    x: Float[np.ndarray, " T"]
    y: Float[np.ndarray, " T"]

    def as_dict(self) -> dict[str, list[float]]:
        """Return the columns by name."""
        columns = {"threshold": self.threshold, self.x_name: self.x, self.y_name: self.y}
        return {name: column.tolist() for name, column in columns.items()}

    def thinned(self, num_points: int) -> "Curve":
        """At most `num_points` points, evenly along the curve, the ends among them.

        Evenly along the length of the curve: where it is steep as where it is flat.
        """
        if len(self.x) <= num_points:
            return self
        along = np.append(0.0, np.cumsum(np.abs(np.diff(self.x)) + np.abs(np.diff(self.y))))
        wanted = np.linspace(0, along[-1], num_points)
        kept = np.unique(np.append(np.searchsorted(along, wanted), len(along) - 1))
        kept = kept[kept < len(along)]
        return self._replace(threshold=self.threshold[kept], x=self.x[kept], y=self.y[kept])

    def to_csv(self, path: Path) -> None:
        """Write the columns, one row a point."""
        columns = self.as_dict()
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))

    def plot(self, ax: Any = None, label: str | None = None) -> tuple[Any, Any]:
        """Draw the curve.

        Args:
            ax: Axes to draw on; None for new ones.
            label: Name of the curve in the legend.

        Returns:
            Figure and axes.
        """
        if ax is None:
            from matplotlib import pyplot  # only those who plot wait for it

            _, ax = pyplot.subplots()
        ax.plot(self.x, self.y, label=label)
        ax.set(xlabel=self.x_name.replace("_", " "), ylabel=self.y_name.replace("_", " "))
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
        ax.grid(True, alpha=0.3)
        return ax.figure, ax


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
