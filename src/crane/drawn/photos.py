"""A target domain of real photographs of surfaces, cropped, with defects painted in.

The photographs and their licences are in `photographs/`. Surfaces get spray paint, spilt oil,
gouges, withering and litter; slides get folds, bubbles and deposits.
"""

from functools import lru_cache
from importlib import resources

import numpy as np
from PIL import Image

from crane.drawn.drawing import (
    SIZE,
    Colour,
    Picture,
    Plane,
    Point,
    blob,
    clouds,
    cover,
    flat,
    lit,
    luma,
    mix,
    noise,
    posed,
    relief,
    sample,
    stroke,
    tint,
    toward,
    wander,
)
from crane.drawn.scene import Defect, Domain, Painted, Scene, named, painted

_SPRAYS = ((0.98, 0.85, 0.82), (0.58, 0.85, 0.80), (0.14, 0.85, 0.92), (0.83, 0.65, 0.70))
_LITTER = ((0.10, 0.04, 0.95), (0.57, 0.60, 0.80), (0.99, 0.75, 0.80), (0.12, 0.65, 0.95))


def brick(rng: np.random.Generator) -> Scene:
    """A pavement of bricks."""
    x, y = _view(rng, tilt=0.10, closest=0.95, widest=1.45)
    (grey,) = _channels("brick", x, y)
    clay, mortar = tint(rng, 0.03, 0.50, 0.92, jitter=0.02), tint(rng, 0.09, 0.14, 1.0)
    return _scene(rng, _toned(1.35 * grey, clay, mortar, 0.62))


def gravel(rng: np.random.Generator) -> Scene:
    """A bed of gravel."""
    x, y = _view(rng, tilt=np.pi, closest=0.55, widest=0.95)
    (grey,) = _channels("gravel", x, y)
    hue = rng.uniform(0.05, 0.62)
    return _scene(rng, _toned(1.1 * grey, tint(rng, hue, 0.10, 0.95), (1.0, 0.98, 0.95), 0.7))


def grass(rng: np.random.Generator) -> Scene:
    """A meadow."""
    x, y = _view(rng, tilt=np.pi, closest=0.55, widest=0.95)
    (grey,) = _channels("grass", x, y)
    blade = tint(rng, 0.25, 0.62, 0.86)
    return _scene(rng, _toned(1.15 * grey, blade, tint(rng, 0.20, 0.34, 1.0), 0.8))


def tissue(rng: np.random.Generator) -> Scene:
    """A microscope slide of stained colonic glands."""
    x, y = _view(rng, tilt=np.pi, closest=0.65, widest=1.05)
    stain = 1.0 + rng.uniform(-0.05, 0.05, 3)
    rgb = np.stack(_channels("tissue", x, y), axis=-1) ** stain
    return _scene(rng, 0.96 * rgb)


@lru_cache
def _photograph(name: str) -> list[Plane]:
    """The channels of a photograph, one or three, 0 to 1."""
    with (resources.files("crane.drawn") / "photographs" / f"{name}.png").open("rb") as file:
        pixels = np.atleast_3d(np.asarray(Image.open(file), dtype=np.float64) / 255.0)
    return [np.ascontiguousarray(channel) for channel in np.moveaxis(pixels, -1, 0)]


def _channels(name: str, x: Plane, y: Plane) -> list[Plane]:
    return [sample(channel, x, y) for channel in _photograph(name)]


def _view(
    rng: np.random.Generator, tilt: float, closest: float, widest: float
) -> tuple[Plane, Plane]:
    """Where in a photograph of 512 x 512 each pixel looks.

    Args:
        rng: Draws place, scale, turn and mirroring.
        tilt: The largest turn, in radians.
        closest: The smallest step from pixel to pixel, in pixels of the photograph.
        widest: The largest.
    """
    turn, step = rng.uniform(-tilt, tilt), rng.uniform(closest, widest)
    u, v = posed((SIZE / 2 - 0.5, SIZE / 2 - 0.5), turn)
    reach = step * SIZE / 2 * (abs(float(np.cos(turn))) + abs(float(np.sin(turn))))
    x, y = rng.uniform(reach, 511.0 - reach, 2)
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    return x + mirror * step * u, y + step * v


def _toned(grey: Plane, dark: Colour, bright: Colour, turning: float) -> Picture:
    """Give a grey photograph its colours back: one for its darker, one for its brighter half."""
    share = np.clip((grey - turning + 0.15) / 0.3, 0.0, 1.0)
    return mix(grey[..., None] * np.asarray(dark), grey[..., None] * np.asarray(bright), share)


def _scene(rng: np.random.Generator, rgb: Picture) -> Scene:
    contrast, middle = rng.uniform(0.9, 1.12), 0.45
    rgb = middle + contrast * (rgb - middle) + 0.02 * noise(rng, 80.0)[..., None]
    light = toward(-0.75 * np.pi + rng.uniform(-0.3, 0.3))
    return Scene(np.clip(rgb, 0.0, 1.0), np.ones((SIZE, SIZE)), light)


