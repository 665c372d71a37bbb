"""Building blocks of drawn pictures: batches of planes, noise, colours and light.

Everything is a tensor operation on a batch, on the device of the canvas, so that the same code
runs on a CPU and on a GPU. Positions run from -1 to 1, x to the right and y down. The canvas's
generator is the only source of randomness.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Planes = Float[Tensor, "N S S"]
"""One number per pixel, for N pictures."""
Numbers = Float[Tensor, " N"]
"""One number per picture."""
Pictures = Float[Tensor, "N 3 S S"]
"""RGB in [0, 1]."""


@dataclass
class Canvas:
    """Size of the pictures and their source of randomness."""

    size: int
    """Height and width in pixels."""
    generator: torch.Generator
    """Source of every random number; pictures are drawn on its device."""

    @property
    def device(self) -> torch.device:
        """Device of the pictures."""
        return self.generator.device

    def uniform(self, num: int, low: float, high: float) -> Numbers:
        """Uniform numbers between two bounds, one per picture."""
        unit = torch.rand(num, generator=self.generator, device=self.device)
        return low + (high - low) * unit

    def log_uniform(self, num: int, low: float, high: float) -> Numbers:
        """Numbers whose logarithm is uniform between two bounds."""
        return self.uniform(num, math.log(low), math.log(high)).exp()

    def chance(self, num: int, probability: float) -> Numbers:
        """1 with the given probability, else 0."""
        return (self.uniform(num, 0.0, 1.0) < probability).float()

    def integers(self, num: int, below: int) -> Tensor:
        """Integers from 0 to `below` - 1."""
        return torch.randint(below, (num,), generator=self.generator, device=self.device)

    def white(self, num: int) -> Planes:
        """White Gaussian noise."""
        shape = (num, self.size, self.size)
        return torch.randn(shape, generator=self.generator, device=self.device)

    def axes(self) -> tuple[Tensor, Tensor]:
        """X and y of all pixel centres, from -1 to 1; each of shape (1, S, S)."""
        line = (torch.arange(self.size, device=self.device) + 0.5) * (2.0 / self.size) - 1.0
        y, x = torch.meshgrid(line, line, indexing="ij")
        return x[None], y[None]

    @property
    def pixel(self) -> float:
        """Width of a pixel in units of the axes."""
        return 2.0 / self.size


def per_picture(numbers: Numbers) -> Float[Tensor, "N 1 1"]:
    """Numbers shaped to broadcast with planes."""
    return numbers[:, None, None]


def posed(
    canvas: Canvas, x0: Numbers, y0: Numbers, angle: Numbers
) -> tuple[Float[Tensor, "N S S"], Float[Tensor, "N S S"]]:
    """Pixel coordinates in a frame of its own origin and direction for each picture."""
    x, y = canvas.axes()
    dx, dy = x - per_picture(x0), y - per_picture(y0)
    cos, sin = per_picture(angle.cos()), per_picture(angle.sin())
    return cos * dx + sin * dy, cos * dy - sin * dx


def spectral(
    canvas: Canvas, grain: Numbers, stretch: Numbers, angle: Numbers, sharp: float = 0.0
) -> Planes:
    """Noise of unit variance with grains of a given size, elongation and direction.

    Args:
        canvas: Size and source of randomness.
        grain: Size of the grains in pixels.
        stretch: Length of a grain divided by its width.
        angle: Direction of the elongation in radians.
        sharp: 0 keeps all wavelengths above the grain size, 1 only those near it.
    """
    size = canvas.size
    fy = torch.fft.fftfreq(size, device=canvas.device)[None, :, None]
    fx = torch.fft.rfftfreq(size, device=canvas.device)[None, None, :]
    cos, sin = per_picture(angle.cos()), per_picture(angle.sin())
    along, across = cos * fx + sin * fy, cos * fy - sin * fx
    root = per_picture(stretch.sqrt())
    radius = torch.sqrt((along * root) ** 2 + (across / root) ** 2) * per_picture(grain) * 2.0
    gain = torch.exp(-(radius**2))
    if sharp:
        gain = gain * (1.0 - sharp * torch.exp(-((2.0 * radius) ** 2)))
    waves = torch.fft.rfft2(canvas.white(len(grain))) * gain
    waves[:, 0, 0] = 0.0
    noise = torch.fft.irfft2(waves, s=(size, size))
    return noise / noise.std(dim=(1, 2), keepdim=True).clamp_min(1e-6)


def clouds(canvas: Canvas, grain: Numbers) -> Planes:
    """Smooth isotropic noise."""
    return spectral(canvas, grain, torch.ones_like(grain), torch.zeros_like(grain))


def cover(distance: Planes, softness: Numbers) -> Planes:
    """Coverage of each pixel by a shape: 1 inside (negative distances), 0 outside."""
    return (0.5 - distance / per_picture(softness)).clamp(0.0, 1.0)


def step(values: Planes, softness: float) -> Planes:
    """0 below 0, 1 above, with a linear transition of width `softness`."""
    return (0.5 + values / softness).clamp(0.0, 1.0)


def mix(base: Pictures, colour: Tensor, alpha: Planes) -> Pictures:
    """Blend `colour` (pictures, or (N, 3, 1, 1)) over `base` with opacity `alpha`."""
    return base + (colour - base) * alpha[:, None]


def hsv_to_rgb(hue: Numbers, saturation: Numbers, value: Numbers) -> Float[Tensor, "N 3 1 1"]:
    """Colours from hue (in turns), saturation and value."""
    offsets = torch.tensor([5.0, 3.0, 1.0], device=hue.device)
    k = (offsets + 6.0 * (hue % 1.0)[:, None]) % 6.0
    fall = torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)
    rgb = value[:, None] * (1.0 - saturation[:, None] * fall)
    return rgb[:, :, None, None]


def slopes(height: Planes) -> tuple[Planes, Planes]:
    """Central differences to the right and down, in height per pixel."""
    padded = F.pad(height[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    return (
        (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2.0,
        (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2.0,
    )


def relief(height: Planes, light: Numbers) -> Planes:
    """Brightness of a height field (in pixels) lit from an angle; 1 where it is flat."""
    right, down = slopes(height)
    facing = per_picture(light.cos()) * right + per_picture(light.sin()) * down
    return ((1.0 + facing) / torch.sqrt(1.0 + right**2 + down**2)).clamp(0.2, 1.9)


def shifted(planes: Tensor, dx: int, dy: int) -> Tensor:
    """Planes shifted by whole pixels, wrapped around."""
    return torch.roll(planes, (dy, dx), dims=(-2, -1))


def sample(pictures: Pictures, x: Planes, y: Planes) -> Pictures:
    """Pictures resampled at given positions, mirrored beyond their border."""
    grid = torch.stack([x, y], dim=-1)
    return F.grid_sample(pictures, grid, padding_mode="reflection", align_corners=False)
