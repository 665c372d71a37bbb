"""Outlines of objects as signed distances, negative inside, in units of the object's half size."""

import math
from collections.abc import Callable

import torch

from experiments.mini_pretraining.canvas import Planes

Outline = Callable[[Planes, Planes], Planes]
"""Maps coordinates in the object's frame to signed distances."""


def disc(u: Planes, v: Planes) -> Planes:
    """A circle."""
    return torch.hypot(u, v) - 1.0


def oval(u: Planes, v: Planes) -> Planes:
    """An ellipse with an aspect ratio of 0.6."""
    return (torch.hypot(u, v / 0.6) - 1.0) * 0.75


def square(u: Planes, v: Planes) -> Planes:
    """A square with slightly rounded corners."""
    return _box(u, v, 0.85, 0.85, 0.12)


def bar(u: Planes, v: Planes) -> Planes:
    """A long rectangle."""
    return _box(u, v, 1.0, 0.45, 0.06)


def capsule(u: Planes, v: Planes) -> Planes:
    """A long body with round ends."""
    return _box(u, v, 1.0, 0.4, 0.4)


def triangle(u: Planes, v: Planes) -> Planes:
    """An equilateral triangle."""
    return torch.maximum(math.sqrt(3) / 2 * u.abs() + 0.5 * v, -v) - 0.5


def cross(u: Planes, v: Planes) -> Planes:
    """Two crossed bars."""
    return torch.minimum(_box(u, v, 1.0, 0.36, 0.05), _box(u, v, 0.36, 1.0, 0.05))


def diamond(u: Planes, v: Planes) -> Planes:
    """A square standing on its corner."""
    return (u.abs() + v.abs() - 1.0) * 0.75


def flower(u: Planes, v: Planes) -> Planes:
    """A disc with six lobes."""
    return torch.hypot(u, v) - 0.85 - 0.13 * torch.cos(6.0 * torch.atan2(v, u))


def crescent(u: Planes, v: Planes) -> Planes:
    """A disc with a disc cut out of its side."""
    return torch.maximum(torch.hypot(u, v) - 1.0, 0.75 - torch.hypot(u - 0.75, v))


def octagon(u: Planes, v: Planes) -> Planes:
    """A regular octagon."""
    slant = (u.abs() + v.abs()) * math.sqrt(0.5)
    return torch.maximum(torch.maximum(u.abs(), v.abs()), slant) - 0.9


def arch(u: Planes, v: Planes) -> Planes:
    """A box with a round top."""
    return torch.maximum(
        torch.minimum(torch.hypot(u, v) - 0.8, _box(u, v - 0.4, 0.8, 0.4, 0)), -v - 1
    )


def star(u: Planes, v: Planes) -> Planes:
    """A five-pointed star. Held out: never drawn in pretraining."""
    angle = torch.atan2(u, -v)
    fold = ((angle / (2 * math.pi) * 5) % 1.0 - 0.5).abs() * 2.0
    return (torch.hypot(u, v) - (0.45 + 0.55 * fold**1.5)) * 0.6


SHAPES: dict[str, Outline] = {
    f.__name__: f
    for f in (
        disc,
        oval,
        square,
        bar,
        capsule,
        triangle,
        cross,
        diamond,
        flower,
        crescent,
        octagon,
        arch,
    )
}
"""Outlines drawn in pretraining."""
HELD_OUT_SHAPES: dict[str, Outline] = {"star": star}
"""Outlines drawn in evaluation only."""


def _box(u: Planes, v: Planes, half_u: float, half_v: float, corner: float) -> Planes:
    du, dv = u.abs() - half_u + corner, v.abs() - half_v + corner
    outside = torch.hypot(du.clamp_min(0.0), dv.clamp_min(0.0))
    return outside + torch.maximum(du, dv).clamp_max(0.0) - corner
