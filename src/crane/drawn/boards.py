"""A target domain of drawn assemblies: printed circuit boards, and the components on them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from crane.drawn.drawing import (
    SIZE,
    Colour,
    Patch,
    Picture,
    Plane,
    Point,
    blob,
    box,
    clouds,
    cover,
    flat,
    lit,
    mix,
    noise,
    posed,
    relief,
    sample,
    somewhere,
    tint,
    toward,
)
from crane.drawn.scene import Defect, Domain, Painted, Scene, named, painted

TIN: Colour = (0.76, 0.77, 0.78)
"""Solder."""
_GOLD: Colour = (0.85, 0.68, 0.32)
_CORNERS = {"can": 17.0, "crystal": 7.5}


@dataclass(frozen=True)
class Component:
    """A part soldered to a board, in the board's frame (pixels from its centre)."""

    kind: str
    x: float
    y: float
    half_x: float
    half_y: float
    turn: float = 0.0
    """Its own rotation, in radians."""

    @property
    def area(self) -> float:
        """Pixels it covers."""
        return 4.0 * self.half_x * self.half_y


class Look(NamedTuple):
    """What a component looks like in a window of the image."""

    rgb: Picture
    alpha: Plane
    """How much of each pixel it covers."""


def outline(part: Component, u: Plane, v: Plane) -> Plane:
    """The shape that throws a component's shadow, in its own frame."""
    return box(u, v, part.half_x, part.half_y, _CORNERS.get(part.kind, 2.0))


def look(part: Component, u: Plane, v: Plane, light: Point) -> Look:
    """Draw a component.

    Args:
        part: Which component.
        u: First coordinate of the pixels in the component's own frame.
        v: Second coordinate.
        light: Direction towards the light.
    """
    drawn = _LOOKS[part.kind](part, u, v, light)
    return Look(np.clip(drawn.rgb, 0.0, 1.0), drawn.alpha)


