"""The states of pixel and region metrics: streaming counts of constant size, or every score."""

import itertools
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from crane.checks import PositiveInt, checked
from crane.errors import UsageError
from crane.metrics.counts import Counts, group_scores, with_ties
from crane.metrics.direct import region_numbers
from crane.metrics.region import anomalous_pixels, pixel_areas
from crane.metrics.scale import ScoreScale
from crane.metrics.state import FiniteMetric, check_classes, image_name

_CHUNK = (1 << 15) - 1
"""Pixels binned at a time on the CPU: they stay in the cache, and torch does not split so few among
threads, which would wait for each other at every step while the cores are busy loading."""


DEFAULT_SCALE = ScoreScale(octave_bits=10, linear_bits=17)
"""The bins that `conf/metrics/default.yaml` names."""


class Maps(NamedTuple):
    """A checked batch of maps, as the states count them."""

    map: Float[Tensor, "B H W"]
    """Anomaly score of each pixel."""
    mask: Int[Tensor, "B H W"]
    """0 where normal, r > 0 on the r-th region of that image."""
    class_id: Int[Tensor, " B"]
    """Class of each image."""
    counted: Bool[Tensor, " B"]
    """Whether the mask is known; on the CPU the others have already been removed."""
    lowest: Float[Tensor, " B"]
    """Lowest score of each map."""
    highest: Float[Tensor, " B"]
    """Highest score of each map."""


