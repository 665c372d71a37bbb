"""Metrics: exact where it costs nothing, streaming with proven bounds where it does.

Usable on its own: needs torch, torchmetrics, numpy and jaxtyping only.
"""

from crane.metrics.areas import quantile_edges
from crane.metrics.counts import Counts, Measure, Value, group_scores
from crane.metrics.curves import Curve, pr_curve, pro_curve, roc_curve
from crane.metrics.evaluation import Evaluation, Results
from crane.metrics.exact import ExactPixels
from crane.metrics.functional import auroc, average_precision, f1_max, iou_max
from crane.metrics.images import ImageScores
from crane.metrics.pixels import BinnedPixels
from crane.metrics.region import aupro, aupro_steps
from crane.metrics.scale import ScoreScale
from crane.metrics.single import (
    AUPRO,
    ImageAP,
    ImageAUROC,
    ImageF1Max,
    ImageMetric,
    PixelAP,
    PixelAUROC,
    PixelF1Max,
    PixelIoUMax,
    PixelMetric,
    PublishedAUPRO,
)

__all__ = [
    "AUPRO",
    "BinnedPixels",
    "Counts",
    "Curve",
    "Evaluation",
    "ExactPixels",
    "ImageAP",
    "ImageAUROC",
    "ImageF1Max",
    "ImageMetric",
    "ImageScores",
    "Measure",
    "PixelAP",
    "PixelAUROC",
    "PixelF1Max",
    "PixelIoUMax",
    "PixelMetric",
    "PublishedAUPRO",
    "Results",
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
