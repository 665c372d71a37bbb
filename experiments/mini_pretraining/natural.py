"""Surfaces that captions cannot name, in many colours: noise, cells and leaves.

Random processes that share statistics with photographs (Baradad et al., "Learning to See by Looking
at Noise", 2021): noise with a power-law spectrum, Worley cells, and the dead-leaves model. Captions
mention only the state of these surfaces.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from experiments.mini_pretraining.canvas import (
    Canvas,
    Pictures,
    cover,
    hsv_to_rgb,
    mix,
    per_picture,
    relief,
    step,
)


def noise(canvas: Canvas, num: int) -> Pictures:
    """Coloured noise with a spectrum from 1 / f to 1 / f^2, sometimes anisotropic."""
    power = per_picture(canvas.uniform(num, 0.9, 2.0))
    angle = per_picture(canvas.uniform(num, 0.0, math.pi))
    stretch = per_picture(canvas.log_uniform(num, 1.0, 3.0))
    fy = torch.fft.fftfreq(canvas.size, device=canvas.device)[None, :, None]
    fx = torch.fft.rfftfreq(canvas.size, device=canvas.device)[None, None, :]
    along, across = angle.cos() * fx + angle.sin() * fy, angle.cos() * fy - angle.sin() * fx
    frequency = torch.hypot(along * stretch, across / stretch).clamp_min(1.0 / canvas.size)
    waves = torch.fft.rfft2(canvas.white(3 * num)).view(num, 3, canvas.size, -1)
    waves = waves * (frequency**-power)[:, None]
    waves[:, :, 0, 0] = 0.0
    planes = torch.fft.irfft2(waves, s=(canvas.size, canvas.size))
    planes = planes / planes.std(dim=(-2, -1), keepdim=True).clamp_min(1e-6)
    together = per_picture(canvas.uniform(num, 0.3, 1.0))[:, None]  # 1: a single hue
    planes = together * planes[:, :1] + (1.0 - together) * planes
    contrast = per_picture(canvas.uniform(num, 0.05, 0.28))[:, None]
    return (_any_colour(canvas, num) + contrast * planes).clamp(0, 1)


def cells(canvas: Canvas, num: int) -> Pictures:
    """Worley cells, flat or domed, each in its own colour, separated by joints."""
    most = 150
    wanted = canvas.log_uniform(num, 12.0, float(most))
    points = torch.stack([canvas.uniform(num * most, -1.2, 1.2).view(num, most) for _ in "xy"], -1)
    gone = torch.arange(most, device=canvas.device)[None] >= wanted[:, None]
    points = torch.where(gone[:, :, None], 9.0, points)
    x, y = canvas.axes()
    squeeze = per_picture(canvas.log_uniform(num, 0.5, 2.0))
    place = torch.stack([x[0], y[0]], dim=-1).view(1, -1, 2).expand(num, -1, -1)
    scale = torch.cat([squeeze, 1.0 / squeeze], dim=-1).view(num, 1, 2)
    blocky = canvas.chance(num, 0.4)[:, None, None]
    round_ = torch.cdist(place * scale, points * scale)
    boxed = torch.cdist(place * scale, points * scale, p=float("inf"))
    distance = torch.where(blocky > 0, boxed, round_)
    near, which = distance.topk(2, dim=-1, largest=False)
    side = (num, canvas.size, canvas.size)
    gap = (near[..., 1] - near[..., 0]).view(side)
    colours = _palette(canvas, num, most)
    own = which[..., :1].expand(-1, -1, 3)
    rgb = colours.gather(1, own).transpose(1, 2).reshape(num, 3, canvas.size, canvas.size)
    width = per_picture(canvas.uniform(num, 0.0, 0.07))
    joint = step(gap - width, 0.04) * (width > 0.01) + (width <= 0.01).float()
    ground = _any_colour(canvas, num) * per_picture(canvas.uniform(num, 0.1, 1.0))[:, None]
    rgb = mix(ground.expand(-1, -1, canvas.size, canvas.size), rgb, joint)
    dome = (gap * 2.5).clamp(0, 1).sqrt() * per_picture(canvas.uniform(num, 0.0, 6.0))
    dome = dome * per_picture(canvas.chance(num, 0.6))
    return (rgb * relief(dome, canvas.uniform(num, 0, 2 * math.pi))[:, None]).clamp(0, 1)


def leaves(canvas: Canvas, num: int) -> Pictures:
    """Overlapping boxes and discs in few colours, with sizes from a power law."""
    many = 60
    colours = _palette(canvas, num, many)
    upright = per_picture(canvas.chance(num, 0.5))  # as on man-made surfaces
    largest = canvas.uniform(num, 0.12, 0.7)
    shaded = per_picture(canvas.uniform(num, 0.0, 0.5) * canvas.chance(num, 0.6))
    rgb = _any_colour(canvas, num).expand(-1, -1, canvas.size, canvas.size)
    x, y = canvas.axes()
    soft = torch.full((num,), 1.5 * canvas.pixel, device=canvas.device)
    for number in range(many):
        dx = x - per_picture(canvas.uniform(num, -1.1, 1.1))
        dy = y - per_picture(canvas.uniform(num, -1.1, 1.1))
        angle = per_picture(canvas.uniform(num, 0, math.pi)) * (1.0 - upright)
        u, v = angle.cos() * dx + angle.sin() * dy, angle.cos() * dy - angle.sin() * dx
        half = per_picture(largest * canvas.log_uniform(num, 0.08, 1.0))
        flat = per_picture(canvas.uniform(num, 0.25, 1.0))
        box = torch.maximum(u.abs() - half, v.abs() - half * flat)
        disc = torch.hypot(u, v) - half * flat
        shape = torch.where(per_picture(canvas.chance(num, 0.7)) > 0, box, disc)
        shadow = torch.roll(cover(shape, soft), (2, 2), dims=(-2, -1)) * shaded
        rgb = mix(
            rgb * (1.0 - shadow)[:, None], colours[:, number, :, None, None], cover(shape, soft)
        )
    return rgb.clamp(0, 1)


NATURAL: tuple[Callable[[Canvas, int], Pictures], ...] = (noise, cells, leaves)
"""Kinds that can replace a surface with a pattern and a colour."""


def natural(canvas: Canvas, surface: Pictures, share: float) -> tuple[Pictures, Tensor]:
    """Replace some surfaces by noise, cells or leaves.

    Args:
        canvas: Size and source of randomness.
        surface: Surfaces with a pattern and a colour.
        share: Fraction of them to replace.

    Returns:
        The surfaces, and which of them have neither a pattern nor a colour with a name.
    """
    num = len(surface)
    kinds = canvas.integers(num, len(NATURAL))
    replaced = canvas.chance(num, share) > 0
    surface = surface.clone()
    for number, kind in enumerate(NATURAL):
        chosen = (replaced & (kinds == number)).nonzero()[:, 0]
        if len(chosen):
            surface[chosen] = kind(canvas, len(chosen))
    return surface, replaced


def _any_colour(canvas: Canvas, num: int) -> Tensor:
    hue, saturation = canvas.uniform(num, 0, 1), canvas.uniform(num, 0, 1) ** 1.5
    return hsv_to_rgb(hue, saturation, canvas.uniform(num, 0.1, 1.0))


def _palette(canvas: Canvas, num: int, many: int) -> Tensor:
    """`many` colours per picture from one to four families, as (N, many, 3)."""
    families = torch.stack([_any_colour(canvas, num)[:, :, 0, 0] for _ in range(4)], dim=1)
    limit = 1 + canvas.integers(num, 4)
    which = canvas.integers(num * many, 4).view(num, many) % limit[:, None]
    colours = families.gather(1, which[:, :, None].expand(-1, -1, 3))
    spread = canvas.uniform(num, 0.0, 0.35)[:, None, None]
    tone = canvas.uniform(num * many, -1.0, 1.0).view(num, many, 1)
    return (colours * (1.0 + spread * tone)).clamp(0, 1)
