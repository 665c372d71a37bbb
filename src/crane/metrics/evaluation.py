"""All metrics of one target data set: every map is binned once, every metric computed from that."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from crane.errors import UsageError
from crane.metrics.counts import (
    Counts,
    Curve,
    DatasetResult,
    Measure,
    Value,
    pr_curve,
    pro_curve,
    roc_curve,
)
from crane.metrics.pixels import PixelState
from crane.metrics.state import ImageScores

_CURVES: dict[str, tuple[str, Callable[[Counts], Curve]]] = {
    "image_roc": ("images", roc_curve),
    "image_pr": ("images", pr_curve),
    "pixel_roc": ("pixels", roc_curve),
    "pixel_pr": ("pixels", pr_curve),
    "pro": ("pixels", pro_curve),
}


class Evaluation(nn.Module):
    """The metrics of one target data set.

    Values are named as the metrics in the configuration; a metric that finds a threshold gets a
    second name, `<name>_threshold`. Applying a threshold gives exactly the value reported, so its
    bound is 0. It is a score of the data; with binned pixels it is the lower edge of its bin.

    Args:
        class_names: The classes of the data set; class ids are positions in it.
        images: Builds the state of the image metrics, from `num_classes` and `names`.
        pixels: Builds the state of the pixel and region metrics, from the same.
        image_measures: Metric name to the measure of the image counts.
        pixel_measures: Metric name to the measure of the pixel counts.
        dataset: Name of the data set, for its result.
        names: Name of each image by its index, for error messages.

    Raises:
        UsageError: An image metric and a pixel metric share a name.

    >>> import functools, torch
    >>> from crane.metrics import BinnedPixels, ScoreScale, auroc
    >>> evaluation = Evaluation(
    ...     class_names=["nut"],
    ...     images=functools.partial(ImageScores, max_images=100),
    ...     pixels=functools.partial(BinnedPixels, scale=ScoreScale(10, 17)),
    ...     image_measures={"image_auroc": auroc},
    ...     pixel_measures={"pixel_auroc": auroc},
    ... )
    >>> mask = torch.zeros(2, 8, 8, dtype=torch.int32)
    >>> mask[1, 2:4, 2:4] = 1  # the second image has one region
    >>> evaluation.update(
    ...     score=torch.tensor([0.1, 0.9]),
    ...     map=mask * 0.5,
    ...     label=torch.tensor([0, 1]),
    ...     mask=mask,
    ...     has_mask=torch.tensor([True, True]),
    ...     class_id=torch.tensor([0, 0]),
    ...     index=torch.arange(2),
    ... )
    >>> evaluation.compute().means
    {'image_auroc': 1.0, 'pixel_auroc': 1.0}
    """

    def __init__(
        self,
        class_names: Sequence[str],
        images: Callable[..., ImageScores],
        pixels: Callable[..., PixelState],
        image_measures: Mapping[str, Measure],
        pixel_measures: Mapping[str, Measure],
        dataset: str = "",
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if shared := sorted(set(image_measures) & set(pixel_measures)):
            raise UsageError(
                f"an image metric and a pixel metric are both named {shared[0]}; rename one",
                key="metrics",
            )
        self.dataset, self.class_names = dataset, tuple(class_names)
        self.images = images(num_classes=len(self.class_names), names=names)
        self.pixels = pixels(num_classes=len(self.class_names), names=names)
        self.image_measures, self.pixel_measures = dict(image_measures), dict(pixel_measures)

    def update(
        self,
        score: Float[Tensor, " B"],
        map: Float[Tensor, "B H W"],
        label: Int[Tensor, " B"],
        mask: Shaped[Tensor, "B H W"],
        has_mask: Bool[Tensor, " B"],
        class_id: Int[Tensor, " B"],
        index: Int[Tensor, " B"],
        *,
        labelled: bool = False,
    ) -> None:
        """Add a batch; images without a mask count in the image metrics only.

        Args:
            score: Anomaly score of each image.
            map: Anomaly score of each pixel.
            label: 0 for normal, 1 for anomalous.
            mask: True and false, 0 and 1, or region numbers; see `region_numbers`.
            has_mask: Whether the mask is known.
            class_id: Class of each image.
            index: Position of each image in its data set.
            labelled: Whether masks are known to hold region numbers, as those of crane's loaders.

        Raises:
            UsageError: A score is NaN or infinite, an image comes twice, or an id is out of range.
                On an accelerator `compute` raises it.
        """
        self.images.update(score, label, index, class_id)
        self.pixels.update(map, mask, class_id, has_mask, index, labelled=labelled)

    def reset(self) -> None:
        """Forget all images."""
        self.images.reset()
        self.pixels.reset()

    def compute(self) -> DatasetResult:
        """Compute the result over all processes; every process must call it.

        Raises:
            UsageError: An image came to two processes, or a score was NaN or infinite.
        """
        found: dict[str, list[Value]] = {}
        image_counts, pixel_counts = self.images.compute(), self.pixels.compute()
        for counts, measures in (
            (image_counts, self.image_measures),
            (pixel_counts, self.pixel_measures),
        ):
            for name, measure in measures.items():
                found |= _with_threshold(name, [measure(own) for own in counts])
        values = {name: tuple(value.value for value in own) for name, own in found.items()}
        bounds = {name: tuple(value.error for value in own) for name, own in found.items()}
        return DatasetResult(
            dataset=self.dataset,
            class_names=self.class_names,
            values=values,
            means={name: _mean(own) for name, own in values.items()},
            num_normal=tuple(int(counts.negatives.sum()) for counts in image_counts),
            num_anomalous=tuple(int(counts.positives.sum()) for counts in image_counts),
            reasons={
                (metric, class_name): value.reason
                for metric, own in found.items()
                for class_name, value in zip(self.class_names, own, strict=True)
                if value.reason
            },
            bounds=bounds,
            mean_bounds={name: _mean(own) for name, own in bounds.items()},
        )

    def curves(self) -> dict[str, list[Curve]]:
        """The curves `image_roc`, `image_pr`, `pixel_roc`, `pixel_pr` and `pro` of each class."""
        counts = {"images": self.images.compute(), "pixels": self.pixels.compute()}
        return {
            name: [curve(own) for own in counts[state]] for name, (state, curve) in _CURVES.items()
        }

    def scores(self) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Index and score of every image over all processes; every process must call it."""
        return self.images.scores()


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


def _mean(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    numbers = [value for value in values if not math.isnan(value)]
    return math.fsum(numbers) / len(numbers) if numbers else math.nan
