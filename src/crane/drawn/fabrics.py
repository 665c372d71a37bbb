"""A target domain of drawn textures: woven and knitted cloth."""

from dataclasses import dataclass

import numpy as np

from crane.drawn.drawing import (
    SIZE,
    Picture,
    Plane,
    Point,
    along,
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
    posed,
    somewhere,
    stroke,
    tint,
    toward,
    wander,
)
from crane.drawn.scene import Defect, Domain, Painted, Scene, named, painted

_LINENS = ((0.10, 0.16, 0.86), (0.57, 0.18, 0.74), (0.28, 0.14, 0.72), (0.02, 0.22, 0.80))
_WOOLS = ((0.97, 0.62, 0.70), (0.47, 0.45, 0.58), (0.12, 0.55, 0.86), (0.72, 0.30, 0.62))
_TARTANS = (
    ((0.98, 0.78, 0.66), (0.38, 0.55, 0.30), (0.13, 0.55, 0.88)),
    ((0.62, 0.60, 0.42), (0.38, 0.50, 0.36), (0.00, 0.05, 0.92)),
    ((0.09, 0.30, 0.82), (0.02, 0.10, 0.22), (0.99, 0.75, 0.68)),
)


@dataclass(frozen=True)
class Cloth(Scene):
    """A cloth that fills the image, and the frame its threads run in."""

    behind: Picture
    """The table under the cloth."""
    u: Plane
    """Pixels across the warp."""
    v: Plane
    """Pixels across the weft."""
    pitch: float
    """Distance of two threads, in pixels."""


def linen(rng: np.random.Generator) -> Cloth:
    """Plain weave with uneven threads."""
    u, v, pitch = _drape(rng, 6.2, 7.6)
    yarn = flat(tint(rng, *_LINENS[int(rng.integers(len(_LINENS)))]))
    return _weave(rng, (u, v, pitch), yarn, yarn * 0.94, over=(1, 2), slub=0.20)


def denim(rng: np.random.Generator) -> Cloth:
    """Warp-faced twill: indigo warp over pale weft."""
    u, v, pitch = _drape(rng, 5.4, 6.4)
    warp = flat(tint(rng, 0.60, 0.58, rng.uniform(0.40, 0.62)))
    weft = flat(tint(rng, 0.58, 0.10, 0.80))
    return _weave(rng, (u, v, pitch), warp, weft, over=(3, 4), slub=0.26)


def tartan(rng: np.random.Generator) -> Cloth:
    """Balanced twill with the same stripes in warp and weft."""
    u, v, pitch = _drape(rng, 4.6, 5.4)
    shades = [tint(rng, *shade) for shade in _TARTANS[int(rng.integers(len(_TARTANS)))]]
    sett = np.array([0] * 6 + [1] * 5 + [0, 2, 2, 0] + [1] * 5)
    palette = np.array(shades)
    warp = palette[sett[np.floor(u / pitch).astype(int) % len(sett)]]
    weft = palette[sett[np.floor(v / pitch).astype(int) % len(sett)]]
    return _weave(rng, (u, v, pitch), warp, weft, over=(2, 4), slub=0.10)


def knit(rng: np.random.Generator) -> Cloth:
    """Stockinette: columns of V-shaped stitches."""
    u, v, pitch = _drape(rng, 18.0, 23.0)
    column, across = np.floor(u / pitch).astype(int), np.abs(u / pitch % 1.0 - 0.5)
    rise = 0.72 * pitch
    row = (v + 1.15 * rise * across * 2.0) / rise
    height = np.zeros_like(u)
    for shift in (0.0, 1.0):
        lengthwise = (row + shift) % 2.0 - 1.0
        leg = 1.0 - (lengthwise / 0.95) ** 2 - ((across - 0.25) / 0.27) ** 2
        height = np.maximum(height, np.sqrt(np.maximum(leg, 0.0)))
    yarn = flat(tint(rng, *_WOOLS[int(rng.integers(len(_WOOLS)))]))
    twist = 0.07 * np.sin(2.0 * np.pi * (row * 3.0 + across * 6.0))
    tone = 0.05 * per_index(rng, np.floor(row).astype(int)) + 0.03 * per_index(rng, column)
    fuzz = 0.035 * noise(rng, 1.8) + 0.05 * clouds(rng, 45.0, 2)
    return _cloth(rng, lit(yarn, 0.38 + 0.66 * height + twist * height + tone + fuzz), u, v, pitch)


