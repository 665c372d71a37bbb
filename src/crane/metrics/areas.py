"""Regions of labelled masks: their pixels, their areas, and bins of area."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from crane.errors import UsageError


class RegionPixels(NamedTuple):
    """The anomalous pixels of a batch; on an accelerator all pixels, normal ones with area 0."""

    where: Int[Tensor, " n"]
    """Position of each pixel in the flattened batch."""
    image: Int[Tensor, " n"]
    """Image of each pixel."""
    area: Int[Tensor, " n"]
    """Number of pixels of the pixel's region."""


def find_regions(mask: Int[Tensor, "B H W"], dense: bool) -> RegionPixels:
    """Find the pixels of regions and the areas of their regions.

    Args:
        mask: Region numbers, 0 where normal.
        dense: Keep all pixels, so that no size depends on the values: an accelerator then runs on
            without the host waiting for it.
    """
    flat, num_pixels = mask.flatten(), mask[0].numel()
    if dense:
        where = torch.arange(len(flat), device=mask.device)
        # 8-connected regions need a gap between them: at most one in each 2 x 2 block.
        num_regions = ((mask.shape[1] + 1) // 2) * ((mask.shape[2] + 1) // 2)
    else:
        # numpy finds the few anomalous pixels five times as fast as torch does.
        where = torch.from_numpy(np.flatnonzero(flat.numpy() != 0))
        num_regions = int(flat.take(where).amax()) if len(where) else 0
    image, number = where // num_pixels, flat.take(where)
    region = image * (num_regions + 1) + number
    areas = torch.zeros(len(mask) * (num_regions + 1), dtype=torch.int64, device=mask.device)
    areas.index_add_(0, region, (number > 0).long())
    return RegionPixels(where, image, areas.take(region))


def quantile_edges(areas: Sequence[int] | Int[np.ndarray, " n"], num_bins: int) -> tuple[int, ...]:
    """Edges in pixels that cut regions into bins of about equal number.

    Quantiles need all areas beforehand, which a pass over the masks gives; streaming metrics then
    take the edges in pixels.

    Args:
        areas: Area of each region, in pixels.
        num_bins: Number of bins wanted; fewer come out where many areas are equal.

    Raises:
        UsageError: If there is no area, or fewer than one bin is wanted.

    >>> quantile_edges([10, 20, 30, 40, 50, 60], num_bins=3)
    (27, 44)
    """
    if len(areas) == 0 or num_bins < 1:
        raise UsageError("at least one region and one bin", (len(areas), num_bins))
    cuts = np.quantile(areas, np.arange(1, num_bins) / num_bins)
    smallest = min(areas)
    return tuple(sorted({int(np.ceil(cut)) for cut in cuts if cut > smallest}))
