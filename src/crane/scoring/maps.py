"""From patch logits to anomaly maps of the image's size."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from crane.scoring.precision import full_precision
from crane.types import ANOMALOUS

PatchLogits = Float[Tensor, "M B N 2"]
Map = Float[Tensor, "B H W"]
Aggregate = Callable[[PatchLogits, tuple[int, int], tuple[int, int]], Map]


def upsample(
    patches: Float[Tensor, "B N K"], grid: tuple[int, int], size: tuple[int, int], mode: str
) -> Float[Tensor, "B K H W"]:
    """Values of patches at each pixel.

    Args:
        patches: K values of each patch, row-major.
        grid: Rows and columns of patches, h * w = N.
        size: Height and width of the result in pixels.
        mode: `bilinear` (align_corners=False) or `nearest`.
    """
    planes = patches.transpose(1, 2).unflatten(2, grid)
    align_corners = False if mode == "bilinear" else None
    return F.interpolate(planes, size=size, mode=mode, align_corners=align_corners)


def mean_of_softmax_maps(logits: PatchLogits, grid: tuple[int, int], size: tuple[int, int]) -> Map:
    """The mean over local embeddings of anomalous probabilities, each upsampled.

    Published for Crane, and for Crane+ on medical sets and DAGM (spec, "Published evaluation").
    Probabilities are averaged before they are upsampled, which is linear: the result is the same.
    """
    probabilities = logits.softmax(dim=-1)[..., ANOMALOUS].mean(dim=0)
    return upsample(probabilities.unsqueeze(-1), grid, size, "bilinear").squeeze(1)


def softmax_of_mean_logits(
    logits: PatchLogits, grid: tuple[int, int], size: tuple[int, int]
) -> Map:
    """The anomalous probability under the upsampled mean over local embeddings of logits.

    Published for Crane+ on industrial sets (spec, "Published evaluation").
    """
    return upsample(logits.mean(dim=0), grid, size, "bilinear").softmax(dim=1)[:, ANOMALOUS]


def gaussian_blur(maps: Map, sigma: float) -> Map:
    """Maps smoothed by a Gaussian, as `scipy.ndimage.gaussian_filter` does by default.

    Args:
        maps: Any values. No mean is beyond them, also where the kernel's weights, rounded, add up
            to more than 1.
        sigma: Standard deviation in pixels; 4 in the paper, 0 leaves the maps as they are. The
            kernel is cut at 4 sigma, and borders are reflected about the edge of the last pixel.
    """
    if sigma == 0.0:
        return maps
    radius = int(4.0 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(maps.dtype)
    planes = maps.unsqueeze(1)
    for axis, shape in ((2, (1, 1, -1, 1)), (3, (1, 1, 1, -1))):
        mirrored = planes.index_select(axis, _mirrored(planes.shape[axis], radius, maps.device))
        with full_precision(maps.device):
            planes = F.conv2d(mirrored, kernel.view(shape))
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return planes.squeeze(1).clamp(low, high)


def _mirrored(length: int, radius: int, device: torch.device) -> Tensor:
    """Indices of an axis continued by `radius` on both sides: d c b a | a b c d | d c b a."""
    position = torch.arange(-radius, length + radius, device=device) % (2 * length)
    return torch.minimum(position, 2 * length - 1 - position)
