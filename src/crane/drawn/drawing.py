"""What every drawn picture is made of: shapes as signed distances, noise, light.

All functions are pure and work on planes of `SIZE` x `SIZE` pixels in float64; positions are pixel
centres, x to the right and y down. A shape is its signed distance in pixels, negative inside.
Randomness comes only from the generator that is handed in, through `random`, `uniform`,
`integers` and `standard_normal`, so that a seed draws the same picture everywhere.
"""

import colorsys
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int

SIZE = 224
"""Height and width of every embedded image, in pixels."""

Plane = Float[np.ndarray, "H W"]
"""One number a pixel."""
Patch = Float[np.ndarray, "h w"]
"""One number a pixel of a part of the image."""
Picture = Float[np.ndarray, "H W 3"]
"""RGB a pixel, 0 to 1."""
Colour = tuple[float, float, float]
"""RGB, 0 to 1."""
Point = tuple[float, float]
"""x and y, in pixels."""

_BLANK = np.zeros((SIZE, SIZE))
_Y, _X = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)


def posed(
    centre: Point, angle: float, window: tuple[slice, slice] = (slice(None), slice(None))
) -> tuple[Plane, Plane]:
    """Coordinates of every pixel in a frame of its own.

    Args:
        centre: Where the frame has its origin.
        angle: How far its first axis is turned from x towards y, in radians.
        window: Rows and columns of the image to do this for.

    Returns:
        The first and the second coordinate, in pixels.
    """
    dx, dy = _X[window] - centre[0], _Y[window] - centre[1]
    cos, sin = toward(angle)
    return cos * dx + sin * dy, cos * dy - sin * dx


def toward(angle: float) -> Point:
    """The direction of an angle: its cosine and sine."""
    return float(np.cos(angle)), float(np.sin(angle))


def somewhere(rng: np.random.Generator, where: Bool[np.ndarray, "H W"]) -> Point:
    """One of the pixels marked in `where`."""
    rows, cols = np.nonzero(where)
    chosen = int(rng.integers(len(rows)))
    return float(cols[chosen]), float(rows[chosen])


def cover(distance: Plane, softness: float = 1.0) -> Plane:
    """How much of each pixel a shape covers, 0 to 1.

    Args:
        distance: The shape.
        softness: Width of the transition at its outline, in pixels.
    """
    return np.clip(0.5 - distance / softness, 0.0, 1.0)


def box(u: Plane, v: Plane, half_u: float, half_v: float, corner: float = 0.0) -> Plane:
    """A rectangle about the origin of the frame (u, v), its corners rounded by `corner` px."""
    du, dv = np.abs(u) - half_u + corner, np.abs(v) - half_v + corner
    outside = np.hypot(np.maximum(du, 0.0), np.maximum(dv, 0.0))
    return outside + np.minimum(np.maximum(du, dv), 0.0) - corner


def hexagon(u: Plane, v: Plane, apothem: float) -> Plane:
    """A regular hexagon about the origin of the frame (u, v)."""
    tilted = np.abs(u) * float(np.sqrt(3.0)) / 2.0 + np.abs(v) / 2.0
    return np.maximum(tilted, np.abs(v)) - apothem


def stroke(points: Sequence[Point], radii: Sequence[float]) -> Plane:
    """A line through `points`, `radii` px thick to either side at each of them.

    Exact near the line; further than 12 px beyond its edge the distance is only large.
    """
    plane = np.full((SIZE, SIZE), 2.0 * SIZE)
    for (ax, ay), (bx, by), ra, rb in zip(
        points[:-1], points[1:], radii[:-1], radii[1:], strict=True
    ):
        reach = max(ra, rb) + 12.0
        rows = slice(max(0, int(min(ay, by) - reach)), max(0, int(max(ay, by) + reach) + 1))
        cols = slice(max(0, int(min(ax, bx) - reach)), max(0, int(max(ax, bx) + reach) + 1))
        x, y = _X[rows, cols] - ax, _Y[rows, cols] - ay
        dx, dy = bx - ax, by - ay
        along = np.clip((x * dx + y * dy) / max(dx * dx + dy * dy, 1e-9), 0.0, 1.0)
        distance = np.hypot(x - along * dx, y - along * dy) - (ra + along * (rb - ra))
        plane[rows, cols] = np.minimum(plane[rows, cols], distance)
    return plane


def blob(
    rng: np.random.Generator, centre: Point, area: float, wobble: float = 0.25, stretch: float = 1.0
) -> Plane:
    """An irregular roundish patch.

    Args:
        rng: Draws its outline and the direction it is stretched in.
        centre: Where it lies.
        area: About how many pixels it covers.
        wobble: How far its outline strays from an ellipse, 0 to 1.
        stretch: Its length over its width.
    """
    u, v = posed(centre, rng.uniform(0.0, np.pi))
    u, v = u / np.sqrt(stretch), v * np.sqrt(stretch)
    angles = np.linspace(-np.pi, np.pi, 257)
    outline = np.ones_like(angles)
    for harmonic in range(2, 8):
        phase, size = rng.uniform(0.0, 2.0 * np.pi), rng.uniform(0.3, 1.0)
        outline += wobble * size / harmonic * np.cos(harmonic * angles + phase)
    radius = np.sqrt(area / np.pi) * np.maximum(outline, 0.2)
    return np.hypot(u, v) - np.interp(np.arctan2(v, u), angles, radius)


