"""Batches for pretraining: scenes without and with a defect, masks, and facts for captions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from experiments.mini_pretraining.canvas import (
    Canvas,
    Numbers,
    Pictures,
    Planes,
    clouds,
    per_picture,
    posed,
)
from experiments.mini_pretraining.defects import DEFECTS, Defect, Site
from experiments.mini_pretraining.scenes import Scenes, draw_scenes
from experiments.mini_pretraining.shapes import SHAPES, Outline
from experiments.mini_pretraining.surfaces import PATTERNS, Pattern

PATCH = 8
"""Side of a patch of the small models in pixels."""
SEEN = 4
"""Damaged patches that `scattered` includes, or all if there are fewer."""


@dataclass
class Facts:
    """What a caption can mention about one picture."""

    pattern: str
    """Empty, like `colour`, if the surface has no name."""
    shape: str
    colour: str
    arrangement: str
    state: str
    """`flawless`, or the adjective for the defect."""
    place: str
    size: str


@dataclass
class Drawn:
    """M = 2 N pictures: N flawless ones, then the same N with a defect each."""

    images: Float[Tensor, "M 3 S S"]
    masks: Bool[Tensor, "M S S"]
    regions: Float[Tensor, "M S S"]
    """1 on the object, 0 on what lies behind it."""
    facts: list[Facts]


def draw(
    canvas: Canvas,
    num: int,
    visible: float,
    patterns: Mapping[str, Pattern] = PATTERNS,
    shapes: Mapping[str, Outline] = SHAPES,
    defects: Mapping[str, Defect] = DEFECTS,
    tinted: float = 0.0,
    natural: float = 0.0,
    uneven: float = 0.0,
) -> Drawn:
    """Draw `num` scenes, each without and with a defect.

    Masks are exact: they hold the pixels that the defect visibly changed.

    Args:
        canvas: Size and source of randomness.
        num: Number of scenes; there are twice as many pictures.
        visible: Smallest visible change of a colour channel, on a range of 1.
        patterns: Patterns of surfaces by name.
        shapes: Outlines of objects by name.
        defects: Kinds of defect by name.
        tinted: Fraction of the surfaces with patches of a second colour.
        natural: Fraction of the surfaces that are noise, cells or leaves.
        uneven: Fraction of the pictures whose light falls off towards one side.
    """
    scenes = draw_scenes(canvas, num, patterns, shapes, tinted, natural)
    x, y = _places(canvas, scenes.region)
    area = canvas.log_uniform(num, 0.0012, 0.22)
    kinds = canvas.integers(num, len(defects))
    damaged, touched = torch.empty_like(scenes.rgb), torch.empty_like(scenes.region)
    for number, defect in enumerate(defects.values()):
        chosen = (kinds == number).nonzero()[:, 0]
        if not len(chosen):
            continue
        site = Site(
            canvas=canvas,
            rgb=scenes.rgb[chosen],
            behind=scenes.background[chosen],
            other=scenes.rgb[canvas.integers(len(chosen), num)],
            region=scenes.region[chosen],
            x=x[chosen],
            y=y[chosen],
            area=area[chosen],
            light=scenes.light[chosen],
        )
        damaged[chosen], touched[chosen] = defect(site)
    change = (damaged - scenes.rgb).abs().amax(1)
    near = F.max_pool2d(change[:, None], 3, stride=1, padding=1)[:, 0]
    masks = (touched > 0.4) & (near > visible)
    images = torch.cat([_photographed(canvas, rgb, uneven) for rgb in (scenes.rgb, damaged)])
    names = list(defects)
    states = [names[k] for k in kinds.tolist()]
    facts = _facts(scenes, ["flawless"] * num, masks) + _facts(scenes, states, masks)
    masks = torch.cat([torch.zeros_like(masks), masks])
    return Drawn(images, masks, torch.cat([scenes.region, scenes.region]), facts)


def window(canvas: Canvas, drawn: Drawn, patch: int, side: int) -> Int[Tensor, "M N"]:
    """Patches of a random square window around each defect, the same for both twins.

    The window contains the centre of the defect; a defect can be larger than the window.

    Args:
        canvas: Source of randomness.
        drawn: The pictures.
        patch: Side of a patch in pixels.
        side: Side of the window in patches.

    Returns:
        Indices of the window's patches, row-major.
    """
    grid = canvas.size // patch
    masks = drawn.masks[len(drawn.masks) // 2 :].float()
    line = torch.arange(canvas.size, device=canvas.device) + 0.5
    counts = masks.sum((1, 2))
    corner = []
    for along in (1, 2):  # rows, then columns
        middle = (masks.sum(3 - along) * line).sum(1) / counts.clamp_min(1.0)
        middle = torch.where(counts > 0, middle, canvas.size / 2)
        first = middle / patch - canvas.uniform(len(masks), 0.0, 1.0) * side
        corner.append(first.round().long().clamp(0, grid - side))
    within = torch.arange(side, device=canvas.device)
    offsets = (within[:, None] * grid + within).flatten()
    kept = (corner[0] * grid + corner[1])[:, None] + offsets
    return torch.cat([kept, kept])


def scattered(canvas: Canvas, drawn: Drawn, patch: int, num: int) -> Int[Tensor, "M N"]:
    """Patches from all over each picture, the same for both twins.

    They are drawn at random, but include up to `SEEN` damaged ones. Dropping the others makes a
    step on a large picture as fast as on a small one (FLIP, 2212.00794).

    Args:
        canvas: Source of randomness.
        drawn: The pictures.
        patch: Side of a patch in pixels.
        num: Number of patches.

    Returns:
        Indices of patches, ascending.
    """
    damaged = patch_coverage(drawn.masks[len(drawn.masks) // 2 :], patch) > 0
    chance = canvas.uniform(damaged.numel(), 0.0, 1.0).view_as(damaged)
    first, which = (chance * damaged).topk(min(SEEN, num), dim=1)
    chance.scatter_add_(1, which, (first > 0).float())
    kept = chance.topk(num, dim=1).indices.sort(dim=1).values
    return torch.cat([kept, kept])


def patch_coverage(masks: Tensor, patch: int) -> Float[Tensor, "M N"]:
    """Fraction of each patch that a mask covers, row-major."""
    return F.avg_pool2d(masks[:, None].float(), patch).flatten(1)


def _places(canvas: Canvas, region: Planes) -> tuple[Numbers, Numbers]:
    """A random point in each region."""
    flat = region.flatten(1) + 1e-6
    chosen = torch.multinomial(flat, 1, generator=canvas.generator)[:, 0]
    row, col = chosen // canvas.size, chosen % canvas.size
    return (col + 0.5) * canvas.pixel - 1.0, (row + 0.5) * canvas.pixel - 1.0


def segment_features(canvas: Canvas, drawn: Drawn, patch: int) -> Float[Tensor, "M C h w"]:
    """Features of patches by what is drawn there: what a perfect guide would see, perturbed.

    They hold the share of the object, of what lies behind it and of the defect (missed in a quarter
    of the pictures), the mean colour, and smooth noise that differs between places of one surface.

    Args:
        canvas: Source of randomness.
        drawn: The pictures.
        patch: Side of a patch in pixels.
    """
    num = len(drawn.images)
    seen = canvas.uniform(num, 0.7, 2.0) * canvas.chance(num, 0.75)
    defect = drawn.masks.float() * per_picture(seen)
    segments = torch.stack([drawn.regions, 1.0 - drawn.regions, defect], dim=1)
    segments = F.avg_pool2d(segments, patch)
    colours = F.avg_pool2d(drawn.images, patch)
    colours = (colours - colours.mean((2, 3), keepdim=True)) * 2.0
    coarse = Canvas(canvas.size // patch, canvas.generator)
    places = [clouds(coarse, coarse.uniform(num, 2.0, 5.0)) for _ in range(4)]
    return torch.cat([segments, colours, 0.4 * torch.stack(places, dim=1)], dim=1)


def _photographed(canvas: Canvas, rgb: Pictures, uneven: float) -> Pictures:
    """Add exposure, slight blur, noise and uneven light, drawn for each picture separately."""
    num = len(rgb)
    if uneven:
        angle, fall = canvas.uniform(num, 0, 2 * math.pi), canvas.uniform(num, 0.0, 0.35)
        along, _ = posed(canvas, torch.zeros_like(angle), torch.zeros_like(angle), angle)
        rgb = rgb * (1.0 + along * per_picture(fall * canvas.chance(num, uneven)))[:, None]
    gain = canvas.uniform(num, 0.85, 1.15)[:, None, None, None]
    offset = canvas.uniform(num, -0.05, 0.05)[:, None, None, None]
    kernel = torch.tensor([0.25, 0.5, 0.25], device=canvas.device)
    kernel = (kernel[:, None] * kernel[None, :]).expand(3, 1, 3, 3)
    blurred = F.conv2d(F.pad(rgb, (1, 1, 1, 1), mode="replicate"), kernel, groups=3)
    soft = canvas.uniform(num, 0.0, 1.0)[:, None, None, None]
    rgb = soft * blurred + (1.0 - soft) * rgb
    noise = canvas.white(num) * per_picture(canvas.uniform(num, 0.0, 0.03))
    return (rgb * gain + offset + noise[:, None]).clamp(0, 1)


def _facts(scenes: Scenes, states: list[str], masks: Tensor) -> list[Facts]:
    size = masks.shape[-1]
    line = (torch.arange(size, device=masks.device) + 0.5) / size
    counts = masks.sum((1, 2)).clamp_min(1)
    x = ((masks.sum(1) * line).sum(1) / counts).tolist()
    y = ((masks.sum(2) * line).sum(1) / counts).tolist()
    share = (masks.float().mean((1, 2))).tolist()
    return [
        Facts(
            pattern=scenes.pattern[i],
            shape=scenes.shape[i],
            colour=scenes.colour[i],
            arrangement=scenes.arrangement[i],
            state=state,
            place=_place(x[i], y[i]),
            size=_size(share[i]),
        )
        for i, state in enumerate(states)
    ]


def _place(x: float, y: float) -> str:
    across = "left" if x < 0.36 else "right" if x > 0.64 else ""
    down = "top" if y < 0.36 else "bottom" if y > 0.64 else ""
    return f"{down} {across}".strip() or "middle"


def _size(share: float) -> str:
    return (
        "tiny"
        if share < 0.004
        else "small"
        if share < 0.02
        else "large"
        if share < 0.08
        else "huge"
    )
