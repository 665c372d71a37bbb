"""A detector as one graph: camera images in, scores, maps and verdicts out.

Resizing is two matrix products whose weights the graph computes from the size of the image. They
round where PIL and torch round, so the graph sees the same 8-bit pixels as `image_to_tensor`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from crane.backbones import VisionTower
from crane.data.images import EXACT
from crane.methods import Detector
from crane.prediction.calibration import Threshold

PIL_UNIT = float(1 << 22)
"""PIL's weights are whole multiples of 1 / PIL_UNIT."""


OUTPUTS = ("score", "map")
"""Outputs of the graph: (B,) and, at the size of the images, (B, H, W)."""
DECIDED = (*OUTPUTS, "is_anomalous", "mask")
"""With a threshold: whether the score reaches it, and the pixels that reach the pixel threshold."""


class OneGraph(nn.Module):
    """Resizing, towers, text, scoring, maps and verdict of a detector.

    Args:
        model: The detector; `exportable` has made sure that it is one graph.
        text: What `encode_classes` gave for the one class.
        image_size: Side of the square that the towers see, in pixels.
        resizer: One of `crane.data.images.RESIZERS`.
        threshold: What decides; None leaves the verdict out.
    """

    def __init__(
        self,
        model: Detector[Any, Any],
        text: Tensor | None,
        *,
        image_size: int,
        resizer: str,
        threshold: Threshold | None,
    ) -> None:
        super().__init__()
        self.model, self.image_size = model, image_size
        self.resizer, self.threshold = resizer, threshold
        self.register_buffer("text", text)

    def forward(self, images: UInt8[Tensor, "B H W 3"]) -> dict[str, Tensor]:
        """Score camera images.

        Args:
            images: RGB, upright.

        Returns:
            `OUTPUTS`, or with a threshold `DECIDED`, in their order.
        """
        batch, height, width, _ = images.shape
        side = self.image_size
        pixels = resized_like(self.resizer, images.permute(0, 3, 1, 2), side) / 255
        dtype = next(self.model.parameters()).dtype
        features = self.model.encode(pixels.to(dtype))
        class_id = torch.zeros(batch, dtype=torch.int64, device=images.device)
        score, small = self.model.predict(features, self.text, class_id, (side, side))
        score, small = score.float(), small.float()
        rows, columns = (
            weights(length_of(small, side), length_of(small, to), side, to, "linear").float()
            for to in (height, width)
        )
        low, high = small.amin((1, 2), keepdim=True), small.amax((1, 2), keepdim=True)
        # Weights that sum to one up to rounding may leave the range by one float.
        map = (rows @ (small @ columns.T)).maximum(low).minimum(high)
        if self.threshold is None:
            return dict(zip(OUTPUTS, (score, map), strict=True))
        value = torch.full((), self.threshold.value, dtype=torch.float64, device=score.device)
        pixel = torch.full((), self.threshold.pixel_value, dtype=map.dtype, device=map.device)
        found = (score, map, score.double() >= value, map >= pixel)
        return dict(zip(DECIDED, found, strict=True))


def length_of(like: Tensor, length: Any) -> Float[Tensor, ""]:
    """A length as a number of the graph, in float64."""
    return torch.ones(length, dtype=torch.float64, device=like.device).sum()


def resized_like(
    resizer: str, images: UInt8[Tensor, "B 3 H W"], side: int
) -> Float[Tensor, "B 3 {side} {side}"]:
    """Resize as one of `crane.data.images.RESIZERS` does: first rows, then columns.

    Args:
        resizer: Its name.
        images: The images.
        side: Height and width of the result in pixels.

    Returns:
        Whole numbers from 0 to 255, float32. They equal PIL's; on processors without AVX2, torch's
        own may differ by one level.
    """
    kernel = "linear" if resizer == "pil_bilinear" else "cubic"
    planes = images.double()
    for axis in (3, 2):
        length = images.shape[axis]
        to = length_of(images, side)
        matrix = weights(length_of(images, length), to, length, side, kernel)
        unit = PIL_UNIT if resizer.startswith(EXACT) else _torch_unit(matrix)
        whole = (matrix.abs() * unit + 0.5).floor() * matrix.sign()
        product = planes @ whole.T if axis == 3 else whole @ planes
        planes = (product / unit + 0.5).floor().clamp(0, 255)
    return planes.float()


def weights(
    source: Float[Tensor, ""], target: Float[Tensor, ""], length: Any, to: Any, kernel: str
) -> Float[Tensor, "to length"]:
    """Weights of antialiased resizing along one axis, as PIL and torch compute them.

    Args:
        source: Pixels before, in float64.
        target: Pixels after, in float64.
        length: Pixels before.
        to: Pixels after.
        kernel: `cubic` (a = -0.5) or `linear`.

    >>> four, two = torch.tensor(4.0).double(), torch.tensor(2.0).double()
    >>> weights(four, two, 4, 2, "linear").mul(7).tolist()
    [[3.0, 3.0, 1.0, 0.0], [0.0, 1.0, 3.0, 3.0]]
    """
    scale = source / target
    centre = (torch.arange(to, dtype=torch.float64, device=source.device) + 0.5) * scale
    pixel = torch.arange(length, dtype=torch.float64, device=source.device) + 0.5
    x = ((pixel - centre.unsqueeze(1)) * (1 / scale.clamp(min=1.0))).abs()
    if kernel == "linear":
        raw = (1 - x).clamp(min=0)
    else:
        near = (1.5 * x - 2.5) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * -0.5
        raw = torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))
    return raw / raw.sum(dim=1, keepdim=True)


def _torch_unit(matrix: Float[Tensor, "S L"]) -> Float[Tensor, ""]:
    """Torch's weights fill 16 bits: the highest power of two that keeps the largest below 2^15."""
    powers = 2.0 ** torch.arange(23, dtype=torch.float64, device=matrix.device)
    fits = (matrix.amax() * powers + 0.5).floor() < (1 << 15)
    return (powers * fits).amax()


def _given(positions: Tensor, *_: object) -> Tensor:
    return positions


@contextmanager
def fixed_positions(model: Detector[Any, Any], image_size: int) -> Iterator[None]:
    """Resize position embeddings once, so that the graph holds them as constants."""
    towers = [part for part in model.modules() if isinstance(part, VisionTower)]
    for tower in towers:
        grid = tower.grid(image_size, image_size)
        positions = tower.positions_for(grid, getattr(model, "position_resize", "bilinear"))
        tower.positions_for = partial(_given, positions.detach())  # type: ignore[method-assign]
    try:
        yield
    finally:
        for tower in towers:
            del tower.positions_for
