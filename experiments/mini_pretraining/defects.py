"""Defects drawn in pretraining: how each kind changes a picture at a given site.

None of the kinds, words or functions of the embedded domains is used here; a test compares them
with `crane.drawn.reserved_generators()`.
"""

import math
from collections.abc import Callable
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
    sample,
    spectral,
    step,
)


@dataclass
class Site:
    """Sites of defects: N pictures with a position and a size in each."""

    canvas: Canvas
    rgb: Pictures
    """The flawless pictures."""
    behind: Pictures
    """What shows through where a piece is missing."""
    other: Pictures
    """Other surfaces, for foreign objects."""
    region: Planes
    """1 where a defect can be."""
    x: Numbers
    y: Numbers
    """Position, -1 to 1."""
    area: Numbers
    """Approximate area as a fraction of the picture."""
    light: Numbers
    """Direction of the light in radians."""

    def __len__(self) -> int:
        return len(self.x)


Painted = tuple[Pictures, Planes]
"""The damaged pictures, and how strongly each pixel is affected, 0 to 1."""
Defect = Callable[[Site], Painted]


def scratch(site: Site) -> Painted:
    """One to three thin, slightly bent lines, darker or lighter than the surface."""
    width = site.canvas.uniform(len(site), 0.7, 2.6) * site.canvas.pixel
    alpha = _line(site, width, bend=0.8, length=site.area.sqrt() * 5.0 + 0.12)
    for again in (0.4, 0.25):
        more = _line(site, width * 0.8, bend=0.8, length=site.area.sqrt() * 4.0 + 0.1, loose=0.12)
        alpha = torch.maximum(alpha, more * per_picture(site.canvas.chance(len(site), again)))
    alpha = alpha * site.region
    rgb = mix(site.rgb, _contrasting(site), alpha * per_picture(_strength(site)))
    return rgb, alpha


def stain(site: Site) -> Painted:
    """A blob of another colour, even or cloudy, with or without a rim."""
    shape = _blob(site, wobble=0.5)
    alpha = cover(shape, site.canvas.uniform(len(site), 1.0, 8.0) * site.canvas.pixel)
    alpha = alpha * site.region
    rim = torch.exp(-((shape / (3.0 * site.canvas.pixel)) ** 2))
    patchy = clouds(site.canvas, site.canvas.uniform(len(site), 2.0, 12.0))
    strength = per_picture(_strength(site))
    strength = strength * (0.85 + 0.12 * patchy + 0.3 * rim * per_picture(_coin(site)))
    colour = _any_colour(site)
    soaked = site.rgb * (0.35 + colour)  # the pattern shows through
    through = _coin(site)[:, None, None, None]
    paint = through * soaked + (1.0 - through) * colour
    return mix(site.rgb, paint.clamp(0, 1), (alpha * strength).clamp(0, 1)), alpha


def dent(site: Site) -> Painted:
    """A hollow or a bulge, visible only through shading."""
    shape = _blob(site, wobble=0.25)
    radius = per_picture(_radius(site))
    height = torch.exp(-1.2 * (1.0 + shape / radius).clamp_min(0.0) ** 2) * site.region
    amount = site.canvas.uniform(len(site), 0.35, 1.0) * (2.0 * _coin(site) - 1.0)
    scaled = height * per_picture(amount) * radius / site.canvas.pixel
    shade = relief(scaled, site.light)
    alpha = step(height - 0.25, 0.3) * site.region
    return (site.rgb * shade[:, None]).clamp(0, 1), alpha


def broken(site: Site) -> Painted:
    """A piece broken out along straight, jagged lines; shows the background or the core."""
    shape = _shard(site)
    alpha = cover(shape, torch.full_like(site.x, 1.5 * site.canvas.pixel)) * site.region
    rough = 0.55 + 0.2 * clouds(site.canvas, site.canvas.uniform(len(site), 1.0, 4.0))
    core = site.rgb * rough[:, None] + 0.08
    inside = torch.where(_coin(site)[:, None, None, None] > 0, site.behind, core)
    rgb = mix(site.rgb, inside, alpha)
    edge = torch.exp(-((shape / (1.6 * site.canvas.pixel)) ** 2)) * site.region
    glint = per_picture(site.canvas.uniform(len(site), -0.5, 0.5))
    return (rgb + (edge * glint)[:, None]).clamp(0, 1), torch.maximum(alpha, step(edge - 0.5, 0.3))


