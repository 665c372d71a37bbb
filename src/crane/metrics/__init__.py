"""Metrics: exact where it costs nothing, streaming with proven bounds where it does.

Usable on its own: needs torch, torchmetrics, numpy, jaxtyping and pydantic only.
"""

from crane.metrics.counts import Counts, Measure, Value, group_scores
from crane.metrics.curves import Curve, pr_curve, pro_curve, roc_curve
from crane.metrics.evaluation import MEAN, DatasetResult, Evaluation
from crane.metrics.functional import auroc, average_precision, f1_max, iou_max
from crane.metrics.images import ImageScores
from crane.metrics.pixels import BinnedPixels, ExactPixels
from crane.metrics.region import aupro, aupro_steps, quantile_edges
from crane.metrics.scale import ScoreScale

__all__ = [
    "MEAN",
    "BinnedPixels",
    "Counts",
    "Curve",
    "DatasetResult",
    "Evaluation",
    "ExactPixels",
    "ImageScores",
    "Measure",
    "ScoreScale",
    "Value",
    "aupro",
    "aupro_steps",
    "auroc",
    "average_precision",
    "f1_max",
    "group_scores",
    "iou_max",
    "pr_curve",
    "pro_curve",
    "quantile_edges",
    "roc_curve",
]
