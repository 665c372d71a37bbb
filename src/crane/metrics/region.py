"""Regions of masks: their areas, and AUPRO, exactly and as published.

The per-region overlap (PRO) at a threshold is the fraction of a region's pixels above it, averaged
over regions, whatever their size. The average is linear in the pixels: a pixel of a region of A
pixels counts 1/A. So sums of these weights per group of scores hold the whole curve.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor

from crane.checks import Ge, Interval, NonNegativeInt, PositiveInt, checked
from crane.errors import UsageError
from crane.metrics.counts import Counts, Value, missing_region, undefined
from crane.metrics.direct import of_scores_too

Rate = Annotated[float, Interval(gt=0, le=1)]
"""A false-positive rate up to which a curve counts."""

LIMIT = 0.3
"""The usual one: Bergmann et al., "The MVTec Anomaly Detection Dataset" (IJCV 2021)."""


@of_scores_too(needs_regions=True)
@checked
def aupro(counts: Counts, limit: Rate = LIMIT, size_bin: NonNegativeInt | None = None) -> Value:
    """Area under the PRO curve up to a false-positive rate, divided by that rate.

    Every distinct score is a threshold; the curve is cut at the limit by linear interpolation.

    Args:
        counts: One class's counts.
        limit: False-positive rate at which the curve is cut, in (0, 1].
        size_bin: Only regions of this size bin count; None for all regions.

    Raises:
        UsageError: The limit or the size bin is out of range.

    >>> maps = torch.tensor([[[0.9, 0.1, 0.3], [0.8, 0.2, 0.7]]])
    >>> masks = torch.tensor([[[True, False, False], [True, False, True]]])
    >>> aupro(maps, masks)  # with counts in their place, the result is a `Value`
    tensor(1.)
    """
    num_size_bins = len(counts.num_regions)
    if size_bin is not None and size_bin >= num_size_bins:
        raise UsageError(
            f"size_bin must be below {num_size_bins}, the number of size bins, not {size_bin}; "
            "metrics.pixels.size_edges sets them",
            key="metrics.pixels.size_edges",
        )
    if reason := missing_region(counts, size_bin):
        return undefined(reason)
    reached = np.cumsum(counts.negatives)
    allowed = limit * reached[-1]
    # The group in which the curve passes the limit: only its part below the limit counts.
    last = int(np.searchsorted(reached, allowed))
    false = counts.negatives[: last + 1].astype(np.float64)
    false[last] -= reached[last] - allowed
    overlap = _weights(counts, size_bin)[: last + 1]
    before = np.cumsum(overlap) - overlap
    cut = overlap.copy()
    cut[last] *= false[last] / counts.negatives[last]
    value = float((false * (before + cut / 2)).sum() / allowed)
    # Inside a group any monotone path joins the ends: at worst right then up, at best up first.
    open_ = ~counts.tied[: last + 1]
    false, overlap, cut = false[open_], overlap[open_], cut[open_]
    below = float((false * cut).sum() / 2 / allowed)
    above = float((false * (overlap - cut / 2)).sum() / allowed)
    return Value(value, value - below, value + above)


def _weights(counts: Counts, size_bin: int | None) -> Float[np.ndarray, " K"]:
    """How much each group adds to the mean overlap of the chosen regions."""
    chosen = slice(None) if size_bin is None else slice(size_bin, size_bin + 1)
    return counts.regions[chosen].sum(axis=0) / counts.num_regions[chosen].sum()


class _Points(NamedTuple):
    """FPR and PRO at falling thresholds, with bounds."""

    fpr: Float[np.ndarray, " T"]
    fpr_low: Float[np.ndarray, " T"]
    fpr_high: Float[np.ndarray, " T"]
    pro: Float[np.ndarray, " T"]
    pro_low: Float[np.ndarray, " T"]
    pro_high: Float[np.ndarray, " T"]


@of_scores_too(needs_regions=True)
@checked
def aupro_steps(counts: Counts, limit: Rate, num_steps: Annotated[int, Ge(2)]) -> Value:
    """AUPRO as the published evaluation computes it.

    `num_steps` equally spaced thresholds from the class's lowest score up to, not including, its
    highest; those with an FPR below the limit are kept; FPRs are rescaled to [0, 1] by their own
    lowest and highest; the area is summed by trapezoids (spec: "Published evaluation"). Nothing
    represents the curve between FPR 0 and its first kept point, nor between its last one and the
    limit, so on saturated maps, where few thresholds are kept, the value means little.

    The thresholds need the class's lowest and highest score, which the streaming state holds
    beside the counts; no second pass is needed. A threshold inside a bin leaves open how many of
    the bin's pixels lie above it: the interval covers all cases.

    Args:
        counts: One class's counts.
        limit: False-positive rate below which thresholds are kept, in (0, 1].
        num_steps: Number of thresholds, at least 2.

    Raises:
        UsageError: The limit or the number of steps is out of range.
    """
    if reason := missing_region(counts, None):
        return undefined(reason)
    lowest, highest = float(counts.lower[-1]), float(counts.upper[0])
    if lowest == highest:
        return undefined("all scores are equal")
    thresholds = lowest + np.arange(num_steps) * ((highest - lowest) / num_steps)
    # Compared in float32, as the maps are.
    points = _at_thresholds(counts, thresholds.astype(np.float32).astype(np.float64))
    num_kept = int((points.fpr < limit).sum())
    if num_kept < 2 or points.fpr[num_kept - 1] == points.fpr[0]:
        return undefined(f"fewer than two of the {num_steps} thresholds have an FPR below {limit}")
    fpr = points.fpr[:num_kept]
    value = _area(_rescale(fpr, fpr[0], fpr[-1], empty=0.0), points.pro[:num_kept])
    low, high = value, value
    fewest, most = int((points.fpr_high < limit).sum()), int((points.fpr_low < limit).sum())
    for kept in range(fewest, most + 1):
        bounds = _area_bounds(points, kept)
        low, high = min(low, bounds[0]), max(high, bounds[1])
    return Value(value, low, high)


def _at_thresholds(counts: Counts, rising: Float[np.ndarray, " T"]) -> _Points:
    thresholds = rising[::-1]
    # Groups wholly above a threshold come first, then at most one that straddles it.
    above: Int[np.ndarray, " T"] = np.searchsorted(-counts.lower, -thresholds, side="left")
    touched: Int[np.ndarray, " T"] = np.searchsorted(-counts.upper, -thresholds, side="left")
    inside = np.minimum(above, len(counts.lower) - 1)
    lower, upper = counts.lower[inside], counts.upper[inside]
    part = np.clip((upper - thresholds) / np.where(upper > lower, upper - lower, 1), 0, 1)
    part = np.where(touched > above, part, 0)
    curves = []
    for amounts in (counts.negatives / counts.negatives.sum(), _weights(counts, None)):
        total = np.append(0.0, np.cumsum(amounts))
        low, high = total[above], total[touched]
        curves += [low + part * (high - low), low, high]
    return _Points(*curves)


def _area_bounds(points: _Points, kept: int) -> tuple[float, float]:
    """Bounds on the published area if the first `kept` thresholds are those below the limit.

    The area grows with every PRO and, as the curve never falls, shrinks with every rescaled FPR.
    """
    if kept < 2:
        return 0.0, 1.0
    last = kept - 1
    # (f - first) / (last - first) falls in both ends of the range it is rescaled by.
    fpr_high = _rescale(points.fpr_high[:kept], points.fpr_low[0], points.fpr_low[last], empty=1.0)
    fpr_low = _rescale(points.fpr_low[:kept], points.fpr_high[0], points.fpr_high[last], empty=0.0)
    for fpr in (fpr_low, fpr_high):
        fpr[0], fpr[-1] = 0.0, 1.0
    return (
        _area(fpr_high, points.pro_low[:kept]),
        _area(fpr_low, points.pro_high[:kept]),
    )


def _rescale(
    fpr: Float[np.ndarray, " T"], first: float, last: float, empty: float
) -> Float[np.ndarray, " T"]:
    if last <= first:
        return np.full_like(fpr, empty)
    return np.clip((fpr - first) / (last - first), 0, 1)


def _area(x: Float[np.ndarray, " T"], y: Float[np.ndarray, " T"]) -> float:
    return float((np.diff(x) * (y[1:] + y[:-1])).sum() / 2)


def anomalous_pixels(
    mask: Shaped[Tensor, "H W"],
) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Find the anomalous pixels of one mask on the CPU.

    Args:
        mask: 0 where normal, r > 0 on the r-th region (integers).

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
    """The area of each pixel's region in pixels, 0 where normal.

    No shape depends on the values, so the host need not wait for an accelerator.

    Args:
        mask: 0 where normal, r > 0 on the r-th region of that image (integers).

    >>> pixel_areas(torch.tensor([[[1, 0, 2], [1, 0, 0]]]))
    tensor([[[2, 0, 1],
             [2, 0, 0]]])
    """
    num_images, height, width = mask.shape
    num_numbers = height * width + 1
    first = torch.arange(num_images, device=mask.device) * num_numbers
    region = (mask.long() + first[:, None, None]).flatten()
    areas = torch.zeros(num_images * num_numbers, dtype=torch.int64, device=mask.device)
    areas.index_add_(0, region, (mask > 0).flatten().long())
    return areas.take(region).view(mask.shape)


@checked
def quantile_edges(
    areas: Sequence[int] | Int[np.ndarray, " n"], num_bins: PositiveInt
) -> tuple[int, ...]:
    """Edges in pixels that divide regions into bins of about equal number.

    Quantiles need all areas beforehand, from a pass over the masks; streaming metrics then take
    the edges in pixels.

    Args:
        areas: Area of each region, in pixels.
        num_bins: Number of bins; fewer are returned where many areas are equal.

    Raises:
        UsageError: There is no area, or `num_bins` is less than 1.

    >>> quantile_edges([10, 20, 30, 40, 50, 60], num_bins=3)
    (27, 44)
    """
    if len(areas) == 0:
        raise UsageError("quantiles of areas need at least one region")
    cuts = np.quantile(areas, np.arange(1, num_bins) / num_bins)
    smallest = min(areas)
    return tuple(sorted({int(np.ceil(cut)) for cut in cuts if cut > smallest}))
