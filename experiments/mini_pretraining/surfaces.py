"""Patterns of surfaces, with values in [0, 1]; captions name them by their function."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from experiments.mini_pretraining.canvas import (
    Canvas,
    Planes,
    clouds,
    per_picture,
    posed,
    spectral,
    step,
)

Pattern = Callable[[Canvas, int], Planes]
"""Draws a number of planes in [0, 1]."""


def plain(canvas: Canvas, num: int) -> Planes:
    """Nearly uniform, slightly mottled."""
    return 0.5 + 0.06 * clouds(canvas, canvas.log_uniform(num, 2.0, 40.0))


def striped(canvas: Canvas, num: int) -> Planes:
    """Bands of any width, softness and direction."""
    u, _ = _frame(canvas, num, bend=0.04)
    wave = torch.sin(u * per_picture(_waves(canvas, num)))
    return step(wave, 0.15) * _duty(canvas, num) + (1.0 - _duty(canvas, num)) * (wave + 1.0) / 2.0


def checked(canvas: Canvas, num: int) -> Planes:
    """A chequerboard."""
    u, v = _frame(canvas, num, bend=0.02)
    waves = per_picture(_waves(canvas, num) * 0.8)
    return step(torch.sin(u * waves) * torch.sin(v * waves), 0.12)


def dotted(canvas: Canvas, num: int) -> Planes:
    """Round spots on a regular lattice."""
    u, v = _frame(canvas, num, bend=0.02)
    waves = per_picture(_waves(canvas, num))
    level = per_picture(canvas.uniform(num, 0.1, 1.1))
    return step(torch.cos(u * waves) + torch.cos(v * waves) - level, 0.3)


def cloudy(canvas: Canvas, num: int) -> Planes:
    """Soft clouds of several sizes."""
    large = canvas.log_uniform(num, 6.0, 30.0)
    return (0.5 + 0.2 * clouds(canvas, large) + 0.09 * clouds(canvas, large / 3.0)).clamp(0, 1)


def grained(canvas: Canvas, num: int) -> Planes:
    """Long fibres in one direction."""
    stretch = canvas.log_uniform(num, 6.0, 40.0)
    noise = spectral(
        canvas, canvas.log_uniform(num, 3.0, 10.0), stretch, canvas.uniform(num, 0, math.pi), 0.7
    )
    return (0.5 + 0.22 * noise).clamp(0, 1)


def rough(canvas: Canvas, num: int) -> Planes:
    """Irregular grains of one size."""
    noise = spectral(
        canvas,
        canvas.log_uniform(num, 1.0, 5.0),
        canvas.uniform(num, 1.0, 2.0),
        canvas.uniform(num, 0, math.pi),
        0.9,
    )
    return (0.5 + 0.22 * noise).clamp(0, 1)


def speckled(canvas: Canvas, num: int) -> Planes:
    """Irregular flecks on an even ground."""
    noise = clouds(canvas, canvas.log_uniform(num, 1.2, 6.0))
    return step(noise - per_picture(canvas.uniform(num, 0.7, 1.5)), 0.3)


def veined(canvas: Canvas, num: int) -> Planes:
    """A net of soft veins, as in polished stone, over the whole surface."""
    noise = clouds(canvas, canvas.log_uniform(num, 5.0, 18.0))
    return torch.exp(-((noise / per_picture(canvas.uniform(num, 0.15, 0.5))) ** 2))


def ringed(canvas: Canvas, num: int) -> Planes:
    """Rings around a centre, as on a cut log."""
    zero = torch.zeros(num, device=canvas.device)
    u, v = posed(canvas, canvas.uniform(num, -1, 1), canvas.uniform(num, -1, 1), zero)
    radius = torch.hypot(u, v) + 0.03 * clouds(canvas, canvas.uniform(num, 10.0, 30.0))
    return 0.5 + 0.5 * torch.sin(radius * per_picture(_waves(canvas, num)))


def zigzag(canvas: Canvas, num: int) -> Planes:
    """Zigzag bands."""
    u, v = _frame(canvas, num, bend=0.0)
    waves = per_picture(_waves(canvas, num))
    teeth = torch.asin(torch.sin(v * waves * per_picture(canvas.uniform(num, 0.4, 1.0))) * 0.999)
    return step(torch.sin(u * waves + teeth), 0.25)


def tiled(canvas: Canvas, num: int) -> Planes:
    """Square tiles, each in its own tone, with dark joints."""
    u, v = _frame(canvas, num, bend=0.0)
    waves = per_picture(_waves(canvas, num) / 4.0)
    joint = torch.minimum((u * waves % 1.0 - 0.5).abs(), (v * waves % 1.0 - 0.5).abs())
    tone = torch.sin(torch.floor(u * waves) * 12.9898 + torch.floor(v * waves) * 78.233) * 43758.5
    return (step(joint - 0.06, 0.06) * (0.55 + 0.35 * (tone % 1.0))).clamp(0, 1)


def rippled(canvas: Canvas, num: int) -> Planes:
    """Curved waves, as on sand."""
    u, _ = _frame(canvas, num, bend=0.15)
    return 0.5 + 0.5 * torch.sin(u * per_picture(_waves(canvas, num)))


def scaly(canvas: Canvas, num: int) -> Planes:
    """Overlapping scales in rows. Held out: never drawn in pretraining."""
    u, v = _frame(canvas, num, bend=0.0)
    waves = per_picture(_waves(canvas, num) / 5.0)
    row = torch.floor(v * waves)
    du, dv = (u * waves + 0.5 * (row % 2)) % 1.0 - 0.5, v * waves % 1.0
    return (1.2 * torch.hypot(du, dv)).clamp(0, 1)


PATTERNS: dict[str, Pattern] = {
    f.__name__: f
    for f in (
        plain,
        striped,
        checked,
        dotted,
        cloudy,
        grained,
        rough,
        speckled,
        veined,
        ringed,
        zigzag,
        tiled,
        rippled,
    )
}
"""Patterns drawn in pretraining."""
HELD_OUT_PATTERNS: dict[str, Pattern] = {"scaly": scaly}
"""Patterns drawn in evaluation only."""


def _frame(canvas: Canvas, num: int, bend: float) -> tuple[Planes, Planes]:
    centre = canvas.uniform(num, -1, 1), canvas.uniform(num, -1, 1)
    u, v = posed(canvas, *centre, canvas.uniform(num, 0.0, 2.0 * math.pi))
    if bend:
        strength = per_picture(canvas.uniform(num, 0.0, bend))
        u = u + strength * clouds(canvas, canvas.uniform(num, 8.0, 30.0))
    return u, v


def _waves(canvas: Canvas, num: int) -> Tensor:
    """Radians per unit: 3 to 22 periods across the picture."""
    return canvas.log_uniform(num, 3.0, 22.0) * math.pi


def _duty(canvas: Canvas, num: int) -> Tensor:
    """Whether a band is hard (1) or soft (0)."""
    return per_picture(canvas.chance(num, 0.5))
