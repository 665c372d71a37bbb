"""Electronic components as seen from above: what each kind looks like and where it is soldered."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from crane.drawn.drawing import Colour, Picture, Plane, Point, box, cover, lit, mix, relief

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