def tear(site: Site) -> Painted:
    """A long gaping slit with ragged edges."""
    canvas, num = site.canvas, len(site)
    angle = canvas.uniform(num, 0.0, 2.0 * math.pi)
    u, v = posed(canvas, site.x, site.y, angle)
    half = per_picture(site.area.sqrt() * 1.6 + 0.06)
    ragged = 0.015 * clouds(canvas, canvas.uniform(num, 1.5, 5.0))
    gape = (
        (1.0 - (u / half) ** 2).clamp_min(0.0) * half * per_picture(canvas.uniform(num, 0.08, 0.4))
    )
    shape = v.abs() + ragged - gape
    alpha = cover(shape, torch.full_like(site.x, 1.5 * canvas.pixel)) * (gape > 0) * site.region
    dark = site.behind * per_picture(canvas.uniform(num, 0.15, 1.0))[:, None]
    rim = torch.exp(-((shape / (2.0 * canvas.pixel)) ** 2)) * (gape > 0) * site.region
    lit = per_picture(canvas.uniform(num, -0.3, 0.4))
    rgb = (mix(site.rgb, dark, alpha) + (rim * lit)[:, None]).clamp(0, 1)
    return rgb, torch.maximum(alpha, step(rim - 0.5, 0.3))


def scuff(site: Site) -> Painted:
    """A patch worn by many fine parallel strokes."""
    canvas, num = site.canvas, len(site)
    shape = _blob(site, wobble=0.6)
    strokes = spectral(
        canvas,
        canvas.uniform(num, 1.5, 4.0),
        canvas.uniform(num, 8.0, 30.0),
        canvas.uniform(num, 0.0, math.pi),
        0.7,
    )
    patch = cover(shape, 6.0 * canvas.pixel * torch.ones(num, device=canvas.device)) * site.region
    alpha = patch * (0.45 + 0.45 * strokes).clamp(0, 1)
    rgb = mix(site.rgb, _contrasting(site), alpha * per_picture(_strength(site)))
    return rgb, step(patch - 0.4, 0.3)


def dirt(site: Site) -> Painted:
    """A swarm of specks."""
    canvas, num = site.canvas, len(site)
    shape = _blob(site, wobble=0.6)
    specks = clouds(canvas, canvas.uniform(num, 0.9, 3.0)) - per_picture(
        canvas.uniform(num, 0.3, 1.1)
    )
    patch = cover(shape, 4.0 * canvas.pixel * torch.ones(num, device=canvas.device)) * site.region
    alpha = step(specks, 0.5) * patch
    rgb = mix(site.rgb, _contrasting(site), alpha * per_picture(_strength(site)))
    return rgb, step(patch - 0.4, 0.3)


def foreign(site: Site) -> Painted:
    """A foreign lump with another surface, shaded and with a shadow."""
    canvas = site.canvas
    shape = _blob(site, wobble=0.5)
    alpha = cover(shape, torch.full_like(site.x, 1.8 * canvas.pixel))
    dome = (-shape / per_picture(_radius(site))).clamp(0.0, 1.0).sqrt()
    shade = relief(dome * per_picture(_radius(site)) / canvas.pixel * 0.8, site.light)
    flat = _coin(site)[:, None, None]
    lump = site.other * (flat + (1.0 - flat) * shade)[:, None]
    shadow = torch.roll(alpha, (2, 2), dims=(-2, -1)) * (1.0 - flat) * 0.4
    rgb = mix(site.rgb * (1.0 - shadow)[:, None], lump.clamp(0, 1), alpha)
    return rgb, alpha


