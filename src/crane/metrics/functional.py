"""Metrics of images or pixels as pure functions.

Each takes scores and targets, and returns a tensor of one number; or the counts of one class, and
returns a `Value`: the metric with every group of scores treated as tied, and the interval in which
it must lie, whatever the order of the scores inside the groups. Groups of one distinct score (exact
mode; bins such as those of 0 and 1) do not widen the interval.
"""

import numpy as np
from jaxtyping import Float
from torch import Tensor

from crane.errors import UsageError
from crane.metrics.counts import Counts, Value, missing_label, undefined
from crane.metrics.direct import Given, as_maps, as_scores, of_scores_too, region_numbers
from crane.metrics.region import aupro, aupro_steps


@of_scores_too()
def auroc(counts: Counts) -> Value:
    """Area under the ROC curve: the chance that an anomaly scores higher, ties counting half.

    >>> from crane.metrics.counts import group_scores
    >>> counts, _ = group_scores(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]) > 0,
    ...                          unit="image")
    >>> auroc(counts).value
    0.875
    >>> auroc([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1])
    tensor(0.8750)
    """
    if reason := missing_label(counts):
        return undefined(reason)
    n, p = counts.negatives.astype(np.float64), counts.positives.astype(np.float64)
    pairs = n.sum() * p.sum()
    value = float((n * (np.cumsum(p) - p / 2)).sum() / pairs)
    slack = float((n * p)[~counts.tied].sum() / 2 / pairs)
    return Value(value, value - slack, value + slack)


@of_scores_too()
def average_precision(counts: Counts) -> Value:
    """Average precision: precision at each group, weighted by the recall the group adds.

    >>> from crane.metrics.counts import group_scores
    >>> counts, _ = group_scores(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]) > 0,
    ...                          unit="image")
    >>> round(average_precision(counts).value, 4)
    0.8333
    """
    if reason := missing_label(counts):
        return undefined(reason)
    here = counts.positives > 0  # a group without positives adds no recall
    p = counts.positives[here].astype(np.float64)
    tp = np.cumsum(p)
    fp = np.cumsum(counts.negatives)[here].astype(np.float64)
    fp_before = fp - counts.negatives[here]
    weighted = p * tp / (tp + fp)
    # Best order: all positives tied above the negatives. Worst: negatives first, then the
    # positives one by one; i / (i + fp) is concave in i, so its chord bounds the sum from below.
    best = p * tp / (tp + fp_before)
    first = tp - p + 1
    worst = p * (first / (first + fp) + tp / (tp + fp)) / 2
    tied = counts.tied[here]
    low, high = np.where(tied, weighted, worst), np.where(tied, weighted, best)
    value, lowest, highest = (float(terms.sum() / tp[-1]) for terms in (weighted, low, high))
    return Value(value, lowest, highest)


@of_scores_too()
def f1_max(counts: Counts) -> Value:
    """Find the highest F1 over all thresholds, and the highest threshold that reaches it.

    >>> from crane.metrics.counts import group_scores
    >>> counts, _ = group_scores(np.array([0.1, 0.4, 0.4, 0.8]), np.array([0, 0, 1, 1]) > 0,
    ...                          unit="image")
    >>> f1_max(counts).value, f1_max(counts).threshold
    (0.8, 0.4)
    """
    return _best(counts, weight=2)


@of_scores_too()
def iou_max(counts: Counts) -> Value:
    """Find the highest intersection over union over all thresholds, and its threshold.

    >>> from crane.metrics.counts import group_scores
    >>> counts, _ = group_scores(np.array([0.1, 0.4, 0.8]), np.array([0, 1, 1]) > 0, unit="pixel")
    >>> iou_max(counts).value, iou_max(counts).threshold
    (1.0, 0.4)
    """
    return _best(counts, weight=1)


def image_auroc(scores: Given, labels: Given) -> Float[Tensor, ""]:
    """Area under the ROC curve of images.

    Args:
        scores: Anomaly score of each image, (B).
        labels: 0 or false for normal, 1 or true for anomalous.

    Raises:
        UsageError: Scores have more than one axis, or see `auroc`.

    >>> image_auroc([0.1, 0.4, 0.4, 0.8], [0, 0, 1, 1])
    tensor(0.8750)
    """
    if (shape := tuple(as_scores(scores).shape))[1:] or not shape:
        raise UsageError(f"image scores must have one axis, not the shape {shape}; see pixel_auroc")
    return auroc(scores, labels)


def pixel_auroc(maps: Given, masks: Given) -> Float[Tensor, ""]:
    """Area under the ROC curve of pixels.

    Args:
        maps: Anomaly score of each pixel, (B, H, W), (B, 1, H, W) or (H, W).
        masks: True and false, 0 and 1, or region numbers, in the same shape.

    Raises:
        UsageError: Shapes differ, a score is NaN or infinite, or masks hold other values.

    >>> pixel_auroc([[0.1, 0.4], [0.4, 0.8]], [[False, False], [True, True]])
    tensor(0.8750)
    """
    scores, regions = as_maps(maps, masks)
    return auroc(scores, region_numbers(regions) > 0)


def _best(counts: Counts, weight: int) -> Value:
    """Find the highest w TP / (w TP + FP + FN) over thresholds: F1 for w = 2, IoU for w = 1."""
    if reason := missing_label(counts):
        return undefined(reason)
    tp = np.cumsum(counts.positives).astype(np.float64)
    fp = np.cumsum(counts.negatives).astype(np.float64)
    at_end = _overlap(tp, fp, tp[-1], weight)
    best = int(at_end.argmax())
    value = float(at_end[best])
    # Inside a group, at best all its positives and none of its negatives are above the threshold.
    inside = _overlap(tp, fp - counts.negatives, tp[-1], weight)[~counts.tied]
    high = float(inside.max(initial=value))
    return Value(value, value, high, threshold=float(counts.lower[best]))


def _overlap(
    tp: Float[np.ndarray, " K"], fp: Float[np.ndarray, " K"], num_positives: float, weight: int
) -> Float[np.ndarray, " K"]:
    return weight * tp / (weight * tp + fp + (num_positives - tp))


__all__ = [
    "aupro",
    "aupro_steps",
    "auroc",
    "average_precision",
    "f1_max",
    "image_auroc",
    "iou_max",
    "pixel_auroc",
]