def _drape(rng: np.random.Generator, finest: float, coarsest: float) -> tuple[Plane, Plane, float]:
    """The threads' frame: turned a little, and pulled a little out of true."""
    centre = (rng.uniform(0.0, SIZE), rng.uniform(0.0, SIZE))
    u, v = posed(centre, rng.uniform(-0.16, 0.16))
    u, v = u + 2.2 * noise(rng, 70.0), v + 2.2 * noise(rng, 70.0)
    return u, v, rng.uniform(finest, coarsest)


def _weave(
    rng: np.random.Generator,
    threads: tuple[Plane, Plane, float],
    warp: Picture,
    weft: Picture,
    over: tuple[int, int],
    slub: float,
) -> Cloth:
    """Interlace warp and weft.

    Args:
        rng: Draws the threads' tones.
        threads: The frame of the threads and their pitch.
        warp: Colour of the warp at each pixel.
        weft: Colour of the weft at each pixel.
        over: The warp lies on top for so many weft threads of so many, one further each thread.
        slub: How uneven the threads are.
    """
    u, v, pitch = threads
    iu, iv = np.floor(u / pitch).astype(int), np.floor(v / pitch).astype(int)
    on_top = (iu + iv) % over[1] < over[0]
    fu, fv = u / pitch % 1.0 - 0.5, v / pitch % 1.0 - 0.5
    warp_tone = slub * (0.5 * per_index(rng, iu) + 0.4 * along(rng, v + 977.0 * (iu % 61), 19.0))
    weft_tone = slub * (0.5 * per_index(rng, iv) + 0.4 * along(rng, u + 977.0 * (iv % 61), 19.0))
    round_warp = np.sqrt(np.maximum(1.0 - (1.75 * fu) ** 2, 0.0)) * (1.0 - 0.55 * fv**2)
    round_weft = np.sqrt(np.maximum(1.0 - (1.75 * fv) ** 2, 0.0)) * (1.0 - 0.55 * fu**2)
    fibre = 0.022 * noise(rng, 1.6) + 0.035 * clouds(rng, 60.0, 2)
    shown_warp = lit(warp, 0.42 + 0.60 * round_warp + warp_tone + fibre)
    shown_weft = lit(weft, 0.42 + 0.60 * round_weft + weft_tone + fibre)
    return _cloth(rng, np.where(on_top[..., None], shown_warp, shown_weft), u, v, pitch)


def _cloth(rng: np.random.Generator, rgb: Picture, u: Plane, v: Plane, pitch: float) -> Cloth:
    """Lay the cloth in slight folds over a table that contrasts with it."""
    light = toward(-0.75 * np.pi + rng.uniform(-0.4, 0.4))
    folds = 1.0 + 0.07 * noise(rng, 95.0)
    table = tint(rng, 0.08, 0.30, 0.13) if luma(rgb).mean() > 0.3 else tint(rng, 0.09, 0.4, 0.8)
    behind = lit(flat(table), 1.0 + 0.2 * clouds(rng, 8.0))
    whole = np.ones((SIZE, SIZE))
    return Cloth(np.clip(lit(rgb, folds), 0.0, 1.0), whole, light, behind, u, v, pitch)


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


DOMAIN = Domain(
    name="fabrics",
    role="target",
    about="woven and knitted cloth",
    classes=named(linen, denim, tartan, knit),
    defects={
        "hole": Defect(hole, largest=9000),
        "snag": Defect(snag, largest=1500),
        "fade": Defect(fade),
        "misweave": Defect(misweave, largest=8000),
    },
    kinds={
        "linen": ("hole", "snag", "misweave"),
        "denim": ("hole", "fade", "misweave"),
        "tartan": ("hole", "snag", "fade"),
        "knit": ("hole", "snag", "fade"),
    },
)
