"""Metrics to use on their own, in the way of torchmetrics: `AUPRO()(maps, masks)`.

They are exact and keep every score, 12 bytes each, as torchmetrics' do without `thresholds`. For
constant memory see `BinnedPixels`, which `crane test` uses.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from crane.checks import checked
from crane.metrics.counts import Value
from crane.metrics.direct import Given, as_binary, as_maps, result
from crane.metrics.functional import auroc, average_precision, f1_max, iou_max
from crane.metrics.pixels import ExactPixels
from crane.metrics.region import LIMIT, Rate, aupro


class ScoreMetric(ExactPixels):
    """One metric of everything seen, as a tensor; what the metrics below share.

    Args:
        **metric_options: Options of `torchmetrics.Metric`.
    """

    scored = "scores"
    measure: ClassVar[Callable[..., Value]]

    def __init__(self, **metric_options: Any) -> None:
        super().__init__(1, **metric_options)
        self.options: dict[str, float] = {}

    def compute(self) -> Float[Tensor, ""]:
        """The value over everything seen, on all processes; NaN, with a warning, if undefined."""
        value = type(self).measure(*super().compute(), **self.options)
        return result(value, type(self).__name__, self.device)


class AUPRO(ScoreMetric):
    """Area under the mean region overlap (PRO) over the false-positive rate, up to a limit.

    Args:
        limit: False-positive rate at which the curve is cut and by which the area is divided.
        **metric_options: Options of `torchmetrics.Metric`.

    Raises:
        UsageError: The limit is not in (0, 1].

    >>> maps = torch.tensor([[[0.9, 0.1, 0.3], [0.8, 0.2, 0.7]]])
    >>> masks = torch.tensor([[[True, False, False], [True, False, True]]])
    >>> AUPRO()(maps, masks)
    tensor(1.)
    """

    measure = staticmethod(aupro)

    @checked
    def __init__(self, limit: Rate = LIMIT, **metric_options: Any) -> None:
        super().__init__(**metric_options)
        self.options["limit"] = limit

    def update(self, preds: Given, target: Given) -> None:  # type: ignore[override]
        """Add anomaly maps and masks, (B, H, W), (B, 1, H, W) or (H, W).

        Args:
            preds: Anomaly score of each pixel; higher is more anomalous.
            target: True and false, 0 and 1, or region numbers; see `region_numbers`.

        Raises:
            UsageError: Shapes differ, a score is NaN or infinite, or masks hold other values.
        """
        super().update(*as_maps(preds, target))


class AUROC(ScoreMetric):
    """Area under the ROC curve, of images or pixels.

    >>> AUROC()(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1]))
    tensor(0.8750)
    """

    measure = staticmethod(auroc)

    of_images: Tensor

    def __init__(self, **metric_options: Any) -> None:
        super().__init__(**metric_options)
        # MetricCollection shares states of the same names: AUPRO, with other areas, lacks this one.
        self.add_state("of_images", torch.tensor(0), dist_reduce_fx="max")

    @property
    def unit(self) -> str:
        """What was scored: images if scores have one axis, else pixels."""
        return "image" if self.of_images else "pixel"

    def update(self, preds: Given, target: Given) -> None:  # type: ignore[override]
        """Add scores of images, (B), or of pixels, (B, H, W) or of any other shape.

        Args:
            preds: Anomaly scores; higher is more anomalous.
            target: 0 or false for normal, 1 or true for anomalous, in the same shape.

        Raises:
            UsageError: Shapes differ, a score is NaN or infinite, or a target is not a label.
        """
        scores, labels, of_images = as_binary(preds, target)
        self.of_images = self.of_images | int(of_images)
        super().update(scores, labels, labelled=True)


class AveragePrecision(AUROC):
    """Average precision: area under precision over recall, without interpolation.

    >>> AveragePrecision()(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1]))
    tensor(0.8333)
    """

    measure = staticmethod(average_precision)


class F1Max(AUROC):
    """Highest F1 over all thresholds.

    >>> F1Max()(torch.tensor([0.1, 0.4, 0.4, 0.8]), torch.tensor([0, 0, 1, 1]))
    tensor(0.8000)
    """

    measure = staticmethod(f1_max)


class IoUMax(AUROC):
    """Highest intersection over union over all thresholds.

    >>> IoUMax()(torch.tensor([[0.1, 0.4, 0.8]]), torch.tensor([[False, True, True]]))
    tensor(1.)
    """

    measure = staticmethod(iou_max)
