"""One metric an object, as torchmetrics has them: the value of each class.

Each object holds a state of its own. To compute several metrics from one state, use
`crane.metrics.Evaluation`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from crane.metrics.counts import Measure, Value
from crane.metrics.functional import auroc, average_precision, f1_max, iou_max
from crane.metrics.images import ImageScores
from crane.metrics.pixels import BinnedPixels
from crane.metrics.region import aupro, aupro_steps
from crane.metrics.scale import ScoreScale


class ImageMetric(ImageScores):
    """Any measure of image scores, of each class.

    Args:
        measure: The metric as a function of one class's counts.
        num_classes: See `ImageScores`.
        max_images: See `ImageScores`.
        **options: Other options of `ImageScores`.
    """

    values: list[Value]
    """After `compute`: the values with their bounds, and the reason where there is none."""

    def __init__(self, measure: Measure, num_classes: int, max_images: int, **options: Any) -> None:
        super().__init__(num_classes, max_images, **options)
        self.measure = measure

    def compute(self) -> Tensor:
        """Return the value of each class, NaN where there is none; a scalar of one class."""
        self.values = [self.measure(counts) for counts in super().compute()]
        return torch.tensor([own.value for own in self.values], dtype=torch.float64)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Figure and axes with the value of each class, as torchmetrics draws it."""
        return self._plot(val, ax)


class ImageAUROC(ImageMetric):
    """Image AUROC of each class; arguments as `ImageScores`.

    >>> metric = ImageAUROC(num_classes=1, max_images=100)
    >>> metric.update(torch.tensor([0.1, 0.4, 0.8]), torch.tensor([0, 1, 0]), torch.arange(3))
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    """

    def __init__(self, num_classes: int, max_images: int, **options: Any) -> None:
        super().__init__(auroc, num_classes, max_images, **options)


class ImageAP(ImageMetric):
    """Image average precision of each class; arguments as `ImageScores`."""

    def __init__(self, num_classes: int, max_images: int, **options: Any) -> None:
        super().__init__(average_precision, num_classes, max_images, **options)


class ImageF1Max(ImageMetric):
    """Highest image F1 over all thresholds of each class; arguments as `ImageScores`."""

    def __init__(self, num_classes: int, max_images: int, **options: Any) -> None:
        super().__init__(f1_max, num_classes, max_images, **options)


class PixelMetric(BinnedPixels):
    """Any measure of maps, of each class.

    Args:
        measure: The metric as a function of one class's counts.
        num_classes: See `PixelState`.
        scale: The bins of scores.
        size_edges: See `PixelState`.
        **options: Other options of `BinnedPixels`.
    """

    values: list[Value]
    """After `compute`: the values with their bounds, and the reason where there is none."""

    def __init__(
        self,
        measure: Measure,
        num_classes: int,
        scale: ScoreScale,
        size_edges: Sequence[int] = (),
        **options: Any,
    ) -> None:
        super().__init__(num_classes, scale, size_edges, **options)
        self.measure = measure

    def compute(self) -> Tensor:
        """Return the value of each class, NaN where there is none; a scalar of one class."""
        self.values = [self.measure(counts) for counts in super().compute()]
        return torch.tensor([own.value for own in self.values], dtype=torch.float64)

    def plot(self, val: Any = None, ax: Any = None) -> Any:
        """Figure and axes with the value of each class, as torchmetrics draws it."""
        return self._plot(val, ax)


class PixelAUROC(PixelMetric):
    """Pixel AUROC of each class; arguments as `BinnedPixels`.

    >>> metric = PixelAUROC(num_classes=1, scale=ScoreScale(octave_bits=10, linear_bits=17))
    >>> metric.update(torch.tensor([[[0.1, 0.4, 0.8]]]), torch.tensor([[[0, 1, 0]]]))
    >>> metric.compute()
    tensor(0.5000, dtype=torch.float64)
    >>> metric.values[0].error
    0.0
    """

    def __init__(self, num_classes: int, scale: ScoreScale, **options: Any) -> None:
        super().__init__(auroc, num_classes, scale, **options)


class PixelAP(PixelMetric):
    """Pixel average precision of each class; arguments as `BinnedPixels`."""

    def __init__(self, num_classes: int, scale: ScoreScale, **options: Any) -> None:
        super().__init__(average_precision, num_classes, scale, **options)


class PixelF1Max(PixelMetric):
    """Highest pixel F1 over all thresholds of each class; arguments as `BinnedPixels`."""

    def __init__(self, num_classes: int, scale: ScoreScale, **options: Any) -> None:
        super().__init__(f1_max, num_classes, scale, **options)


class PixelIoUMax(PixelMetric):
    """Highest intersection over union over all thresholds of each class; as `BinnedPixels`."""

    def __init__(self, num_classes: int, scale: ScoreScale, **options: Any) -> None:
        super().__init__(iou_max, num_classes, scale, **options)


class AUPRO(PixelMetric):
    """Area under the PRO curve up to a false-positive rate, of each class.

    Args:
        num_classes: See `PixelState`.
        scale: The bins of scores.
        limit: False-positive rate at which the curve is cut.
        size_bin: Only regions of this size bin count; None for all regions.
        **options: Other options of `BinnedPixels`.

    >>> metric = AUPRO(num_classes=1, scale=ScoreScale(10, 17), limit=0.5)
    >>> metric.update(torch.tensor([[[0.1, 0.4, 0.8]]]), torch.tensor([[[0, 1, 0]]]))
    >>> metric.compute()
    tensor(0., dtype=torch.float64)
    """

    def __init__(
        self,
        num_classes: int,
        scale: ScoreScale,
        limit: float,
        size_bin: int | None = None,
        **options: Any,
    ) -> None:
        measure = functools.partial(aupro, limit=limit, size_bin=size_bin)
        super().__init__(measure, num_classes, scale, **options)


class PublishedAUPRO(PixelMetric):
    """AUPRO of each class as the published evaluation computes it (see `aupro_steps`).

    Args:
        num_classes: See `PixelState`.
        scale: The bins of scores.
        limit: False-positive rate below which thresholds are kept.
        num_steps: Number of thresholds.
        **options: Other options of `BinnedPixels`.
    """

    def __init__(
        self, num_classes: int, scale: ScoreScale, limit: float, num_steps: int, **options: Any
    ) -> None:
        measure = functools.partial(aupro_steps, limit=limit, num_steps=num_steps)
        super().__init__(measure, num_classes, scale, **options)
