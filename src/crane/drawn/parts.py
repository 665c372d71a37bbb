"""The source domain: small machined and moulded parts, one on a worktop."""

from dataclasses import dataclass, replace

import numpy as np

from crane.drawn.drawing import (
    SIZE,
    Colour,
    Picture,
    Plane,
    Point,
    along,
    blob,
    clouds,
    cover,
    flat,
    hexagon,
    lit,
    mix,
    noise,
    posed,
    relief,
    somewhere,
    stroke,
    tint,
    toward,
    wander,
)
from crane.drawn.scene import Defect, Domain, Painted, Scene, named, painted

_METALS = ((0.60, 0.04, 0.74), (0.12, 0.32, 0.78), (0.07, 0.38, 0.72), (0.58, 0.10, 0.58))
"""Zinc, brass, copper and gun metal: hue, saturation and value."""
_PASTELS = ((0.10, 0.05, 0.95), (0.97, 0.20, 0.93), (0.13, 0.30, 0.94), (0.55, 0.20, 0.92))
_PLASTICS = ((0.98, 0.75, 0.72), (0.60, 0.68, 0.66), (0.36, 0.55, 0.52), (0.09, 0.78, 0.90))
_WORKTOPS = ((0.60, 0.08, 0.80), (0.09, 0.14, 0.82), (0.58, 0.22, 0.34), (0.45, 0.08, 0.60))


@dataclass(frozen=True)
class Part(Scene):
    """A part on a worktop."""

    shaded: Picture
    """The worktop in the part's shadow."""


def washer(rng: np.random.Generator) -> Part:
    """A flat metal ring, turned on a lathe."""
    centre, light = _pose(rng)
    u, v = posed(centre, 0.0)
    radius = np.hypot(u, v)
    outer = rng.uniform(74.0, 92.0)
    inner = outer * rng.uniform(0.30, 0.46)
    shape = np.maximum(radius - outer, inner - radius)
    metal = _metal(rng, along(rng, radius, 1.6), np.arctan2(v, u))
    return _place(rng, metal, shape, 4.0 * _step(-shape / 5.0), light)


def nut(rng: np.random.Generator) -> Part:
    """A hexagonal nut with a chamfer and a threaded hole."""
    centre, light = _pose(rng)
    u, v = posed(centre, rng.uniform(0.0, np.pi))
    radius = np.hypot(u, v)
    apothem = rng.uniform(70.0, 84.0)
    bore = apothem * rng.uniform(0.44, 0.54)
    shape = np.maximum(hexagon(u, v, apothem), bore - radius)
    metal = _metal(rng, noise(rng, 2.0, 14.0), u / apothem)
    height = 5.0 * _step((apothem * 1.03 - radius) / 9.0) + 3.0 * _step(-shape / 3.0)
    lathe = cover(radius - bore - 13.0, 2.0)
    height += lathe * (0.9 * np.cos((radius - bore) * 2.0 * np.pi / 4.4) - 3.0)
    metal = lit(metal, 1.0 - 0.38 * lathe)
    return _place(rng, metal, shape, height, light)


def tablet(rng: np.random.Generator) -> Part:
    """A round pressed pill with a score line."""
    centre, light = _pose(rng)
    u, v = posed(centre, rng.uniform(0.0, np.pi))
    radius = np.hypot(u, v)
    outer = rng.uniform(76.0, 94.0)
    colour = _choose(rng, _PASTELS)
    powder = 1.0 + 0.016 * noise(rng, 1.5) + 0.02 * clouds(rng, 12.0)
    dome = 22.0 * np.sqrt(np.maximum(1.0 - (radius / (1.12 * outer)) ** 2, 0.0))
    rim = 5.0 * _step((outer - radius) / 10.0)
    score = 4.0 * np.exp(-((v / 3.2) ** 2)) * cover(np.abs(u) - 0.9 * outer, 8.0)
    height = dome + rim - score + 0.25 * noise(rng, 2.5)
    return _place(rng, lit(flat(colour), powder), radius - outer, height, light)


