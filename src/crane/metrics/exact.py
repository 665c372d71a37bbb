"""The exact state of pixel and region metrics: every score."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from crane.metrics.areas import pixel_areas
from crane.metrics.counts import Counts, group_scores
from crane.metrics.pixels import Maps, PixelState


class ExactPixels(PixelState):
    """Exact state: every score is kept, and every distinct score is a threshold.

    Grows by 12 bytes a pixel: for small data and for tests.
    """

    score: list[Tensor]
    area: list[Tensor]
    class_id: list[Tensor]

    def __init__(
        self,
        num_classes: int,
        size_edges: Sequence[int] = (),
        names: Sequence[str] | None = None,
        **metric_options: Any,
    ) -> None:
        super().__init__(num_classes, size_edges, names=names, **metric_options)
        # All float32, which a process without images also sends as its empty share; float32 holds
        # areas up to 2**24 exactly.
        for name in ("score", "area", "class_id"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def count(self, maps: Maps) -> None:
        """Keep the scores of the maps, with the area of each pixel's region (0 where normal)."""
        class_id = maps.class_id[:, None, None].expand(maps.map.shape)[maps.counted]
        self.score.append(maps.map[maps.counted].flatten())
        self.area.append(pixel_areas(maps.mask[maps.counted]).flatten().float())
        self.class_id.append(class_id.flatten().float())

    def class_counts(self, class_id: int) -> Counts:
        """Every distinct score of one class, from the highest down."""
        states = (self.score, self.area, self.class_id)
        score, area, owner = (dim_zero_cat(s).cpu() if len(s) else torch.zeros(0) for s in states)
        own = owner == class_id
        size = self.size_bins(area[own].long()).numpy()
        areas = area[own].numpy().astype(np.float64)
        counts, group = group_scores(score[own].numpy(), areas > 0, unit="pixel")
        weight = np.divide(1, areas, out=np.zeros_like(areas), where=areas > 0)
        shape = (len(self.size_edges) + 1, len(counts.lower))
        place = size * shape[1] + group
        regions = np.bincount(place, weight, minlength=shape[0] * shape[1]).reshape(shape)
        return counts._replace(
            regions=regions, num_regions=regions.sum(axis=1).round().astype(np.int64)
        )
