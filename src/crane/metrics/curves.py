"""The curves behind the metrics, to plot and to export."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from crane.metrics.counts import Counts, missing_label, missing_region


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
    """What `y` is."""
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