def button(rng: np.random.Generator) -> Part:
    """A moulded plastic button with a rim and four holes."""
    centre, light = _pose(rng)
    u, v = posed(centre, rng.uniform(0.0, np.pi))
    radius = np.hypot(u, v)
    outer = rng.uniform(76.0, 92.0)
    spread, hole = outer * rng.uniform(0.19, 0.24), outer * 0.09
    holes = hole - np.hypot(np.abs(u) - spread, np.abs(v) - spread)
    shape = np.maximum(radius - outer, holes)
    dish = 9.0 * _step((radius - 0.58 * outer) / (0.18 * outer))
    rim = 10.0 * _step((outer - radius) / (0.16 * outer))
    height = dish + rim + 2.0 * _step(-holes / 4.0)
    marble = 1.0 + rng.uniform(0.02, 0.09) * clouds(rng, 30.0)
    plastic = lit(flat(_choose(rng, _PLASTICS)), marble)
    return _place(rng, plastic, shape, height, light, shine=0.55)


def _pose(rng: np.random.Generator) -> tuple[Point, Point]:
    """Where the part lies, and the direction towards the light: from above, somewhat left."""
    centre = (SIZE / 2 + rng.uniform(-11.0, 11.0), SIZE / 2 + rng.uniform(-11.0, 11.0))
    return centre, toward(-0.7 * np.pi + rng.uniform(-0.35, 0.35))


def _step(t: Plane) -> Plane:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


def _choose(rng: np.random.Generator, shades: tuple[tuple[float, float, float], ...]) -> Colour:
    return tint(rng, *shades[int(rng.integers(len(shades)))])


def _metal(rng: np.random.Generator, grain: Plane, angle: Plane) -> Picture:
    """A metal surface: its machining grain, and a sheen that changes with `angle` (radians)."""
    sheen = np.cos(2.0 * (angle - rng.uniform(0.0, np.pi)))
    brightness = 0.82 + 0.06 * grain + 0.13 * sheen + 0.05 * clouds(rng, 40.0)
    return lit(flat(_choose(rng, _METALS)), brightness)


def _worktop(rng: np.random.Generator) -> Picture:
    speckle = 1.0 + 0.03 * clouds(rng, 60.0, 2) + 0.010 * noise(rng, 1.8)
    return lit(flat(_choose(rng, _WORKTOPS)), speckle)


def _place(
    rng: np.random.Generator,
    surface: Picture,
    shape: Plane,
    height: Plane,
    light: Point,
    shine: float = 0.3,
) -> Part:
    """Light a part and lay it on the worktop, where it throws a shadow."""
    diffuse, highlight = relief(height, light)
    part = lit(surface, 0.35 + 0.65 * diffuse) + shine * highlight[..., None]
    shift = (round(-6.0 * light[1]), round(-6.0 * light[0]))
    shadow = cover(np.roll(shape, shift, axis=(0, 1)), 18.0)
    shaded = lit(_worktop(rng), 1.0 - 0.48 * shadow)
    region = cover(shape)
    return Part(mix(shaded, np.clip(part, 0.0, 1.0), region), region, light, shaded)


def chip(scene: Part, rng: np.random.Generator, area: float) -> Painted:
    """A piece broken off the edge: the shaded worktop shows beside a rough fracture."""
    u, v = posed((SIZE / 2, SIZE / 2), 0.0)
    edge = (scene.region > 0.3) & (scene.region < 0.7)
    centre = somewhere(rng, edge & (np.hypot(u, v) > 55.0))
    shape = blob(rng, centre, 1.7 * area, wobble=0.5) + 0.6 * noise(rng, 3.0)
    touched = scene.region > 0.0
    fracture = cover(shape) * touched
    grain = 0.70 + 0.20 * noise(rng, 2.0)
    rgb = mix(scene.rgb, lit(scene.rgb, grain), fracture)
    gone = cover(shape + min(5.0, 0.12 * float(np.sqrt(area)))) * touched
    broken = replace(scene, region=scene.region * (1.0 - gone))
    return painted(broken, mix(rgb, scene.shaded, gone), fracture)


