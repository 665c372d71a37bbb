"""The streaming state of pixel and region metrics: counts of constant size."""

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from crane.errors import UsageError
from crane.metrics.areas import anomalous_pixels, pixel_areas
from crane.metrics.checks import FiniteMetric, check_classes
from crane.metrics.counts import Counts
from crane.metrics.scale import ScoreScale

_CHUNK = (1 << 15) - 1
"""Pixels binned at a time on the CPU: they stay in the cache, and torch does not spread so few over
threads, which would wait for each other at every step wherever the cores are busy loading."""


class Maps(NamedTuple):
    """Maps that count, as the states take them in."""

    map: Float[Tensor, "B H W"]
    mask: Int[Tensor, "B H W"]
    class_id: Int[Tensor, " B"]
    counted: Bool[Tensor, " B"]
    """False for maps without a mask; on the CPU these are gone already."""
    lowest: Float[Tensor, " B"]
    highest: Float[Tensor, " B"]


class PixelState(FiniteMetric):
    """What every pixel state shares: input, checks, and regions in bins of size.

    Args:
        num_classes: Number of classes of the data set.
        size_edges: Rising areas in pixels that cut regions into bins of size: the first bin holds
            regions smaller than the first edge. Empty for a single bin.
        names: Name of each image by its index, for error messages.
        **metric_options: Options of `torchmetrics.Metric`.

    Raises:
        UsageError: If the edges are not rising and positive.
    """

    checked = "map"

    def __init__(
        self,
        num_classes: int,
        size_edges: Sequence[int] = (),
        names: Sequence[str] | None = None,
        **metric_options: Any,
    ) -> None:
        super().__init__(num_classes, names=names, **metric_options)
        edges = [0, *size_edges]
        if any(low >= high for low, high in itertools.pairwise(edges)):
            raise UsageError(
                "rising positive areas", tuple(size_edges), key="metrics.pixels.size_edges"
            )
        self.size_edges = tuple(size_edges)

    def update(
        self,
        map: Float[Tensor, "B H W"],
        mask: Shaped[Tensor, "B H W"],
        class_id: Int[Tensor, " B"] | None = None,
        has_mask: Bool[Tensor, " B"] | None = None,
        index: Int[Tensor, " B"] | None = None,
    ) -> None:
        """Add maps and masks.

        Args:
            map: Anomaly score of each pixel.
            mask: 0 where normal, r > 0 on the r-th 8-connected region of that image (integers).
            class_id: Class of each image; None if there is one class.
            has_mask: Whether the image's mask is known; one without is left out. None if all are.
            index: Position of each image in its data set, as errors name it; None to name it by
                its place in the batch.

        Raises:
            UsageError: If a map holds NaN or infinity, a class is not below `num_classes`, or a
                mask has no region numbers.
        """
        device = map.device
        if mask.dtype == torch.bool or mask.is_floating_point():
            raise UsageError("masks of region numbers (integers)", str(mask.dtype))
        if len(map) == 0:
            return
        ones = torch.ones(len(map), dtype=torch.bool, device=device)
        class_id = torch.zeros_like(ones) if class_id is None else class_id
        class_id = class_id.long()
        index = torch.arange(len(map), device=device) if index is None else index
        map = map.detach().float()
        lowest, highest = _ends(map.flatten(1))
        self.note_broken(~(lowest.isfinite() & highest.isfinite()), index)
        maps = Maps(map, mask, class_id, ones if has_mask is None else has_mask, lowest, highest)
        if device.type == "cpu":
            check_classes(class_id, self.num_classes)
            if not maps.counted.all():
                maps = Maps(*(part[maps.counted] for part in maps))
        if len(maps.map):
            self.count(maps)

    @abstractmethod
    def count(self, maps: Maps) -> None:
        """Add maps to the state."""

    @abstractmethod
    def class_counts(self, class_id: int) -> Counts:
        """Return the counts of one class."""

    def compute(self) -> Any:
        """Return the counts of each class, over all processes."""
        self.refuse_broken()
        return [self.class_counts(class_id) for class_id in range(self.num_classes)]

    def size_bins(self, area: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Return the size bin of each area."""
        bins = torch.zeros_like(area)
        for edge in self.size_edges:
            bins.add_(area >= edge)
        return bins


def _ends(scores: Float[Tensor, "B P"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Find the lowest and highest score of each map; NaN where it holds one."""
    if scores.device.type != "cpu":
        return scores.amin(dim=1), scores.amax(dim=1)
    array = scores.numpy()  # whose one thread does not wait for busy cores
    return torch.from_numpy(array.min(axis=1)), torch.from_numpy(array.max(axis=1))


class BinnedPixels(PixelState):
    """Streaming state: counts per class and bin of score, of constant size.

    Bytes per class: 8 times the number of bins times 2 plus the number of size bins.

    Args:
        num_classes: Number of classes of the data set.
        scale: The bins of scores.
        size_edges: See `PixelState`.
        names: See `PixelState`.
        **metric_options: Options of `torchmetrics.Metric`.
    """

    total: Tensor
    positives: Tensor
    regions: Tensor
    num_regions: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(
        self,
        num_classes: int,
        scale: ScoreScale,
        size_edges: Sequence[int] = (),
        names: Sequence[str] | None = None,
        **metric_options: Any,
    ) -> None:
        super().__init__(num_classes, size_edges, names=names, **metric_options)
        self.scale = scale
        num_sizes, bins = len(size_edges) + 1, scale.num_bins
        for name, shape, dtype in (
            ("total", (num_classes, bins), np.int64),
            ("positives", (num_classes, bins), np.int64),
            ("regions", (num_classes, num_sizes, bins), np.float64),
            ("num_regions", (num_classes, num_sizes), np.float64),
        ):
            self.add_zeros(name, shape, dtype)
        for name, start, reduction in (
            ("lowest", torch.inf, "min"),
            ("highest", -torch.inf, "max"),
        ):
            self.add_state(name, torch.full((num_classes,), start), dist_reduce_fx=reduction)

    def count(self, maps: Maps) -> None:
        """Add maps: one pass over all pixels, one over the anomalous ones."""
        lowest = torch.where(maps.counted, maps.lowest, torch.inf)
        self.lowest.scatter_reduce_(0, maps.class_id, lowest, "amin")
        highest = torch.where(maps.counted, maps.highest, -torch.inf)
        self.highest.scatter_reduce_(0, maps.class_id, highest, "amax")
        if maps.map.device.type == "cpu":
            for map, mask, class_id in zip(maps.map, maps.mask, maps.class_id, strict=True):
                self._count_image(map, mask, class_id)
        else:
            self._count_batch(maps)

    def _count_image(
        self, map: Float[Tensor, "H W"], mask: Shaped[Tensor, "H W"], class_id: Int[Tensor, ""]
    ) -> None:
        """Add one map on the CPU, where picking out the anomalous pixels costs little."""
        scores, one = map.flatten(), torch.ones(1, dtype=torch.int64)
        for part in scores.split(_CHUNK):
            self.total[class_id].index_add_(0, self.scale.bins(part), one.expand(len(part)))
        for where, area in zip(*(p.split(_CHUNK) for p in anomalous_pixels(mask)), strict=True):
            bins = self.scale.bins(scores.index_select(0, where))
            self._count_anomalous(bins, class_id, area, one.expand(len(area)))

    def _count_batch(self, maps: Maps) -> None:
        """Add all maps at once, without reading anything back from an accelerator."""
        bins = self.scale.bins(maps.map)
        owner = maps.class_id[:, None, None].expand(bins.shape)
        counted = maps.counted[:, None, None].expand(bins.shape)
        place = (bins + owner * self.scale.num_bins).flatten()
        self.total.view(-1).index_add_(0, place, counted.flatten().long())
        area = pixel_areas(maps.mask)
        self._count_anomalous(
            bins.flatten(), owner.flatten(), area.flatten(), (counted & (area > 0)).flatten().long()
        )

    def _count_anomalous(
        self,
        bins: Int[Tensor, " n"],
        owner: Int[Tensor, "*one_or_n"],
        area: Int[Tensor, " n"],
        counted: Int[Tensor, " n"],
    ) -> None:
        """Add pixels of regions of an area, of a class each or of one class."""
        num_bins, num_sizes = self.scale.num_bins, len(self.size_edges) + 1
        self.positives.view(-1).index_add_(0, bins + owner * num_bins, counted)
        row = owner * num_sizes + self.size_bins(area)
        weight = counted / area.clamp(min=1).double()
        self.regions.view(-1).index_add_(0, bins + row * num_bins, weight)
        self.num_regions.view(-1).index_add_(0, row, weight)

    def class_counts(self, class_id: int) -> Counts:
        """Return the occupied bins of one class, from the highest down."""
        total = self.total[class_id].cpu().numpy()
        occupied = np.flatnonzero(total)[::-1]
        lower, upper = (edge[occupied].astype(np.float64) for edge in self.scale.edges())
        positives = self.positives[class_id].cpu().numpy()[occupied]
        return Counts(
            lower=np.maximum(lower, float(self.lowest[class_id])),
            upper=np.minimum(upper, float(self.highest[class_id])),
            negatives=total[occupied] - positives,
            positives=positives,
            regions=self.regions[class_id].cpu().numpy().take(occupied, axis=1),
            num_regions=self.num_regions[class_id].cpu().numpy().round().astype(np.int64),
            unit="pixel",
        )