def swapped(site: Site) -> Painted:
    """A piece of the surface rotated in place, which interrupts the pattern."""
    canvas, num = site.canvas, len(site)
    shape = _blob(site, wobble=0.3)
    alpha = cover(shape, torch.full_like(site.x, 1.5 * canvas.pixel)) * site.region
    u, v = posed(canvas, site.x, site.y, canvas.uniform(num, 0.6, 2.5))
    shift = per_picture(canvas.uniform(num, -0.5, 0.5))
    piece = sample(site.rgb, u + shift, v - shift)
    edge = torch.exp(-((shape / (1.5 * canvas.pixel)) ** 2)) * site.region
    dim = per_picture(canvas.uniform(num, 0.0, 0.4))
    rgb = mix(site.rgb, piece * per_picture(canvas.uniform(num, 0.75, 1.2))[:, None], alpha)
    return (rgb * (1.0 - edge * dim)[:, None]).clamp(0, 1), alpha


def warped(site: Site) -> Painted:
    """The surface twisted locally, with a faint shade that makes it visible."""
    canvas, num = site.canvas, len(site)
    x, y = canvas.axes()
    radius = per_picture(_radius(site) * 1.2)
    dx, dy = x - per_picture(site.x), y - per_picture(site.y)
    fall = torch.exp(-(dx**2 + dy**2) / radius**2) * site.region
    turn = per_picture(canvas.uniform(num, 1.2, 3.0)) * fall
    turned_x = per_picture(site.x) + turn.cos() * dx - turn.sin() * dy
    turned_y = per_picture(site.y) + turn.sin() * dx + turn.cos() * dy
    shade = 1.0 + fall * per_picture(canvas.uniform(num, -0.45, 0.35))
    rgb = (sample(site.rgb, turned_x, turned_y) * shade[:, None]).clamp(0, 1)
    return rgb, step(fall - 0.3, 0.3)


def smeared(site: Site) -> Painted:
    """The surface wiped in one direction. Held out: never drawn in pretraining."""
    canvas, num = site.canvas, len(site)
    alpha = cover(_blob(site, wobble=0.4), torch.full_like(site.x, 5.0 * canvas.pixel))
    alpha = alpha * site.region
    angle, length = canvas.uniform(num, 0, math.pi), canvas.uniform(num, 0.1, 0.3)
    x, y = canvas.axes()
    wiped = torch.zeros_like(site.rgb)
    for tap in torch.linspace(-1.0, 1.0, 7).tolist():
        dx, dy = per_picture(angle.cos() * length * tap), per_picture(angle.sin() * length * tap)
        wiped = wiped + sample(site.rgb, x + dx, y + dy) / 7.0
    tone = per_picture(canvas.uniform(num, 0.6, 1.3))[:, None]
    return mix(site.rgb, (wiped * tone).clamp(0, 1), alpha), alpha


def cut(site: Site) -> Painted:
    """One straight dark cut. Held out: never drawn in pretraining."""
    width = site.canvas.uniform(len(site), 1.5, 3.5) * site.canvas.pixel
    alpha = _line(site, width, bend=0.0, length=site.area.sqrt() * 3.0 + 0.12) * site.region
    return mix(site.rgb, site.rgb * 0.12, alpha), alpha


DEFECTS: dict[str, Defect] = {
    "scratched": scratch,
    "stained": stain,
    "dented": dent,
    "broken": broken,
    "torn": tear,
    "scuffed": scuff,
    "dirty": dirt,
    "contaminated": foreign,
    "swapped": swapped,
    "warped": warped,
}
"""Kinds drawn in pretraining, by the adjective for an object in that state."""
NOUNS: dict[str, str] = {
    "scratched": "scratch",
    "stained": "stain",
    "dented": "dent",
    "broken": "break",
    "torn": "tear",
    "scuffed": "scuff",
    "dirty": "dirt",
    "contaminated": "contamination",
    "swapped": "swap",
    "warped": "warp",
    "smeared": "smear",
    "cut": "cut",
}
"""Noun for the defect of each state."""
HELD_OUT_DEFECTS: dict[str, Defect] = {"smeared": smeared, "cut": cut}
"""Kinds drawn in evaluation only."""


def _coin(site: Site) -> Numbers:
    return site.canvas.chance(len(site), 0.5)


def _strength(site: Site) -> Numbers:
    return site.canvas.uniform(len(site), 0.45, 1.0)


def _radius(site: Site) -> Numbers:
    """Radius of a disc with the defect's area; the whole picture has an area of 4."""
    return (site.area * 4.0 / math.pi).sqrt()