def spray(scene: Scene, rng: np.random.Generator, area: float) -> Painted:
    """A stroke of spray paint; the surface's own light and shade stay."""
    width = max(0.28 * float(np.sqrt(area)), 1.3)
    line = _line(rng, area / (2.0 * width), 0.7)
    shape = stroke(line, [width] * len(line)) + min(0.2 * width, 1.5) * noise(rng, 4.0)
    soft = min(0.5 * width + 0.8, 6.0)
    alpha = cover(shape, soft)
    mist = np.clip(alpha + 0.25 * noise(rng, 1.4) * alpha * (1.0 - alpha), 0.0, 1.0)
    paint = _textured(scene, tint(rng, *_SPRAYS[int(rng.integers(len(_SPRAYS)))]), 0.55)
    return painted(scene, mix(scene.rgb, paint, 0.93 * mist), alpha)


def spill(scene: Scene, rng: np.random.Generator, area: float) -> Painted:
    """A puddle of dark oil: it deepens what lies under it, and glistens."""
    shape = blob(rng, _within(rng, area), area, wobble=0.5, stretch=rng.uniform(1.0, 1.8))
    shape += min(3.0, 0.06 * float(np.sqrt(area))) * clouds(rng, 14.0)
    alpha = cover(shape, 1.5)
    rim = np.exp(-(((shape + 1.5) / 2.0) ** 2))
    wet = scene.rgb**1.6 * np.array([0.46, 0.38, 0.30]) * (1.0 - 0.4 * rim)[..., None]
    _, highlight = relief(2.2 * noise(rng, 11.0) + 2.0 * cover(shape, 8.0), scene.light, gloss=40.0)
    sky = (highlight > 0.0) * highlight * cover(shape + 2.0, 2.0)
    return painted(scene, mix(scene.rgb, wet + 0.42 * sky[..., None], alpha), alpha)


def gouge(scene: Scene, rng: np.random.Generator, area: float) -> Painted:
    """A groove torn into the surface: dark inside, its far lip catching the light."""
    length = min(3.2 * float(np.sqrt(area)) + 4.0, 190.0)
    width = max(0.62 * area / length, 0.9)
    line = _line(rng, length, 0.22)
    taper = np.sin(np.linspace(0.15, 0.85, len(line)) * np.pi)
    shape = stroke(line, list(width * taper + 0.3)) + min(0.35 * width, 1.6) * noise(rng, 3.0)
    alpha = cover(shape - 0.3, 1.2)
    trough = 1.2 * width * cover(shape, 2.0 * width + 1.0)
    diffuse, _ = relief(-trough + 0.5 * noise(rng, 2.0), scene.light)
    dust = lit(mix(scene.rgb, (0.66, 0.58, 0.50), np.full((SIZE, SIZE), 0.6)), diffuse)
    inside = lit(dust, 1.0 - 0.72 * cover(shape + 0.25 * width, 1.0 + 0.4 * width))
    return painted(scene, mix(scene.rgb, inside, alpha), alpha)


def withering(scene: Scene, rng: np.random.Generator, area: float) -> Painted:
    """A patch of dead, straw-coloured plants."""
    shape = blob(rng, _within(rng, area), area, wobble=0.5, stretch=rng.uniform(1.0, 1.6))
    shape += min(6.0, 0.16 * float(np.sqrt(area))) * clouds(rng, 7.0)
    alpha = cover(shape, min(1.0 + 0.03 * float(np.sqrt(area)), 3.0))
    straw = _textured(scene, tint(rng, 0.115, 0.48, 0.88), 1.0)
    return painted(scene, mix(scene.rgb, straw, 0.9 * alpha), alpha)


def litter(scene: Scene, rng: np.random.Generator, area: float) -> Painted:
    """A crumpled scrap of paper or foil, lying on top with its shadow."""
    size = float(np.sqrt(area))
    u, v = posed(_within(rng, area), rng.uniform(0.0, np.pi))
    shape = np.full((SIZE, SIZE), -np.inf)
    for side in range(5):
        cos, sin = toward(2.0 * np.pi * (side + rng.uniform(-0.25, 0.25)) / 5.0)
        wall = u * cos + 1.35 * v * sin
        shape = np.maximum(shape, wall - size * rng.uniform(0.42, 0.58))
    shape += min(1.0, 0.03 * size) * noise(rng, 5.0)
    reach = min(0.08 * size + 0.5, 4.0)
    shift = (round(-reach * scene.light[1]), round(-reach * scene.light[0]))
    shadow = 0.65 * cover(np.roll(shape, shift, axis=(0, 1)), 1.0 + reach)
    creases = sum(np.abs(noise(rng, max(size * grain, 3.0))) for grain in (0.5, 0.25, 0.12))
    diffuse, highlight = relief(0.055 * size * np.asarray(creases), scene.light)
    scrap = lit(flat(tint(rng, *_LITTER[int(rng.integers(len(_LITTER)))])), 0.45 + 0.5 * diffuse)
    scrap = np.clip(scrap + 0.12 * highlight[..., None], 0.0, 1.0)
    rgb = mix(lit(scene.rgb, 1.0 - shadow), scrap, cover(shape))
    return painted(scene, rgb, np.maximum(cover(shape), shadow))


def fold(scene: Scene, rng: np.random.Generator, area: float) -> Painted:
    """A pleat in the section: the tissue lies double and lets half the light through."""
    width = max(0.22 * float(np.sqrt(area)), 1.2)
    line = _line(rng, area / (2.0 * width), 0.3)
    taper = np.sin(np.linspace(0.12, 0.88, len(line)) * np.pi)
    shape = stroke(line, list(width * (0.4 + 0.8 * taper)))
    alpha = cover(shape)
    shift = max(2, round(1.5 * width))
    doubled = scene.rgb * np.roll(scene.rgb[::-1], (shift, shift), axis=(0, 1))
    edge = 0.3 * np.exp(-(((shape + 1.0) / 1.3) ** 2))
    pleat = 0.92 * doubled * np.array([0.80, 0.68, 0.72]) * (1.0 - edge)[..., None]
    return painted(scene, mix(scene.rgb, pleat, alpha), alpha)


def bubble(scene: Scene, rng: np.random.Generator, area: float) -> Painted:
    """A bubble of air under the cover glass: a dark ring around a bright, magnified view."""
    centre = _within(rng, area)
    radius = float(np.sqrt(area / np.pi))
    u, v = posed(centre, 0.0)
    shape = blob(rng, centre, area, wobble=0.06)
    alpha = cover(shape)
    zoom = 0.55 + 0.4 * np.clip(np.hypot(u, v) / radius, 0.0, 1.0) ** 3
    x, y = centre[0] + u * zoom, centre[1] + v * zoom
    inside = np.stack([sample(scene.rgb[..., channel], x, y) for channel in range(3)], axis=-1)
    thickness = max(0.10 * radius, 0.8)
    ring = np.exp(-(((shape + thickness) / thickness) ** 2))
    glint = np.exp(-(((shape + 3.0 * thickness) / thickness) ** 2))
    facing = np.clip((u * scene.light[0] + v * scene.light[1]) / radius, 0.0, 1.0)
    inside = lit(0.15 + 0.85 * inside, 1.0 - 0.82 * ring) + 0.5 * (glint * facing)[..., None]
    return painted(scene, mix(scene.rgb, inside, alpha), alpha)


def deposit(scene: Scene, rng: np.random.Generator, area: float) -> Painted:
    """A crust of precipitated dye: dark, granular, ragged."""
    shape = blob(rng, _within(rng, area), area, wobble=0.6, stretch=rng.uniform(1.0, 2.0))
    grains = noise(rng, 3.2)
    shape += min(5.0, 0.16 * float(np.sqrt(area))) * (clouds(rng, 10.0, 2) + 0.6 * grains)
    alpha = cover(shape)
    diffuse, highlight = relief(1.8 * grains, scene.light, gloss=10.0)
    crust = lit(flat(tint(rng, 0.68, 0.45, 0.24)), 0.3 + 0.7 * diffuse)
    crust = np.clip(crust + 0.10 * highlight[..., None], 0.0, 1.0)
    return painted(scene, mix(scene.rgb, crust, 0.95 * alpha), alpha)


def _within(rng: np.random.Generator, area: float) -> Point:
    """A place where a patch of `area` px lies mostly inside the image."""
    margin = min(0.45 * float(np.sqrt(area)) + 5.0, 0.4 * SIZE)
    x, y = rng.uniform(margin, SIZE - margin, 2)
    return float(x), float(y)


def _line(rng: np.random.Generator, length: float, turn: float) -> list[Point]:
    """A wandering line about a place well inside the image."""
    x, y = rng.uniform(0.3 * SIZE, 0.7 * SIZE, 2)
    heading = rng.uniform(0.0, 2.0 * np.pi)
    dx, dy = toward(heading)
    start = (float(x) - 0.5 * length * dx, float(y) - 0.5 * length * dy)
    return wander(rng, start, heading, length, turn)


def _textured(scene: Scene, colour: tuple[float, float, float], depth: float) -> Picture:
    """A colour with the light and shade of the photograph, `depth` of it."""
    shade: Plane = luma(scene.rgb)
    relative = shade / max(float(shade.mean()), 1e-3)
    return np.clip(lit(flat(colour), 1.0 - depth + depth * relative), 0.0, 1.0)


DOMAIN = Domain(
    name="photos",
    role="target",
    about="real photographs of surfaces, the defects painted in",
    classes=named(brick, gravel, grass, tissue),
    defects={
        "spray": Defect(spray),
        "spill": Defect(spill, smallest=40),
        "gouge": Defect(gouge, smallest=16, largest=3000),
        "withering": Defect(withering, smallest=40),
        "litter": Defect(litter, largest=6000),
        "fold": Defect(fold, smallest=30, largest=5000),
        "bubble": Defect(bubble, largest=9000),
        "deposit": Defect(deposit),
    },
    kinds={
        "brick": ("spray", "spill", "gouge"),
        "gravel": ("spray", "spill", "litter"),
        "grass": ("spray", "withering", "litter"),
        "tissue": ("fold", "bubble", "deposit"),
    },
)
