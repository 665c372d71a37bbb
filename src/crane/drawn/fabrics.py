"""A target domain of drawn textures: woven and knitted cloth."""

from dataclasses import dataclass

import numpy as np

from crane.drawn.drawing import (
    SIZE,
    Picture,
    Plane,
    along,
    clouds,
    flat,
    lit,
    luma,
    noise,
    per_index,
    posed,
    tint,
    toward,
)
from crane.drawn.scene import Scene

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