class PixelState(FiniteMetric):
    """What every pixel state shares: its input, checks, and size bins of regions.

    Args:
        num_classes: Number of classes of the data set.
        size_edges: Increasing areas in pixels that divide regions into size bins: the first bin
            holds regions smaller than the first edge. Empty for a single bin.
        names: Name of each image by its index, for error messages.
        **metric_options: Options of `torchmetrics.Metric`.

    Raises:
        UsageError: The edges do not increase.
    """

    scored = "map"

    @checked
    def __init__(
        self,
        num_classes: PositiveInt = 1,
        size_edges: Sequence[PositiveInt] = (),
        names: Sequence[str] | None = None,
        **metric_options: Any,
    ) -> None:
        super().__init__(num_classes, names=names, **metric_options)
        if any(low >= high for low, high in itertools.pairwise(size_edges)):
            raise UsageError(
                f"must increase, but are {list(size_edges)}", key="metrics.pixels.size_edges"
            )
        self.size_edges = tuple(size_edges)

    def update(
        self,
        map: Float[Tensor, "B H W"],
        mask: Shaped[Tensor, "B H W"],
        class_id: Int[Tensor, " B"] | None = None,
        has_mask: Bool[Tensor, " B"] | None = None,
        index: Int[Tensor, " B"] | None = None,
        *,
        labelled: bool = False,
    ) -> None:
        """Add maps and masks.

        Args:
            map: Anomaly score of each pixel.
            mask: True and false, 0 and 1, or region numbers; see `region_numbers`.
            class_id: Class of each image; None if there is one class.
            has_mask: Whether the image's mask is known; images without one are left out. None if
                all are known.
            index: Position of each image in its data set, for error messages; None for its
                position in the batch.
            labelled: Whether masks are known to hold 0 where normal and r > 0 on the r-th region
                of that image (integers); they are then not looked at again.

        Raises:
            UsageError: A map holds NaN or infinity, a class is not below `num_classes`, or masks
                hold something else.
        """
        if len(map) == 0:
            return
        device = self.first_broken.device
        class_id, has_mask, index = (
            None if one is None else one.to(device, non_blocking=True)
            for one in (class_id, has_mask, index)
        )
        if not labelled:
            numbers = range(len(map)) if index is None else index.tolist()
            mask = region_numbers(mask, lambda place: image_name(numbers[place], self.names))
        mask = mask.to(device)
        ones = torch.ones(len(map), dtype=torch.bool, device=device)
        class_id = torch.zeros_like(ones) if class_id is None else class_id
        class_id = class_id.long()
        index = torch.arange(len(map), device=device) if index is None else index
        map = map.detach().float().to(device)
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
        """The counts of one class."""

    def compute(self) -> Any:
        """The counts of each class, over all processes.

        Raises:
            UsageError: A map held NaN or infinity.
        """
        self.refuse_broken()
        return [self.class_counts(class_id) for class_id in range(self.num_classes)]

    def size_bins(self, area: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """The size bin of each area."""
        bins = torch.zeros_like(area)
        for edge in self.size_edges:
            bins.add_(area >= edge)
        return bins


def _ends(scores: Float[Tensor, "B P"]) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """The lowest and highest score of each map; NaN where it holds one."""
    if scores.device.type != "cpu":
        return scores.amin(dim=1), scores.amax(dim=1)
    array = scores.numpy()  # uses one thread, which does not wait for busy cores
    return torch.from_numpy(array.min(axis=1)), torch.from_numpy(array.max(axis=1))


class BinnedPixels(PixelState):
    """Streaming state: counts per class and bin of score, of constant size.

    Takes 8 x bins x (2 + size bins) bytes per class.

    Args:
        num_classes: Number of classes of the data set.
        scale: The bins of scores; the default is the configuration's.
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
        num_classes: PositiveInt = 1,
        scale: ScoreScale = DEFAULT_SCALE,
        size_edges: Sequence[PositiveInt] = (),
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
        """Add one map on the CPU, where selecting the anomalous pixels costs little."""
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
        """Add anomalous pixels, each with its region's area and its class, or all of one class."""
        num_bins, num_sizes = self.scale.num_bins, len(self.size_edges) + 1
        self.positives.view(-1).index_add_(0, bins + owner * num_bins, counted)
        row = owner * num_sizes + self.size_bins(area)
        weight = counted / area.clamp(min=1).double()
        self.regions.view(-1).index_add_(0, bins + row * num_bins, weight)
        self.num_regions.view(-1).index_add_(0, row, weight)

    def class_counts(self, class_id: int) -> Counts:
        """The occupied bins of one class, from the highest down."""
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


class ExactPixels(PixelState):
    """Exact state: every score is kept, and every distinct score is a threshold.

    Grows by 12 bytes per pixel: for small data and for tests.

    Args:
        num_classes: Number of classes of the data set.
        size_edges: See `PixelState`.
        names: See `PixelState`.
        **metric_options: Options of `torchmetrics.Metric`.
    """

    score: list[Tensor]
    area: list[Tensor]
    class_id: list[Tensor]

    def __init__(
        self,
        num_classes: PositiveInt = 1,
        size_edges: Sequence[PositiveInt] = (),
        names: Sequence[str] | None = None,
        **metric_options: Any,
    ) -> None:
        super().__init__(num_classes, size_edges, names=names, **metric_options)
        # All float32, as is the empty share that a process without images sends; float32 holds
        # areas up to 2**24 exactly.
        for name in ("score", "area", "class_id"):
            self.add_state(name, [], dist_reduce_fx="cat")

    @property
    def unit(self) -> str:
        """What is scored, for reasons."""
        return "pixel"

    def count(self, maps: Maps) -> None:
        """Keep the scores of the maps, with the area of each pixel's region (0 where normal)."""
        # Selecting the counted maps would make an accelerator's host wait: -1 is no class.
        own = torch.where(maps.counted, maps.class_id, -1)
        class_id = own[:, None, None].expand(maps.map.shape)
        self.score.append(maps.map.flatten())
        self.area.append(pixel_areas(maps.mask).flatten().float())
        self.class_id.append(class_id.flatten().float())

    def class_counts(self, class_id: int) -> Counts:
        """Every distinct score of one class, from the highest down."""
        states = (self.score, self.area, self.class_id)
        score, area, owner = (dim_zero_cat(s).cpu() if len(s) else torch.zeros(0) for s in states)
        own = owner == class_id
        size = self.size_bins(area[own].long()).numpy()
        areas = area[own].numpy().astype(np.float64)
        scores = score[own].numpy()
        scores = with_ties(scores) if self.unit == "image" else scores
        counts, group = group_scores(scores, areas > 0, unit=self.unit)
        weight = np.divide(1, areas, out=np.zeros_like(areas), where=areas > 0)
        shape = (len(self.size_edges) + 1, len(counts.lower))
        place = size * shape[1] + group
        regions = np.bincount(place, weight, minlength=shape[0] * shape[1]).reshape(shape)
        return counts._replace(
            regions=regions, num_regions=regions.sum(axis=1).round().astype(np.int64)
        )
