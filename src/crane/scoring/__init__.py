"""From embeddings to scores and maps, in the order of the paper (sections 3.5 and 3.6).

Everything here runs in float32 at least, whatever precision the towers compute in.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from crane.types import ANOMALOUS

PatchLogits = Float[Tensor, "M B N 2"]
Map = Float[Tensor, "B H W"]
Aggregate = Callable[[PatchLogits, tuple[int, int], tuple[int, int]], Map]


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Turn autocast off for a block.

    bfloat16 has 8 bits of mantissa: similarities divided by 0.07 or 0.01 would be so coarse that
    images with different scores tie. It costs next to nothing: the towers take the time.
    """
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def _widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in float32; float64 stays as it is."""
    return tuple(t.to(torch.promote_types(t.dtype, torch.float32)) for t in tensors)


def similarity_logits(
    embeddings: Float[Tensor, "*M B N E"], text: Float[Tensor, "T 2 E"], temperature: float
) -> Float[Tensor, "*M B N 2"]:
    """Cosine similarities to [t_n, t_a], divided by the temperature.

    Args:
        embeddings: Unit-norm embeddings, N per image.
        text: Unit-norm sentences: a pair for each image (T = B), or one for all (T = 1).
        temperature: Divisor of the similarities: 0.07 for maps and scores, 0.01 in the image loss
            (spec, "Maps and scores", "Training").
    """
    with full_precision(embeddings.device):
        embeddings, text = _widened(embeddings, text)
        return embeddings @ text.transpose(1, 2).to(embeddings.dtype) / temperature


def image_logits(
    global_: Float[Tensor, "B E"], text: Float[Tensor, "T 2 E"], temperature: float
) -> Float[Tensor, "B 2"]:
    """Logits of whole images, in float64 and back.

    At a temperature of 0.01 the rounding of float32 would show in the sixth digit of a score.

    Args:
        global_: Unit-norm embeddings of images.
        text: Unit-norm sentences, as in `similarity_logits`.
        temperature: Divisor of cosine similarities.
    """
    with full_precision(global_.device):
        (wide,) = _widened(global_)
        logits = wide.double().unsqueeze(1) @ text.transpose(1, 2).double() / temperature
        return logits.squeeze(1).to(wide.dtype)


def image_probability(
    global_: Float[Tensor, "B E"], text: Float[Tensor, "T 2 E"], temperature: float
) -> Float[Tensor, " B"]:
    """Anomalous probability of whole images: softmax over the two sentences."""
    return image_logits(global_, text, temperature).softmax(dim=-1)[:, ANOMALOUS]


def fuse(
    global_: Float[Tensor, "B E"],
    patches: Float[Tensor, "M B N E"],
    logits: Float[Tensor, "M B N 2"],
    weight: float,
) -> Float[Tensor, "B E"]:
    """Local-to-global fusion: move the image's embedding towards its most anomalous patches.

    g⁺ = unit(weight · c + (1 − weight) · g) (paper section 3.5; spec, "Maps and scores").
    c = unit(Σ_i w_i p_i), where p_i is the mean over local embeddings of the i-th unit-norm patch,
    and w_i its anomalous probability under the mean of its logits.

    Args:
        global_: Unit-norm global embeddings g.
        patches: Unit-norm patches of each local embedding.
        logits: Their similarity logits.
        weight: Share of the patches; 0.5 in the paper. 0 turns fusion off: g⁺ = g.
    """
    if weight == 0.0:
        return global_
    anomalous = logits.mean(dim=0).softmax(dim=-1)[..., ANOMALOUS]
    with full_precision(global_.device):
        global_, patches = _widened(global_, patches)
        weighted = anomalous.to(patches.dtype).unsqueeze(1) @ patches.mean(dim=0)
        evidence = F.normalize(weighted.squeeze(1), dim=-1)
        return F.normalize(weight * evidence + (1.0 - weight) * global_, dim=-1)


def upsample(
    patches: Float[Tensor, "B N K"], grid: tuple[int, int], size: tuple[int, int], mode: str
) -> Float[Tensor, "B K H W"]:
    """Spread values of patches over pixels.

    Args:
        patches: K values of each patch, row-major.
        grid: Rows and columns of patches, h * w = N.
        size: Height and width of the result in pixels.
        mode: `nearest`, `bilinear` (align_corners=False), or `bilinear_corners` (True).
    """
    planes = patches.transpose(1, 2).unflatten(2, grid)
    if mode == "nearest":
        return F.interpolate(planes, size=size, mode=mode)
    corners = mode == "bilinear_corners"
    return F.interpolate(planes, size=size, mode="bilinear", align_corners=corners)


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
    """Smooth maps with a Gaussian, as `scipy.ndimage.gaussian_filter` does by default.

    Args:
        maps: Any values. The result stays within their range, even where the kernel's rounded
            weights add up to more than 1.
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