def _any_colour(site: Site) -> Tensor:
    num, canvas = len(site), site.canvas
    hue, saturation = canvas.uniform(num, 0, 1), canvas.uniform(num, 0, 1) ** 1.5
    return hsv_to_rgb(hue, saturation, canvas.uniform(num, 0.02, 1.0))


def _contrasting(site: Site) -> Tensor:
    """A slightly tinted tone, clearly darker or lighter than the surface."""
    grey = (site.rgb.mean(1) * site.region).sum((1, 2)) / site.region.sum((1, 2)).clamp_min(1.0)
    lighter = (site.canvas.uniform(len(site), 0.2, 0.8) > grey).float()
    tone = lighter * (grey + 0.35).clamp(0.6, 1.0) + (1.0 - lighter) * (grey - 0.35).clamp(0, 0.4)
    tint = hsv_to_rgb(
        site.canvas.uniform(len(site), 0, 1),
        site.canvas.uniform(len(site), 0, 0.4),
        torch.ones_like(tone),
    )
    return tint * tone[:, None, None, None]


def _blob(site: Site, wobble: float) -> Planes:
    """Signed distance of a roundish patch with an irregular outline."""
    canvas, num = site.canvas, len(site)
    u, v = posed(canvas, site.x, site.y, canvas.uniform(num, 0, 2 * math.pi))
    stretch = per_picture(canvas.uniform(num, 1.0, 2.5).sqrt())
    u, v = u / stretch, v * stretch
    angle = torch.atan2(v, u)
    outline = torch.ones_like(u)
    for harmonic in (2, 3, 5):
        size = per_picture(canvas.uniform(num, 0.0, 1.0)) * wobble / harmonic
        phase = per_picture(canvas.uniform(num, 0, 2 * math.pi))
        outline = outline + size * torch.cos(harmonic * angle + phase)
    radius = per_picture(_radius(site))
    ragged = radius * per_picture(canvas.uniform(num, 0.0, 0.25))
    noise = clouds(canvas, canvas.uniform(num, 2.0, 8.0))
    return torch.hypot(u, v) - radius * outline.clamp_min(0.3) + ragged * noise


def _shard(site: Site) -> Planes:
    """Signed distance of a slightly ragged polygon with four random sides."""
    canvas, num = site.canvas, len(site)
    zero = torch.zeros(num, device=canvas.device)
    dx, dy = posed(canvas, site.x, site.y, zero)
    radius = _radius(site)
    start = canvas.uniform(num, 0, 2 * math.pi)
    shape = torch.full_like(dx, -1e3)
    for side in range(4):
        angle = start + side * math.pi / 2 + canvas.uniform(num, -0.6, 0.6)
        reach = radius * canvas.uniform(num, 0.5, 1.3)
        plane = dx * per_picture(angle.cos()) + dy * per_picture(angle.sin()) - per_picture(reach)
        shape = torch.maximum(shape, plane)
    ragged = clouds(canvas, canvas.uniform(num, 1.0, 4.0))
    return shape + 0.1 * per_picture(radius) * ragged


def _line(
    site: Site, width: Numbers, *, bend: float, length: Numbers, loose: float = 0.0
) -> Planes:
    """Coverage by a thin bent line through the site, or near it."""
    canvas, num = site.canvas, len(site)
    x = site.x + canvas.uniform(num, -loose, loose)
    y = site.y + canvas.uniform(num, -loose, loose)
    u, v = posed(canvas, x, y, canvas.uniform(num, 0, 2 * math.pi))
    half = per_picture(length.clamp_max(1.6) / 2.0)
    course = per_picture(canvas.uniform(num, -bend, bend)) * u**2
    if bend:
        course = course + 0.01 * clouds(canvas, canvas.uniform(num, 4.0, 12.0))
    taper = (1.0 - (u / half).abs()).clamp(0.0, 1.0).sqrt()
    distance = (v - course).abs() - per_picture(width) * 0.5 * taper
    soft = torch.full((num,), 1.2 * canvas.pixel, device=canvas.device)
    return cover(distance, soft) * (u.abs() < half)
