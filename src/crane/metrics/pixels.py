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
from crane.metrics.areas import find_regions
from crane.metrics.checks import FiniteMetric, check_classes
from crane.metrics.counts import Counts
from crane.metrics.scale import ScoreScale


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
        ones = torch.ones(len(map), dtype=torch.bool, device=device)
        class_id = torch.zeros_like(ones, dtype=torch.int64) if class_id is None else class_id
        index = torch.arange(len(map), device=device) if index is None else index
        if len(map) == 0:
            return
        map = map.detach().float()
        lowest, highest = map.amin(dim=(1, 2)), map.amax(dim=(1, 2))
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
        edges = torch.tensor(self.size_edges, dtype=area.dtype, device=area.device)
        return torch.bucketize(area, edges, right=True)


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
            ("total", (num_classes, bins), torch.int64),
            ("positives", (num_classes, bins), torch.int64),
            ("regions", (num_classes, num_sizes, bins), torch.float64),
            ("num_regions", (num_classes, num_sizes), torch.float64),
        ):
            # An expanded zero: the default that `reset` copies needs no memory of its own.
            zeros = torch.zeros((1,) * len(shape), dtype=dtype).expand(shape)
            self.add_state(name, zeros, dist_reduce_fx="sum")
        for name, start, reduction in (
            ("lowest", torch.inf, "min"),
            ("highest", -torch.inf, "max"),
        ):
            self.add_state(name, torch.full((num_classes,), start), dist_reduce_fx=reduction)
        self.reset()

    def count(self, maps: Maps) -> None:
        """Add maps: one pass over all pixels, one over the anomalous ones.

        On the CPU one image after the other, which stays in the cache; on an accelerator all at
        once, without reading anything back.
        """
        if maps.map.device.type != "cpu":
            self._count(maps, dense=True)
            return
        for i in range(len(maps.map)):
            self._count(Maps(*(part[i : i + 1] for part in maps)), dense=False)

    def _count(self, maps: Maps, dense: bool) -> None:
        class_id, num_bins = maps.class_id.to(torch.int32), self.scale.num_bins
        bins = self.scale.bins(maps.map).add_((class_id * num_bins)[:, None, None]).flatten()
        counted = maps.counted.long()[:, None].expand(-1, maps.map[0].numel())
        # Of one image the expanded ones need no copy.
        self.total.view(-1).index_add_(0, bins, counted.flatten() if dense else counted[0])
        lowest = torch.where(maps.counted, maps.lowest, torch.inf)
        self.lowest.scatter_reduce_(0, maps.class_id, lowest, "amin")
        highest = torch.where(maps.counted, maps.highest, -torch.inf)
        self.highest.scatter_reduce_(0, maps.class_id, highest, "amax")

        regions = find_regions(maps.mask, dense)
        bins, owner = bins.take(regions.where), class_id.take(regions.image)
        anomalous = ((regions.area > 0) & maps.counted.take(regions.image)).long()
        self.positives.view(-1).index_add_(0, bins, anomalous)
        size, num_sizes = self.size_bins(regions.area), len(self.size_edges) + 1
        weight = anomalous / regions.area.clamp(min=1).double()
        # Class c starts at row c of the bins, and at row c * num_sizes of the regions.
        row = owner * (num_sizes - 1) + size
        self.regions.view(-1).index_add_(0, bins + row * num_bins, weight)
        self.num_regions.view(-1).index_add_(0, row + owner, weight)

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
            regions=self.regions[class_id].cpu().numpy()[:, occupied],
            num_regions=self.num_regions[class_id].cpu().numpy().round().astype(np.int64),
            unit="pixel",
        )
