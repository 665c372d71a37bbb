"""All metrics of one target data set: every map is binned once, every metric computed from that."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from crane.errors import UsageError
from crane.metrics.counts import Counts, Measure, Value
from crane.metrics.curves import Curve, pr_curve, pro_curve, roc_curve
from crane.metrics.images import ImageScores
from crane.metrics.pixels import PixelState

_CURVES: dict[str, tuple[str, Callable[[Counts], Curve]]] = {
    "image_roc": ("images", roc_curve),
    "image_pr": ("images", pr_curve),
    "pixel_roc": ("pixels", roc_curve),
    "pixel_pr": ("pixels", pr_curve),
    "pro": ("pixels", pro_curve),
}


@dataclass(frozen=True)
class Results:
    """What the metrics of one data set come to. All fractions, not percent."""

    per_class: dict[str, list[float]]
    """Metric name -> value of each class, NaN where it has none."""
    mean: dict[str, float]
    """Metric name -> mean over the classes that have a value; NaN if none has."""
    error: dict[str, list[float]]
    """Metric name -> bound on the discretisation error of each class's value."""
    mean_error: dict[str, float]
    """Metric name -> bound on the discretisation error of the mean."""
    reasons: dict[str, dict[int, str]]
    """Metric name -> class id -> why that class has no value; only metrics that lack some."""


class Evaluation(nn.Module):
    """The metrics of one target data set.

    A value without a threshold of its own is named as in the configuration; a metric that finds a
    threshold gets a second name, `<name>_threshold`. Applying a threshold gives the value reported,
    and its bound is 0. It is a score of the data, and with binned pixels the lower edge of its bin.

    Args:
        num_classes: Number of classes of the data set.
        images: Builds the state of the image metrics, from `num_classes` and `names`.
        pixels: Builds the state of the pixel and region metrics, from the same.
        image_measures: Metric name -> measure of the image counts.
        pixel_measures: Metric name -> measure of the pixel counts.
        names: Name of each image by its index, for error messages.

    Raises:
        UsageError: If an image metric and a pixel metric have one name.
    """

    def __init__(
        self,
        num_classes: int,
        images: Callable[..., ImageScores],
        pixels: Callable[..., PixelState],
        image_measures: Mapping[str, Measure],
        pixel_measures: Mapping[str, Measure],
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if shared := sorted(set(image_measures) & set(pixel_measures)):
            raise UsageError("a name of its own for each metric", shared, key="metrics")
        self.num_classes = num_classes
        self.images = images(num_classes=num_classes, names=names)
        self.pixels = pixels(num_classes=num_classes, names=names)
        self.image_measures, self.pixel_measures = dict(image_measures), dict(pixel_measures)

    def update(
        self,
        score: Float[Tensor, " B"],
        map: Float[Tensor, "B H W"],
        label: Int[Tensor, " B"],
        mask: Int[Tensor, "B H W"],
        has_mask: Bool[Tensor, " B"],
        class_id: Int[Tensor, " B"],
        index: Int[Tensor, " B"],
    ) -> None:
        """Add a batch; images without a mask count in the image metrics only.

        Args:
            score: Anomaly score of each image.
            map: Anomaly score of each pixel.
            label: 0 for normal, 1 for anomalous.
            mask: 0 where normal, r > 0 on the r-th 8-connected region of that image.
            has_mask: Whether the mask is known.
            class_id: Class of each image.
            index: Position of each image in its data set.

        Raises:
            UsageError: If a score is NaN or infinite, an image comes twice, or an id is out of
                range. On an accelerator `compute` raises it.
        """
        self.images.update(score, label, index, class_id)
        self.pixels.update(map, mask, class_id, has_mask, index)

    def reset(self) -> None:
        """Forget all images."""
        self.images.reset()
        self.pixels.reset()

    def compute(self) -> Results:
        """Compute the results over all processes; every process must call it.

        Raises:
            UsageError: If an image came to two processes, or a score was NaN or infinite.
        """
        values: dict[str, list[Value]] = {}
        image_counts, pixel_counts = self.images.compute(), self.pixels.compute()
        for counts, measures in (
            (image_counts, self.image_measures),
            (pixel_counts, self.pixel_measures),
        ):
            for name, measure in measures.items():
                values |= _with_threshold(name, [measure(own) for own in counts])
        return _results(values)

    def curves(self) -> dict[str, list[Curve]]:
        """Return image_roc, image_pr, pixel_roc, pixel_pr and pro -> the curve of each class."""
        counts = {"images": self.images.compute(), "pixels": self.pixels.compute()}
        return {
            name: [curve(own) for own in counts[state]] for name, (state, curve) in _CURVES.items()
        }

    def scores(self) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Return index and score of every image over all processes; every process must call it."""
        return self.images.scores()

    def plot(
        self, curve: str = "pro", ax: Any = None, class_names: Sequence[str] | None = None
    ) -> tuple[Any, Any]:
        """Draw one kind of curve, a line a class.

        Args:
            curve: One of the names `curves` gives.
            ax: Axes to draw on; None for new ones.
            class_names: Names for the legend; class numbers if None.

        Returns:
            Figure and axes.

        Raises:
            UsageError: If there is no such curve.
        """
        if curve not in _CURVES:
            raise UsageError(f"one of {', '.join(_CURVES)}", curve)
        figure = None
        for class_id, own in enumerate(self.curves()[curve]):
            label = class_names[class_id] if class_names else f"class {class_id}"
            figure, ax = own.thinned(2000).plot(ax, label)
        ax.legend()
        return figure, ax


def _with_threshold(name: str, values: list[Value]) -> dict[str, list[Value]]:
    """Put the values under their name, and the thresholds found, if any, under another."""
    named = {name: values}
    if any(value.threshold is not None for value in values):
        named[f"{name}_threshold"] = [_threshold(value) for value in values]
    return named


def _threshold(value: Value) -> Value:
    if value.threshold is None:
        return value
    return Value(value.threshold, low=value.threshold, high=value.threshold)


def _results(values: Mapping[str, list[Value]]) -> Results:
    reasons = {
        name: {class_id: value.reason for class_id, value in enumerate(own) if value.reason}
        for name, own in values.items()
    }
    errors = {name: [value.error for value in own] for name, own in values.items()}
    per_class = {name: [value.value for value in own] for name, own in values.items()}
    return Results(
        per_class=per_class,
        mean={name: _mean(own) for name, own in per_class.items()},
        error=errors,
        mean_error={name: _mean(own) for name, own in errors.items()},
        reasons={name: why for name, why in reasons.items() if why},
    )


def _mean(values: Sequence[float]) -> float:
    """Mean of those that are numbers; NaN if none is."""
    numbers = [value for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan
