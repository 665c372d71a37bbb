"""Defects of the source domain: chipped edges, cracks, rust and blots."""

from dataclasses import replace

import numpy as np

from crane.drawn.drawing import (
    SIZE,
    Picture,
    Plane,
    Point,
    blob,
    clouds,
    cover,
    flat,
    lit,
    mix,
    noise,
    posed,
    relief,
    somewhere,
    stroke,
    tint,
    wander,
)
from crane.drawn.parts import Part
from crane.drawn.scene import Defect, Painted, painted


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


DEFECTS: dict[str, Defect[Part]] = {
    "chip": Defect(chip, largest=8000),
    "crack": Defect(crack, largest=900),
    "rust": Defect(rust),
    "blot": Defect(blot),
}
"""The kinds of defect of this domain."""
