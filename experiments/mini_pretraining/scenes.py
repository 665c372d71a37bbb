"""Flawless scenes: surfaces, single objects and grids, with harmless marks on them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.mini_pretraining.canvas import (
    Canvas,
    Numbers,
    Pictures,
    Planes,
    clouds,
    cover,
    hsv_to_rgb,
    mix,
    per_picture,
    posed,
    relief,
    shifted,
    slopes,
    step,
)
from experiments.mini_pretraining.natural import natural as without_name
from experiments.mini_pretraining.shapes import SHAPES, Outline
from experiments.mini_pretraining.surfaces import PATTERNS, Pattern

COLOURS: dict[str, tuple[float, float, float, float]] = {
    # word: hue, spread of hue, least saturation, least value
    "red": (0.0, 0.03, 0.6, 0.5),
    "orange": (0.075, 0.025, 0.65, 0.6),
    "yellow": (0.15, 0.03, 0.5, 0.7),
    "green": (0.34, 0.07, 0.4, 0.35),
    "cyan": (0.5, 0.03, 0.4, 0.5),
    "blue": (0.61, 0.05, 0.5, 0.4),
    "purple": (0.77, 0.04, 0.4, 0.4),
    "pink": (0.92, 0.03, 0.25, 0.75),
    "brown": (0.07, 0.03, 0.35, 0.25),
    "white": (0.1, 0.5, 0.0, 0.82),
    "grey": (0.1, 0.5, 0.0, 0.4),
    "black": (0.1, 0.5, 0.0, 0.06),
}
"""Colours by name."""
ARRANGEMENTS = ("surface", "object", "grid")
"""A surface fills the picture, an object lies on a surface, a grid repeats the object."""


@dataclass
class Scenes:
    """N flawless pictures and their contents."""

    rgb: Pictures
    background: Pictures
    """What shows through where a piece of the object is missing."""
    region: Planes
    """1 where a defect can be."""
    light: Numbers
    """Direction of the light in radians."""
    pattern: list[str]
    """Empty, like `colour`, if the surface has no name."""
    shape: list[str]
    """Outline of the object; `surface` if there is no object."""
    colour: list[str]
    arrangement: list[str]


def draw_scenes(
    canvas: Canvas,
    num: int,
    patterns: Mapping[str, Pattern] = PATTERNS,
    shapes: Mapping[str, Outline] = SHAPES,
    tinted: float = 0.0,
    natural: float = 0.0,
) -> Scenes:
    """Draw scenes of all arrangements.

    Args:
        canvas: Size and source of randomness.
        num: Number of scenes.
        patterns: Patterns of surfaces by name.
        shapes: Outlines of objects by name.
        tinted: Fraction of the surfaces with patches of a second colour.
        natural: Fraction of the surfaces without a name; of backgrounds, half as many.
    """
    light = canvas.uniform(num, 0, 2 * math.pi)
    colour_ids = canvas.integers(num, len(COLOURS))
    pattern_ids = canvas.integers(num, len(patterns))
    surface = _surface(canvas, _colours(canvas, colour_ids), pattern_ids, patterns, light)
    ground_colours = _colours(canvas, canvas.integers(num, len(COLOURS)))
    calm = canvas.integers(num, len(patterns)) * canvas.chance(num, 0.35).long()
    ground = _surface(canvas, ground_colours, calm, patterns, light)

    kinds = canvas.integers(num, 5)  # two of five are surfaces, two objects, one a grid
    arrangement_ids = torch.tensor([0, 0, 1, 1, 2], device=canvas.device)[kinds]
    shape_ids = canvas.integers(num, len(shapes))
    distance, scale = _objects(canvas, arrangement_ids, shape_ids, shapes)
    if tinted:
        surface = _tinted(canvas, surface, tinted)
    nameless = torch.zeros(num, dtype=torch.bool, device=canvas.device)
    if natural:
        surface, nameless = without_name(canvas, surface, natural)
        ground, _ = without_name(canvas, ground, natural / 2.0)
    rgb, region = _composed(canvas, surface, ground, distance, scale, light)
    whole = (arrangement_ids == 0).float()[:, None, None]
    region = torch.maximum(region, whole)
    rgb = whole[:, None] * surface + (1.0 - whole[:, None]) * rgb
    rgb = _marked(canvas, rgb, region)

    is_surface = (arrangement_ids == 0).tolist()
    shape_names = _names(list(shapes), shape_ids)
    dark = ground * per_picture(canvas.uniform(num, 0.1, 1.0))[:, None]
    return Scenes(
        rgb=rgb.clamp(0, 1),
        background=dark.clamp(0, 1),
        region=region,
        light=light,
        pattern=_names(list(patterns), pattern_ids, nameless),
        shape=["surface" if s else n for s, n in zip(is_surface, shape_names, strict=True)],
        colour=_names(list(COLOURS), colour_ids, nameless),
        arrangement=_names(ARRANGEMENTS, arrangement_ids),
    )


def _names(words: Sequence[str], ids: Tensor, nameless: Tensor | None = None) -> list[str]:
    none = [False] * len(ids) if nameless is None else nameless.tolist()
    return ["" if no_word else words[i] for i, no_word in zip(ids.tolist(), none, strict=True)]


def grouped(
    functions: Sequence[Callable[[Canvas, int], Planes]], ids: Tensor, canvas: Canvas
) -> Planes:
    """Apply each function to the pictures whose id is its index."""
    planes = torch.empty(len(ids), canvas.size, canvas.size, device=canvas.device)
    for number, function in enumerate(functions):
        chosen = (ids == number).nonzero()[:, 0]
        if len(chosen):
            planes[chosen] = function(canvas, len(chosen))
    return planes


def _colours(canvas: Canvas, ids: Tensor) -> Tensor:
    table = torch.tensor(list(COLOURS.values()), device=canvas.device)
    hue, spread, saturation, value = table[ids].unbind(-1)
    num = len(ids)
    hue = hue + spread * canvas.uniform(num, -1, 1)
    room = torch.where(saturation > 0, 1.0 - saturation, 0.12 * torch.ones_like(saturation))
    saturation = saturation + room * canvas.uniform(num, 0, 1)
    headroom = torch.where(saturation < 0.13, torch.full_like(value, 0.16), 1.0 - value)
    return hsv_to_rgb(hue, saturation, (value + headroom * canvas.uniform(num, 0, 1)).clamp(0, 1))


def _surface(
    canvas: Canvas, colour: Tensor, ids: Tensor, patterns: Mapping[str, Pattern], light: Numbers
) -> Pictures:
    """A pattern in two related colours, with grain and relief."""
    num = len(ids)
    plane = grouped(list(patterns.values()), ids, canvas)
    hue = canvas.uniform(num, 0, 1)
    stranger = hsv_to_rgb(hue, canvas.uniform(num, 0, 0.9), canvas.uniform(num, 0.05, 1.0))
    tone = per_picture(canvas.uniform(num, 0.35, 1.5))[:, None]
    kin = (colour * tone).clamp(0, 1)
    strange = canvas.chance(num, 0.35)[:, None, None, None]
    second = strange * stranger + (1.0 - strange) * kin
    strength = per_picture(canvas.uniform(num, 0.15, 1.0))
    rgb = mix(colour.expand(-1, -1, canvas.size, canvas.size), second, (1.0 - plane) * strength)
    height = plane * per_picture(canvas.uniform(num, 0.0, 3.0) * canvas.chance(num, 0.5))
    grain = clouds(canvas, canvas.log_uniform(num, 0.8, 3.0))
    height = height + grain * per_picture(canvas.uniform(num, 0.0, 0.25) * canvas.chance(num, 0.6))
    mottle = clouds(canvas, canvas.log_uniform(num, 10.0, 40.0))
    mottle = 1.0 + mottle * per_picture(canvas.uniform(num, 0.0, 0.08))
    return (rgb * (relief(height, light) * mottle)[:, None]).clamp(0, 1)


def _tinted(canvas: Canvas, surface: Pictures, share: float) -> Pictures:
    """Cover some of the surfaces with patches of a second colour."""
    num = len(surface)
    tint = hsv_to_rgb(
        canvas.uniform(num, 0, 1), canvas.uniform(num, 0, 1), canvas.uniform(num, 0.05, 1.0)
    )
    patches = clouds(canvas, canvas.log_uniform(num, 2.0, 20.0))
    level = per_picture(canvas.uniform(num, -0.5, 0.8))
    alpha = step(patches - level, 0.8) * per_picture(canvas.uniform(num, 0.15, 0.7))
    return mix(surface, tint, alpha * per_picture(canvas.chance(num, share)))


def _objects(
    canvas: Canvas, arrangement: Tensor, ids: Tensor, shapes: Mapping[str, Outline]
) -> tuple[Planes, Numbers]:
    """Signed distances of an object or a grid of objects, and the half size of each object."""
    num = len(ids)
    wobble = canvas.uniform(num, -0.15, 0.15), canvas.uniform(num, -0.15, 0.15)
    u, v = posed(canvas, *wobble, canvas.uniform(num, 0, 2 * math.pi))
    is_grid = (arrangement == 2).float()
    pitch = per_picture(canvas.uniform(num, 0.4, 0.95))
    grid = per_picture(is_grid)
    u = grid * ((u / pitch % 1.0 - 0.5) * pitch) + (1.0 - grid) * u
    v = grid * ((v / pitch % 1.0 - 0.5) * pitch) + (1.0 - grid) * v
    alone = canvas.uniform(num, 0.45, 0.9)
    scale = is_grid * pitch[:, 0, 0] * canvas.uniform(num, 0.28, 0.42) + (1.0 - is_grid) * alone
    u, v = u / per_picture(scale), v / per_picture(scale)
    distance = torch.empty_like(u)
    for number, outline in enumerate(shapes.values()):
        chosen = (ids == number).nonzero()[:, 0]
        if len(chosen):
            distance[chosen] = outline(u[chosen], v[chosen])
    holes = canvas.chance(num, 0.3)  # two round openings that are no defect
    spread = per_picture(canvas.uniform(num, 0.15, 0.5))
    opening = per_picture(canvas.uniform(num, 0.06, 0.2))
    hole = opening - torch.hypot(u.abs() - spread, v)
    pierced = torch.where(per_picture(holes) > 0, torch.maximum(distance, hole), distance)
    return pierced * per_picture(scale), scale


def _composed(
    canvas: Canvas,
    surface: Pictures,
    ground: Pictures,
    distance: Planes,
    scale: Numbers,
    light: Numbers,
) -> tuple[Pictures, Planes]:
    """The object, bevelled or domed, with its shadow on the background."""
    num = len(scale)
    region = cover(distance, torch.full_like(scale, 1.5 * canvas.pixel))
    bevel = per_picture(canvas.uniform(num, 0.08, 0.6) * scale)
    rise = (-distance / bevel).clamp(0, 1)
    rounded = (1.0 - (1.0 - rise) ** 2).clamp_min(0.0)
    depth = per_picture(canvas.uniform(num, 0.0, 0.9)) * bevel / canvas.pixel
    shade = relief(rounded * depth, light)
    right, down = slopes(rounded * depth)
    facing = per_picture(light.cos()) * right + per_picture(light.sin()) * down
    gloss = (0.8 + 0.6 * facing).clamp(0, 1) ** 12
    lit = surface * shade[:, None] + (gloss * per_picture(canvas.uniform(num, 0, 0.4)))[:, None]
    soft = cover(distance - 0.02, canvas.uniform(num, 0.03, 0.25))
    shadow = shifted(soft, 2, 3) * per_picture(canvas.uniform(num, 0.0, 0.6))
    return mix(ground * (1.0 - shadow)[:, None], lit.clamp(0, 1), region), region


def _marked(canvas: Canvas, rgb: Pictures, region: Planes) -> Pictures:
    """Add marks that are no defects: prints, seams, shadows, highlights."""
    num = len(rgb)
    hue = canvas.uniform(num, 0, 1)
    ink = hsv_to_rgb(hue, canvas.uniform(num, 0, 1), canvas.uniform(num, 0, 1))
    u, v = posed(
        canvas,
        canvas.uniform(num, -0.5, 0.5),
        canvas.uniform(num, -0.5, 0.5),
        canvas.uniform(num, 0, 2 * math.pi),
    )
    size = per_picture(canvas.uniform(num, 0.08, 0.3))
    thin = per_picture(canvas.uniform(num, 0.02, 0.05))
    ring = (torch.hypot(u, v) - size).abs() - thin
    letters = torch.maximum(
        torch.maximum(v.abs() - 2.5 * thin, u.abs() - 1.6 * size),
        0.35 * thin - (u / thin % 4.0 - 2.0).abs() * thin * 0.5,
    )
    plate = torch.maximum(u.abs(), v.abs()) - 0.6 * size
    seam = v.abs() - 0.6 * thin  # from border to border
    choice = per_picture(canvas.integers(num, 4).float())
    print_ = torch.where(choice == 0, ring, torch.where(choice == 1, letters, plate))
    print_ = torch.where(choice == 3, seam, print_)
    wanted = per_picture(canvas.chance(num, 0.3) * canvas.uniform(num, 0.4, 1.0))
    alpha = cover(print_, torch.full_like(hue, 1.5 * canvas.pixel)) * region * wanted
    rgb = mix(rgb, ink, alpha)
    a, b = posed(
        canvas, canvas.uniform(num, -1, 1), canvas.uniform(num, -1, 1), canvas.uniform(num, 0, 6.28)
    )
    spot = torch.exp(-(a**2 / 0.3 + b**2 / 0.08)) * per_picture(
        canvas.uniform(num, 0.0, 0.3) * canvas.chance(num, 0.3)
    )
    dim = step(a + 0.1 * torch.sin(3.0 * b), 0.5) * per_picture(
        canvas.uniform(num, 0.0, 0.4) * canvas.chance(num, 0.3)
    )
    return rgb * (1.0 - dim)[:, None] + spot[:, None]
