"""Regions of labelled masks: their pixels, their areas, and bins of area."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int, Int64, Shaped
from torch import Tensor

from crane.errors import UsageError


def anomalous_pixels(
    mask: Shaped[Tensor, "H W"],
) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Find the anomalous pixels of one mask on the CPU.

    Returns:
        Their positions in the flattened mask, and the areas of their regions in pixels.

    >>> [found.tolist() for found in anomalous_pixels(torch.tensor([[1, 0, 2], [1, 0, 0]]))]
    [[0, 2, 3], [2, 1, 2]]
    """
    flat = mask.flatten().numpy()
    where = np.flatnonzero(flat != 0)
    numbers = flat[where]
    areas = np.bincount(numbers)[numbers] if len(where) else np.zeros(0, dtype=np.int64)
    return torch.from_numpy(where), torch.from_numpy(areas)


def pixel_areas(mask: Shaped[Tensor, "B H W"]) -> Int64[Tensor, "B H W"]:
    """Give each pixel the area of its region, 0 where normal.

    No shape depends on the values: an accelerator runs on without the host waiting for it.

    >>> pixel_areas(torch.tensor([[[1, 0, 2], [1, 0, 0]]]))
    tensor([[[2, 0, 1],
             [2, 0, 0]]])
    """
    num_images, height, width = mask.shape
    # 8-connected regions have a gap between them: at most one in each 2 x 2 block.
    num_numbers = ((height + 1) // 2) * ((width + 1) // 2) + 1
    first = torch.arange(num_images, device=mask.device) * num_numbers
    region = (mask.long() + first[:, None, None]).flatten()
    areas = torch.zeros(num_images * num_numbers, dtype=torch.int64, device=mask.device)
    areas.index_add_(0, region, (mask > 0).flatten().long())
    return areas.take(region).view(mask.shape)


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