def wander(
    rng: np.random.Generator, start: Point, heading: float, length: float, turn: float
) -> list[Point]:
    """Points of a line that strays from its heading.

    Args:
        rng: Draws the turns.
        start: The first point.
        heading: The first direction, in radians.
        length: Length of the line, in pixels.
        turn: The largest change of direction at a point, in radians.
    """
    num_steps = max(2, min(24, round(length / 4.0)))
    points = [start]
    for _ in range(num_steps):
        heading += rng.uniform(-turn, turn)
        (x, y), (dx, dy) = points[-1], toward(heading)
        step = length / num_steps
        points.append((x + step * dx, y + step * dy))
    return points


@lru_cache(maxsize=64)
def _spline(cell: float) -> tuple[Int[np.ndarray, " H"], Float[np.ndarray, "4 H"]]:
    """The cubic B-spline through knots `cell` px apart.

    Returns:
        For each pixel the first of the four knots it depends on, and their weights.
    """
    first, t = np.divmod(np.arange(SIZE) / cell, 1.0)
    weights = ((1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, 3 * (t + t**2 - t**3) + 1, t**3)
    return first.astype(np.int64), np.stack(weights) / 6.0


def noise(rng: np.random.Generator, cell: float, across: float | None = None) -> Plane:
    """Smooth noise about 0, mostly within -1 and 1.

    Args:
        rng: Draws the noise.
        cell: Size of its grains, in pixels; their height where `across` is given.
        across: Their width.
    """
    row, down = _spline(cell)
    col, right = _spline(cell if across is None else across)
    knots = rng.uniform(-1.8, 1.8, (row[-1] + 4, col[-1] + 4))
    # Sums of slices, not a matrix product, whose last bits depend on the library and its threads.
    strips = sum(down[tap][:, None] * knots[row + tap] for tap in range(4))
    return sum(right[tap] * strips[:, col + tap] for tap in range(4))


def clouds(rng: np.random.Generator, cell: float, octaves: int = 3) -> Plane:
    """Noise of several sizes: each octave has half the grain and half the strength."""
    plane = _BLANK.copy()
    for octave in range(octaves):
        plane += noise(rng, max(cell / 2**octave, 1.0)) / 2**octave
    return plane


def along(rng: np.random.Generator, coordinate: Plane, pitch: float) -> Plane:
    """Noise from -1 to 1 that varies with one coordinate only, such as the rings of turned metal.

    Args:
        rng: Draws the noise.
        coordinate: What it depends on, in pixels.
        pitch: Distance between two independent values, in pixels.
    """
    values = rng.uniform(-1.0, 1.0, 512)
    return np.interp(coordinate / pitch % 511.0, np.arange(512.0), values)


def per_index(rng: np.random.Generator, index: Int[np.ndarray, "H W"]) -> Plane:
    """A number from -1 to 1 for each whole number, such as the tone of each thread."""
    return rng.uniform(-1.0, 1.0, 256)[index % 256]


def sample(plane: Float[np.ndarray, "R C"], x: Plane, y: Plane) -> Plane:
    """`plane` at the positions (x, y), between pixels bilinearly, beyond its border the border."""
    x = np.clip(x, 0.0, plane.shape[1] - 1.001)
    y = np.clip(y, 0.0, plane.shape[0] - 1.001)
    col, row = x.astype(np.int64), y.astype(np.int64)
    across, down = x - col, y - row
    corner = row * plane.shape[1] + col
    values = plane.ravel()
    upper = values[corner] * (1.0 - across) + values[corner + 1] * across
    corner += plane.shape[1]
    lower = values[corner] * (1.0 - across) + values[corner + 1] * across
    return upper * (1.0 - down) + lower * down


def relief(height: Plane, light: Point, gloss: float = 24.0) -> tuple[Plane, Plane]:
    """How a surface is lit.

    Args:
        height: Its height, in pixels.
        light: Direction towards the light, as seen from above.
        gloss: Exponent of the highlight; the larger, the smaller and sharper.

    Returns:
        The diffuse light, 1 where the surface is flat, and the highlight, 0 to 1.
    """
    slope_y, slope_x = np.gradient(height)
    norm = np.sqrt(1.0 + slope_x**2 + slope_y**2)
    facing = -(slope_x * light[0] + slope_y * light[1])
    diffuse = (1.0 + facing) / norm
    halfway = (0.92 + 0.38 * facing) / norm
    return np.clip(diffuse, 0.0, 2.0), np.clip(halfway, 0.0, 1.0) ** gloss


def mix(base: Picture, colour: Picture | Colour, alpha: Plane) -> Picture:
    """`colour` laid over `base` where `alpha` is 1."""
    return base + (np.asarray(colour) - base) * alpha[..., None]


def lit(picture: Picture, light: Plane) -> Picture:
    """A picture with each pixel's brightness multiplied."""
    return picture * light[..., None]


def flat(colour: Colour) -> Picture:
    """A picture of one colour."""
    return np.broadcast_to(np.asarray(colour), (SIZE, SIZE, 3)).copy()


def luma(picture: Picture) -> Plane:
    """Brightness of each pixel."""
    return 0.299 * picture[..., 0] + 0.587 * picture[..., 1] + 0.114 * picture[..., 2]


def tint(
    rng: np.random.Generator, hue: float, saturation: float, value: float, jitter: float = 0.03
) -> Colour:
    """A colour near the given hue, saturation and value (0 to 1 each)."""
    shift = rng.uniform(-jitter, jitter, 3)
    return colorsys.hsv_to_rgb(
        (hue + float(shift[0])) % 1.0,
        min(max(saturation + 2.0 * float(shift[1]), 0.0), 1.0),
        min(max(value + 2.0 * float(shift[2]), 0.0), 1.0),
    )