def crack(scene: Part, rng: np.random.Generator, area: float) -> Painted:
    """A dark branching line with a lip that catches the light."""
    length = min(4.0 * float(np.sqrt(area)) + 4.0, 150.0)
    width = max(0.55 * area / length, 0.8)
    start = somewhere(rng, scene.region > 0.9)
    towards = np.arctan2(SIZE / 2 - start[1], SIZE / 2 - start[0])
    trunk = wander(rng, start, towards + rng.uniform(-0.9, 0.9), length, 0.55)
    shape = stroke(trunk, list(np.linspace(width, 0.45 * width, len(trunk))))
    for _ in range(int(rng.integers(1, 4)) if length > 25.0 else 0):
        root = int(rng.integers(1, len(trunk) - 1))
        (ax, ay), (bx, by) = trunk[root - 1], trunk[root]
        fork = rng.uniform(0.5, 1.1) * (1.0 if rng.random() < 0.5 else -1.0)
        heading = float(np.arctan2(by - ay, bx - ax)) + fork
        twig = wander(rng, trunk[root], heading, length * rng.uniform(0.2, 0.4), 0.5)
        shape = np.minimum(shape, stroke(twig, list(np.linspace(0.6 * width, 0.4, len(twig)))))
    shape = shape + 0.25 * noise(rng, 2.5)
    alpha = cover(shape - 0.3) * scene.region
    _, lip = relief(3.0 * cover(shape + 0.5, 3.0), scene.light, gloss=3.0)
    dark = lit(scene.rgb, np.full((SIZE, SIZE), 0.16)) + 0.10 * (1.0 - lip)[..., None]
    return painted(scene, mix(scene.rgb, dark, alpha), alpha)


def rust(scene: Part, rng: np.random.Generator, area: float) -> Painted:
    """A crust of corrosion with a ragged outline and pits."""
    shape = _spot(scene, rng, area, wobble=0.6)
    shape += min(6.0, 0.22 * float(np.sqrt(area))) * clouds(rng, 9.0)
    alpha = cover(shape, 2.0) * scene.region
    tone = np.clip(0.5 + 0.4 * clouds(rng, 7.0, 3), 0.0, 1.0)
    crust = mix(flat(tint(rng, 0.04, 0.78, 0.36)), tint(rng, 0.07, 0.82, 0.72), tone)
    diffuse, _ = relief(1.6 * noise(rng, 2.6), scene.light)
    crust = lit(crust, 0.45 + 0.55 * diffuse)
    return painted(scene, mix(scene.rgb, np.clip(crust, 0.0, 1.0), 0.94 * alpha), alpha)


def blot(scene: Part, rng: np.random.Generator, area: float) -> Painted:
    """A blot of ink or grease, darker where it dried last."""
    shape = _spot(scene, rng, area, wobble=0.35)
    alpha = cover(shape, 1.6) * scene.region
    ring = np.exp(-(((shape + 2.5) / 2.5) ** 2))
    ink = flat(tint(rng, rng.uniform(0.0, 1.0), 0.45, 0.20))
    strength = alpha * np.clip(0.74 + 0.16 * ring + 0.10 * clouds(rng, 14.0), 0.5, 0.95)
    return painted(scene, mix(scene.rgb, _sheen(ink, shape, scene.light), strength), alpha)


def _sheen(ink: Picture, shape: Plane, light: Point) -> Picture:
    _, highlight = relief(3.0 * cover(shape, 9.0), light, gloss=60.0)
    return ink + 0.25 * highlight[..., None]


def _spot(scene: Part, rng: np.random.Generator, area: float, wobble: float) -> Plane:
    centre = somewhere(rng, scene.region > 0.95)
    return blob(rng, centre, area, wobble, stretch=rng.uniform(1.0, 1.9))


DOMAIN = Domain(
    name="parts",
    role="source",
    about="machined and moulded parts on a worktop",
    classes=named(washer, nut, tablet, button),
    defects={
        "chip": Defect(chip, largest=8000),
        "crack": Defect(crack, largest=900),
        "rust": Defect(rust),
        "blot": Defect(blot),
    },
    kinds={
        "washer": ("chip", "crack", "rust"),
        "nut": ("chip", "crack", "rust"),
        "tablet": ("chip", "crack", "blot"),
        "button": ("chip", "crack", "blot"),
    },
    num_good=24,
    num_per_kind=8,
)
