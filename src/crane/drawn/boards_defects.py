"""Defects of assembled boards: missing and skewed components, burns and solder bridges."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from crane.drawn.boards import Board, mount, position, remove
from crane.drawn.boards_components import TIN, Component, pads
from crane.drawn.drawing import (
    blob,
    clouds,
    cover,
    flat,
    lit,
    mix,
    noise,
    relief,
    somewhere,
)
from crane.drawn.scene import Defect, Painted, painted


def missing(board: Board, rng: np.random.Generator, area: float) -> Painted:
    """A component was never mounted: its empty pads show."""
    return Painted(*remove(board, _nearest(board.components, rng, area)))


def skewed(board: Board, rng: np.random.Generator, area: float) -> Painted:
    """A component turned and shifted before the solder set."""
    angular = [part for part in board.components if part.kind != "can"]  # a turned disc looks well
    component = _nearest(angular, rng, 0.6 * area)
    board, left = remove(board, component)
    side = 1.0 if rng.random() < 0.5 else -1.0
    freedom = min(1.0, 26.0 / max(component.half_x, component.half_y))
    dx, dy = (float(shift) for shift in rng.uniform(-6.0, 6.0, 2))
    moved = replace(
        component,
        x=component.x + dx,
        y=component.y + dy,
        turn=component.turn + side * freedom * rng.uniform(0.35, 0.9),
    )
    board, entered = mount(board, moved)
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
    centre = position(board, x + half_x, y + half_y)
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


DEFECTS: dict[str, Defect[Board]] = {
    "missing": Defect(missing, smallest=300, largest=3600),
    "skewed": Defect(skewed, smallest=400, largest=4500),
    "burn": Defect(burn),
    "bridge": Defect(bridge, largest=900),
}
"""The kinds of defect of this domain."""
