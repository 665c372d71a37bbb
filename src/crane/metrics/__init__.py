"""Metrics: exact where it costs nothing, streaming with proven bounds where it does.

Usable on its own: needs torch, torchmetrics, numpy, scipy, jaxtyping and pydantic only.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crane.metrics.counts import (
        MEAN,
        Counts,
        Curve,
        DatasetResult,
        Measure,
        Value,
        group_scores,
        pr_curve,
        pro_curve,
        roc_curve,
    )
    from crane.metrics.direct import region_numbers
    from crane.metrics.evaluation import Evaluation
    from crane.metrics.functional import (
        auroc,
        average_precision,
        f1_max,
        image_auroc,
        iou_max,
        pixel_auroc,
    )
    from crane.metrics.pixels import BinnedPixels, ExactPixels
    from crane.metrics.region import aupro, aupro_steps, quantile_edges
    from crane.metrics.scale import ScoreScale
    from crane.metrics.standalone import AUPRO, AUROC, AveragePrecision, F1Max, IoUMax
    from crane.metrics.state import ImageScores

__all__ = [
    "AUPRO",
    "AUROC",
    "MEAN",
    "AveragePrecision",
    "BinnedPixels",
    "Counts",
    "Curve",
    "DatasetResult",
    "Evaluation",
    "ExactPixels",
    "F1Max",
    "ImageScores",
    "IoUMax",
    "Measure",
    "ScoreScale",
    "Value",
    "aupro",
    "aupro_steps",
    "auroc",
    "average_precision",
    "f1_max",
    "group_scores",
    "image_auroc",
    "iou_max",
    "pixel_auroc",
    "pr_curve",
    "pro_curve",
    "quantile_edges",
    "region_numbers",
    "roc_curve",
]

_MODULES = (
    *("counts", "functional", "scale", "region"),
    *("state", "pixels", "evaluation", "direct", "standalone"),
)
"""Where the names are found; those that do not need torchmetrics, which is slow, come first."""


def __getattr__(name: str) -> Any:
    """Import a public name where it is first used."""
    if name in __all__:
        for module in _MODULES:
            content = vars(import_module(f"{__name__}.{module}"))
            if name in content:
                return content[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
