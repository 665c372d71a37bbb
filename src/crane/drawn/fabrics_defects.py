"""Defects of cloth: holes, snags, bleached patches and faults of the weave."""

import numpy as np

from crane.drawn.drawing import (
    SIZE,
    Picture,
    Plane,
    Point,
    blob,
    box,
    clouds,
    cover,
    flat,
    lit,
    luma,
    mix,
    noise,
    per_index,
    somewhere,
    stroke,
    toward,
    wander,
)
from crane.drawn.fabrics import Cloth
from crane.drawn.scene import Defect, Painted, painted


def hole(cloth: Cloth, rng: np.random.Generator, area: float) -> Painted:
    """A hole: the dark table shows between frayed ends of thread."""
    size = float(np.sqrt(area))
    shape = blob(rng, _within(rng, 0.3 * size), area, wobble=0.4, stretch=rng.uniform(1.0, 1.5))
    fray = min(4.5, 0.16 * size)
    ends = per_index(rng, np.floor(cloth.u / cloth.pitch * 2.0).astype(int))
    ends = ends + per_index(rng, np.floor(cloth.v / cloth.pitch * 2.0).astype(int))
    outline = shape + fray * 0.7 * ends
    alpha = cover(outline)
    rim = cover(outline - 1.5, 5.0)
    rgb = lit(cloth.rgb, 1.0 - 0.45 * rim * alpha)
    depth = cover(outline + 1.0, 2.5)
    rgb = mix(rgb, cloth.behind, depth)
    for _ in range(int(rng.integers(1, 4)) if area > 250.0 else 0):
        thread = _loose(rng, shape, size)
        strand = cover(thread) * alpha
        rgb = mix(rgb, _yarn(cloth), strand)
    return painted(cloth, rgb, alpha)


def snag(cloth: Cloth, rng: np.random.Generator, area: float) -> Painted:
    """A pulled thread that stands out as a loop and throws a shadow."""
    length = min(2.2 * float(np.sqrt(area)) + 5.0, 120.0)
    width = min(max(0.34 * area / length, 0.9), 3.4)
    start = _within(rng, 0.3 * length)
    curl, heading = _sign(rng) * rng.uniform(2.5, 5.5), rng.uniform(0.0, 2.0 * np.pi)
    loop, num_steps = [start], 20
    for step in range(num_steps):
        dx, dy = toward(heading + curl * (step / num_steps) ** 1.5 + rng.uniform(-0.12, 0.12))
        x, y = loop[-1]
        loop.append((x + dx * length / num_steps, y + dy * length / num_steps))
    radii = [width] * len(loop)
    thread = stroke(loop, radii)
    fallen = [(x - 1.6 * width * cloth.light[0], y - 1.6 * width * cloth.light[1]) for x, y in loop]
    shadow = 0.62 * cover(stroke(fallen, radii), 2.0)
    strand = cover(thread)
    rgb = lit(cloth.rgb, 1.0 - shadow)
    shade = np.clip(0.75 - 0.6 * thread / width, 0.6, 1.35)
    rgb = mix(rgb, np.clip(lit(_yarn(cloth), shade), 0.0, 1.0), strand)
    return painted(cloth, rgb, np.maximum(shadow, strand))


def fade(cloth: Cloth, rng: np.random.Generator, area: float) -> Painted:
    """A bleached patch: the dye is gone, the weave is whole."""
    size = float(np.sqrt(area))
    centre = _within(rng, 0.3 * size)
    shape = blob(rng, centre, area, wobble=0.45, stretch=rng.uniform(1.0, 2.0))
    shape += min(5.0, 0.15 * size) * clouds(rng, 12.0, 2)
    alpha = cover(shape, min(4.0, 1.0 + 0.05 * size))
    grey = luma(cloth.rgb)[..., None]
    pale = (0.34 + 0.66 * (0.3 * cloth.rgb + 0.7 * grey)) * np.array([1.0, 0.97, 0.90])
    return painted(cloth, mix(cloth.rgb, pale, 0.9 * alpha), alpha)


def misweave(cloth: Cloth, rng: np.random.Generator, area: float) -> Painted:
    """A band where threads float over one another instead of interlacing."""
    thickness = max(0.35 * float(np.sqrt(area)) * rng.uniform(0.8, 1.5), 1.4)
    length = area / (2.0 * thickness)
    centre = _within(rng, 0.2 * length)
    row, col = round(centre[1]), round(centre[0])
    u, v = cloth.u - cloth.u[row, col], cloth.v - cloth.v[row, col]
    if rng.random() < 0.5:
        u, v = v, u
    fine = min(cloth.pitch, 7.0)
    index = np.floor(v / fine).astype(int)
    ragged = 0.5 * fine * per_index(rng, index)
    alpha = cover(box(u + ragged, v, length / 2.0, thickness))
    profile = np.sqrt(np.maximum(1.0 - (1.9 * (v / fine % 1.0 - 0.5)) ** 2, 0.0))
    tone = 0.25 + 0.85 * profile + 0.12 * per_index(rng, index) + 0.04 * noise(rng, 2.0)
    floats = np.clip(lit(_yarn(cloth), tone), 0.0, 1.0)
    return painted(cloth, mix(cloth.rgb, floats, alpha), alpha)


def _within(rng: np.random.Generator, margin: float) -> Point:
    """A point at least `margin` px (at most a third of the image) from the border."""
    margin = min(max(margin, 6.0), SIZE / 3.0)
    x, y = rng.uniform(margin, SIZE - margin, 2)
    return float(x), float(y)


def _yarn(cloth: Cloth) -> Picture:
    """The colour of the cloth's brightest threads."""
    shade = luma(cloth.rgb)
    red, green, blue = cloth.rgb[shade >= np.quantile(shade, 0.75)].mean(axis=0)
    return flat((float(red), float(green), float(blue)))


def _sign(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _loose(rng: np.random.Generator, shape: Plane, size: float) -> Plane:
    """A thread that hangs into a hole from its edge."""
    start = somewhere(rng, np.abs(shape) < 1.5)
    inner_rows, inner_cols = np.nonzero(shape <= np.quantile(shape, 0.002))
    towards = np.arctan2(inner_rows.mean() - start[1], inner_cols.mean() - start[0])
    line = wander(rng, start, float(towards) + rng.uniform(-0.5, 0.5), 0.6 * size, 0.5)
    return stroke(line, [1.2] * len(line))


DEFECTS: dict[str, Defect[Cloth]] = {
    "hole": Defect(hole, largest=9000),
    "snag": Defect(snag, largest=1500),
    "fade": Defect(fade),
    "misweave": Defect(misweave, largest=8000),
}
"""The kinds of defect of this domain."""