def pads(component: Component) -> list[tuple[float, float, float, float]]:
    """Where a component is soldered: centres and half sizes in the board's frame."""
    x, y, hx, hy = component.x, component.y, component.half_x, component.half_y
    if component.kind == "chip":
        rows = 9.0 * np.arange(-_legs(component), _legs(component) + 1)
        return [(x + side * (hx - 2.0), y + float(r), 4.5, 2.8) for side in (-1, 1) for r in rows]
    if component.kind == "header":
        last = int((max(hx, hy) - 5.0) // 13.0)
        steps = [13.0 * i for i in range(-last, last + 1)]
        return [(x + s, y, 4.2, 4.2) if hx > hy else (x, y + s, 4.2, 4.2) for s in steps]
    if hy > hx:
        return [(x, y + side * 0.75 * hy, hx, 0.3 * hy) for side in (-1, 1)]
    return [(x + side * 0.75 * hx, y, 0.3 * hx, 0.7 * hy) for side in (-1, 1)]


def _body(distance: Plane, light: Point, colour: Picture, gloss: float) -> Look:
    """A moulded body with bevelled edges."""
    diffuse, highlight = relief(3.0 * np.clip(-distance / 3.0, 0.0, 1.0), light)
    return Look(lit(colour, 0.4 + 0.6 * diffuse) + gloss * highlight[..., None], cover(distance))


def _colour(plane: Plane, rgb: tuple[float, float, float]) -> Picture:
    return np.broadcast_to(np.asarray(rgb), (*plane.shape, 3)).copy()


def _over(lower: Look, upper: Look) -> Look:
    alpha = np.maximum(lower.alpha, upper.alpha)
    return Look(mix(lower.rgb, upper.rgb, upper.alpha), alpha)


def _chip(part: Component, u: Plane, v: Plane, light: Point) -> Look:
    """A black package with legs along its two long sides."""
    pitch = 9.0
    leg = box(
        np.abs(u) - part.half_x + 3.0,
        v - pitch * np.round(np.clip(v / pitch, -_legs(part), _legs(part))),
        4.0,
        2.2,
    )
    legs = _body(leg, light, _colour(u, TIN), 0.1)
    body = _body(
        box(u, v, part.half_x - 5.0, part.half_y, 2.0), light, _colour(u, (0.13, 0.13, 0.14)), 0.04
    )
    package = _over(legs, body)
    dot = cover(np.hypot(u + part.half_x - 12.0, v + part.half_y - 7.0) - 2.2)
    print_ = sum(cover(box(u, v - y, 0.5 * part.half_x - y / 4.0, 1.2)) for y in (-4.0, 1.0, 6.0))
    return Look(mix(package.rgb, (0.52, 0.52, 0.52), np.clip(dot + print_, 0, 1)), package.alpha)


def _legs(part: Component) -> float:
    return float(np.floor((part.half_y - 4.0) / 9.0))


def _two_ends(part: Component, u: Plane, v: Plane) -> Plane:
    """Distance from the middle towards the soldered ends, 1 at the ends."""
    return np.abs(v) / part.half_y if part.half_y > part.half_x else np.abs(u) / part.half_x


def _ended(
    rgb: tuple[float, float, float],
) -> Callable[[Component, Plane, Plane, Point], Look]:
    """A small block of one colour with tinned ends."""

    def look(part: Component, u: Plane, v: Plane, light: Point) -> Look:
        ends = cover((0.62 - _two_ends(part, u, v)) * 10.0)
        colour = mix(_colour(u, rgb), TIN, ends)
        return _body(box(u, v, part.half_x, part.half_y, 1.0), light, colour, 0.12)

    return look


def _tantalum(part: Component, u: Plane, v: Plane, light: Point) -> Look:
    colour = mix(_colour(u, (0.86, 0.62, 0.16)), (0.42, 0.20, 0.08), cover(u + 0.55 * part.half_x))
    return _body(box(u, v, part.half_x, part.half_y, 1.5), light, colour, 0.10)


def _crystal(part: Component, u: Plane, v: Plane, light: Point) -> Look:
    distance = box(u, v, part.half_x, part.half_y, part.half_y - 0.5)
    lid = _body(distance + 3.0, light, _colour(u, (0.70, 0.71, 0.73)), 0.25)
    return _over(_body(distance, light, _colour(u, (0.60, 0.61, 0.63)), 0.2), lid)


def _can(part: Component, u: Plane, v: Plane, light: Point) -> Look:
    """An electrolytic capacitor from above: aluminium, the minus side printed black."""
    radius = np.hypot(u, v)
    top = mix(_colour(u, (0.74, 0.75, 0.77)), (0.12, 0.12, 0.16), cover(u + 0.45 * part.half_x))
    score = np.minimum(np.abs(u + v), np.abs(u - v)) * 0.7 - 0.5
    top = lit(top, 1.0 - 0.3 * cover(score, 1.5) * cover(radius - 0.6 * part.half_x))
    sleeve = _body(radius - part.half_x, light, _colour(u, (0.30, 0.31, 0.36)), 0.25)
    return _over(sleeve, _body(radius - part.half_x + 3.0, light, top, 0.15))


def _lamp(part: Component, u: Plane, v: Plane, light: Point) -> Look:
    """A white package with a round yellow lens."""
    frame = _body(
        box(u, v, part.half_x, part.half_y, 1.5), light, _colour(u, (0.90, 0.90, 0.88)), 0.1
    )
    lens = np.hypot(u, v) - 0.74 * part.half_x
    _, highlight = relief(5.0 * cover(lens, 6.0), light)
    glow = _colour(u, (0.93, 0.80, 0.30)) + 0.5 * highlight[..., None]
    notch = cover(u + v + 1.55 * part.half_x)
    return _over(
        Look(mix(frame.rgb, (0.25, 0.45, 0.25), notch), frame.alpha), Look(glow, cover(lens))
    )


def _header(part: Component, u: Plane, v: Plane, light: Point) -> Look:
    """A black strip with gold pins."""
    lengthwise = u if part.half_x > part.half_y else v
    crosswise = v if part.half_x > part.half_y else u
    last = np.floor((max(part.half_x, part.half_y) - 5.0) / 13.0)
    nearest = 13.0 * np.clip(np.round(lengthwise / 13.0), -last, last)
    pin = _body(box(lengthwise - nearest, crosswise, 2.8, 2.8, 0.5), light, _colour(u, _GOLD), 0.5)
    strip = box(u, v, part.half_x, part.half_y, 1.0)
    strip = np.maximum(strip, 1.6 - np.hypot(lengthwise - nearest - 6.5, np.abs(crosswise) - 7.5))
    return _over(_body(strip, light, _colour(u, (0.11, 0.11, 0.12)), 0.08), pin)


_LOOKS: dict[str, Callable[[Component, Plane, Plane, Point], Look]] = {
    "chip": _chip,
    "resistor": _ended((0.14, 0.14, 0.16)),
    "ceramic": _ended((0.66, 0.50, 0.34)),
    "tantalum": _tantalum,
    "crystal": _crystal,
    "can": _can,
    "lamp": _lamp,
    "header": _header,
}


_SILK = (0.90, 0.92, 0.90)
_SOLDER_MASKS = {
    "driver": ((0.40, 0.75, 0.34), (0.60, 0.78, 0.46)),
    "matrix": ((0.62, 0.20, 0.16), (0.50, 0.10, 0.22)),
    "socket": ((0.99, 0.78, 0.50), (0.78, 0.55, 0.40)),
}


@dataclass(frozen=True)
class Board(Scene):
    """A board, its frame and what is mounted on it."""

    bare: Picture
    """The board before assembly: traces, pads and print."""
    centre: Point
    """Where its centre lies in the image."""
    angle: float
    """How far it is turned, in radians."""
    components: tuple[Component, ...]


def driver(rng: np.random.Generator) -> Board:
    """A motor driver: one large chip, two cans, a crystal and small parts."""
    return _assemble(rng, "driver")


def matrix(rng: np.random.Generator) -> Board:
    """A lamp matrix: light-emitting diodes in rows and columns, a resistor a row."""
    return _assemble(rng, "matrix")


def socket(rng: np.random.Generator) -> Board:
    """A breakout board: pin headers along two edges, two slim chips, ceramic capacitors."""
    return _assemble(rng, "socket")


_ROWS = (-72.0, -36.0, 0.0, 36.0, 72.0)
_LAYOUTS = {
    "driver": (
        Component("chip", -4.0, -24.0, 27.0, 32.0),
        *(Component("can", -66.0, y, 17.0, 17.0) for y in (-48.0, -4.0)),
        *(Component("resistor", x, 42.0, 6.0, 11.0) for x in (-44.0, -22.0, 0.0, 22.0, 44.0)),
        *(Component("tantalum", 64.0, y, 14.0, 9.0) for y in (-56.0, -32.0)),
        Component("crystal", 64.0, -4.0, 18.0, 8.0),
        Component("header", 0.0, 78.0, 72.0, 7.0),
    ),
    "matrix": (
        *(Component("lamp", x, y, 11.0, 11.0) for x in _ROWS[:-1] for y in _ROWS),
        *(Component("resistor", 76.0, y, 11.0, 6.0) for y in _ROWS),
    ),
    "socket": (
        *(Component("header", x, 0.0, 7.0, 72.0) for x in (-80.0, 80.0)),
        *(Component("chip", x, -36.0, 18.0, 40.0) for x in (-34.0, 28.0)),
        *(Component("ceramic", x, 34.0, 6.0, 10.0) for x in (-48.0, -24.0, 0.0, 24.0, 48.0)),
        *(Component("tantalum", x, 70.0, 14.0, 8.0) for x in (-30.0, 24.0)),
    ),
}


def _remove(board: Board, component: Component) -> tuple[Board, Plane]:
    """The board without a component, and what that had covered, its shadow included."""
    footprint = np.zeros((SIZE, SIZE))
    window, u, v = _window(board.centre, board.angle, component)
    shadow = _shadow(outline(component, u, v), board.light)
    footprint[window] = np.maximum(look(component, u, v, board.light).alpha, shadow)
    kept = tuple(other for other in board.components if other != component)
    return replace(board, rgb=mix(board.rgb, board.bare, footprint), components=kept), footprint


def _mount(board: Board, component: Component) -> tuple[Board, Plane]:
    """The board with a component, and what that covers, its shadow included."""
    rgb, footprint = board.rgb.copy(), np.zeros((SIZE, SIZE))
    window, covered = _solder(rgb, board.centre, board.angle, board.light, component)
    footprint[window] = covered
    return replace(board, rgb=rgb, components=(*board.components, component)), footprint


def _position(centre: Point, angle: float, x: float, y: float) -> Point:
    """The place in the image of a place in the board's frame."""
    cos, sin = toward(angle)
    return centre[0] + cos * x - sin * y, centre[1] + sin * x + cos * y


def _solder(
    rgb: Picture, centre: Point, angle: float, light: Point, component: Component
) -> tuple[tuple[slice, slice], Patch]:
    """Draw a component into `rgb`; returns the window it changed and how much of each pixel."""
    window, u, v = _window(centre, angle, component)
    shadow = _shadow(outline(component, u, v), light)
    drawn = look(component, u, v, light)
    rgb[window] = mix(lit(rgb[window], 1.0 - 0.5 * shadow), drawn.rgb, drawn.alpha)
    return window, np.maximum(drawn.alpha, shadow)


def _window(
    centre: Point, angle: float, component: Component
) -> tuple[tuple[slice, slice], Patch, Patch]:
    """The part of the image around a component, and the component's frame there."""
    x, y = _position(centre, angle, component.x, component.y)
    angle += component.turn
    cos, sin = map(abs, toward(angle))
    reach_x = cos * component.half_x + sin * component.half_y + 8.0
    reach_y = sin * component.half_x + cos * component.half_y + 8.0
    window = (
        slice(max(0, int(y - reach_y)), max(1, int(y + reach_y))),
        slice(max(0, int(x - reach_x)), max(1, int(x + reach_x))),
    )
    return (window, *posed((x, y), angle, window))


def _shadow(distance: Plane, light: Point) -> Plane:
    shift = (round(-3.0 * light[1]), round(-3.0 * light[0]))
    return cover(np.roll(distance, shift, axis=(0, 1)), 4.0)


class _Artwork(NamedTuple):
    """The layers of a bare board, 0 to 1, in its own frame with the centre in the middle."""

    copper: Plane
    tin: Plane
    silk: Plane


@lru_cache
def _artwork(name: str) -> _Artwork:
    """Copper between the pads, tinned pads and a printed outline around each component."""
    u, v = posed((SIZE / 2, SIZE / 2), 0.0)
    copper, tin, silk = (np.full((SIZE, SIZE), float(SIZE)) for _ in range(3))
    places = [pad for part in _LAYOUTS[name] for pad in pads(part)]
    for first, second in zip(places[::2], places[5::2], strict=False):
        copper = np.minimum(copper, _trace(u, v, first[:2], second[:2]))
    for x, y, half_x, half_y in places:
        tin = np.minimum(tin, box(u - x, v - y, half_x, half_y, 1.0))
    for part in _LAYOUTS[name]:
        frame = box(u - part.x, v - part.y, part.half_x + 3.5, part.half_y + 3.5, 1.0)
        silk = np.minimum(silk, np.abs(frame) - 0.6)
    return _Artwork(cover(copper), cover(tin), cover(silk))


def _trace(u: Plane, v: Plane, start: Point, end: Point) -> Plane:
    """Copper from one pad to another: a diagonal, then straight."""
    (ax, ay), (bx, by) = start, end
    bend = min(abs(bx - ax), abs(by - ay))
    corner = (ax + float(np.sign(bx - ax)) * bend, ay + float(np.sign(by - ay)) * bend)
    plane = np.full((SIZE, SIZE), float(SIZE))
    for (px, py), (qx, qy) in ((start, corner), (corner, end)):
        du, dv = qx - px, qy - py
        share = np.clip(((u - px) * du + (v - py) * dv) / max(du * du + dv * dv, 1e-9), 0.0, 1.0)
        plane = np.minimum(plane, np.hypot(u - px - share * du, v - py - share * dv) - 1.6)
    return plane


def _bare(rng: np.random.Generator, name: str, u: Plane, v: Plane, light: Point) -> Picture:
    """The board before assembly, without its surroundings."""
    shades = _SOLDER_MASKS[name]
    mask = tint(rng, *shades[int(rng.integers(len(shades)))])
    copper, tin, silk = (sample(layer, u + SIZE / 2, v + SIZE / 2) for layer in _artwork(name))
    diffuse, _ = relief(1.2 * copper, light)
    rgb = lit(mix(flat(mask), (0.95, 0.95, 0.55), 0.15 * copper), 0.5 + 0.5 * diffuse)
    rgb = mix(rgb, _SILK, 0.85 * silk)
    diffuse, highlight = relief(1.5 * tin, light)
    solder = lit(flat(TIN), 0.5 + 0.45 * diffuse) + 0.2 * highlight[..., None]
    return lit(mix(rgb, solder, tin), 1.0 + 0.05 * noise(rng, 60.0))


def _assemble(rng: np.random.Generator, name: str) -> Board:
    centre = (SIZE / 2 + rng.uniform(-7.0, 7.0), SIZE / 2 + rng.uniform(-7.0, 7.0))
    angle = rng.uniform(-0.09, 0.09) + np.pi * int(rng.integers(2))
    light = toward(-0.7 * np.pi + rng.uniform(-0.3, 0.3))
    u, v = posed(centre, angle)
    edge = box(u, v, 97.0, 97.0, 7.0)
    mat = lit(flat(tint(rng, 0.58, 0.12, 0.46)), 1.0 + 0.02 * noise(rng, 2.0))
    mat = lit(mat, (1.0 + 0.05 * noise(rng, 50.0)) * (1.0 - 0.5 * _shadow(edge, light)))
    holes = 4.5 - np.hypot(np.abs(u) - 88.0, np.abs(v) - 88.0)
    region = cover(np.maximum(edge, holes))
    bare = mix(mat, np.clip(_bare(rng, name, u, v, light), 0.0, 1.0), region)
    rgb, components = bare.copy(), []
    for part in _LAYOUTS[name]:
        dx, dy, turn = (float(shift) for shift in rng.uniform(-1.0, 1.0, 3))
        placed = replace(part, x=part.x + dx, y=part.y + dy, turn=0.025 * turn)
        _solder(rgb, centre, angle, light, placed)
        components.append(placed)
    return Board(rgb, region, light, bare, centre, angle, tuple(components))


def missing(board: Board, rng: np.random.Generator, area: float) -> Painted:
    """A component was never mounted: its empty pads show."""
    return Painted(*_remove(board, _nearest(board.components, rng, area)))


def skewed(board: Board, rng: np.random.Generator, area: float) -> Painted:
    """A component turned and shifted before the solder set."""
    angular = [part for part in board.components if part.kind != "can"]  # a turned disc looks well
    component = _nearest(angular, rng, 0.6 * area)
    board, left = _remove(board, component)
    side = 1.0 if rng.random() < 0.5 else -1.0
    freedom = min(1.0, 26.0 / max(component.half_x, component.half_y))
    dx, dy = (float(shift) for shift in rng.uniform(-6.0, 6.0, 2))
    moved = replace(
        component,
        x=component.x + dx,
        y=component.y + dy,
        turn=component.turn + side * freedom * rng.uniform(0.35, 0.9),
    )
    board, entered = _mount(board, moved)
    return Painted(board, np.maximum(left, entered))


def burn(board: Board, rng: np.random.Generator, area: float) -> Painted:
    """A scorched place: a black core, and a brown halo on board and components."""
    centre = somewhere(rng, board.region > 0.95)
    shape = blob(rng, centre, area, wobble=0.4) + min(4.0, 0.10 * area**0.5) * clouds(rng, 8.0)
    radius = float(np.sqrt(area / np.pi))
    alpha = cover(shape, min(1.0 + 0.10 * radius, 6.0)) * board.region
    core = np.clip(-shape / (0.6 * radius), 0.0, 1.0)
    halo = lit(mix(board.rgb, (0.36, 0.20, 0.08), np.full_like(core, 0.62)), 1.0 - 0.55 * core)
    soot = lit(flat((0.06, 0.05, 0.05)), 1.0 + 0.6 * clouds(rng, 4.0))
    return painted(board, mix(board.rgb, mix(halo, soot, 0.85 * core), 0.93 * alpha), alpha)


def bridge(board: Board, rng: np.random.Generator, area: float) -> Painted:
    """A splash of solder where none belongs, across two pads or in the open."""
    joints = [pad for component in board.components for pad in pads(component)]
    x, y, half_x, half_y = joints[int(rng.integers(len(joints)))]
    centre = _position(board.centre, board.angle, x + half_x, y + half_y)
    shape = blob(rng, centre, area, wobble=0.5, stretch=rng.uniform(1.2, 2.6))
    alpha = cover(shape) * board.region
    dome = np.sqrt(np.clip(-shape, 0.0, None) * 6.0 + 0.01)
    diffuse, highlight = relief(dome + 0.12 * noise(rng, 5.0), board.light, gloss=14.0)
    rim = 0.45 * np.exp(-(((shape + 0.5) / 1.2) ** 2))
    tin = lit(flat(TIN), 0.25 + 0.62 * diffuse - rim) + 0.55 * highlight[..., None]
    return painted(board, mix(board.rgb, np.clip(tin, 0.0, 1.0), alpha), alpha)


def _nearest(components: Sequence[Component], rng: np.random.Generator, area: float) -> Component:
    """One of the components of the kind whose size comes nearest to `area`."""
    nearest = min(components, key=lambda part: abs(float(np.log(part.area / area))))
    same = [part for part in components if part.kind == nearest.kind]
    return same[int(rng.integers(len(same)))]


DOMAIN = Domain(
    name="boards",
    role="target",
    about="assembled circuit boards",
    classes=named(driver, matrix, socket),
    defects={
        "missing": Defect(missing, smallest=300, largest=3600),
        "skewed": Defect(skewed, smallest=400, largest=4500),
        "burn": Defect(burn),
        "bridge": Defect(bridge, largest=900),
    },
    kinds={
        "driver": ("missing", "skewed", "burn"),
        "matrix": ("missing", "burn", "bridge"),
        "socket": ("skewed", "burn", "bridge"),
    },
)
