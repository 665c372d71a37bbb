"""What the small CLIP learned, on drawings that pretraining never drew."""

import random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from crane.attention import GuidedAttention
from crane.guides import Guide
from experiments.mini_pretraining.canvas import Canvas
from experiments.mini_pretraining.captions import caption
from experiments.mini_pretraining.defects import DEFECTS, HELD_OUT_DEFECTS
from experiments.mini_pretraining.model import MiniClip
from experiments.mini_pretraining.objective import patch_coverage
from experiments.mini_pretraining.pictures import draw
from experiments.mini_pretraining.scenes import draw_scenes
from experiments.mini_pretraining.shapes import HELD_OUT_SHAPES, SHAPES
from experiments.mini_pretraining.surfaces import HELD_OUT_PATTERNS, PATTERNS

DRAWINGS: dict[str, dict[str, Any]] = {
    "kinds of pretraining": {"patterns": PATTERNS, "shapes": SHAPES, "defects": DEFECTS},
    "defects held out": {"patterns": PATTERNS, "shapes": SHAPES, "defects": HELD_OUT_DEFECTS},
    "surface and outline held out": {
        "patterns": HELD_OUT_PATTERNS,
        "shapes": HELD_OUT_SHAPES,
        "defects": DEFECTS,
    },
}
"""What is drawn, by name; always with a seed that pretraining does not use."""


@torch.no_grad()
def evaluate(
    model: MiniClip, *, image_size: int, scenes: int, visible: float, seed: int
) -> list[dict[str, Any]]:
    """Retrieval and detection without any prompt training, one row for each set of drawings.

    `caption_to_image` and `image_to_caption` are the shares of right first choices among all
    pictures and their captions (each scene is there twice, without and with its defect); `twin` is
    the share of pictures whose caption is nearer than its twin's. The AUROCs compare "object." with
    "damaged object.", of pictures by the class token, of patches by each reading.

    Args:
        model: The model.
        image_size: In pixels.
        scenes: How many scenes of each set.
        visible: Least change that counts as a defect, see `draw`.
        seed: Of the drawings and captions.
    """
    model.eval()
    rows: list[dict[str, Any]] = []
    for number, (name, drawn_with) in enumerate(DRAWINGS.items()):
        canvas = Canvas(image_size, torch.Generator().manual_seed(seed + number))
        drawn = draw(canvas, scenes, visible, **drawn_with)
        chance = random.Random(seed + number)
        texts = model.say([caption(facts, chance) for facts in drawn.facts])
        chunks = [model.see(part, torch.arange(len(part))) for part in drawn.images.split(32)]
        image = torch.cat([seen.global_ for seen in chunks])
        similar = image @ texts.T
        own = torch.arange(len(image))
        twin = (own + scenes) % (2 * scenes)
        normal, damaged = model.say(["object.", "damaged object."])
        direction = damaged - normal
        coverage = patch_coverage(drawn.masks, model.tower.patch_size[0]).flatten()
        clear = (coverage == 0) | (coverage >= 0.25)
        row: dict[str, Any] = {
            "drawings": name,
            "image_to_caption": _share(similar.argmax(1) == own),
            "caption_to_image": _share(similar.argmax(0) == own),
            "twin": _share(similar[own, own] > similar[own, twin]),
            "image_auroc": _auroc(image @ direction, own >= scenes),
        }
        for reading in ("plain", "stream", "values"):
            patches = torch.cat([getattr(seen, reading) for seen in chunks])
            evidence = (patches @ direction).flatten()
            row[f"patch_auroc_{reading}"] = _auroc(evidence[clear], coverage[clear] > 0)
        rows.append(row)
    return rows


@torch.no_grad()
def evaluate_guide(
    guide: Guide, attention: GuidedAttention, *, image_size: int, scenes: int, seed: int
) -> dict[str, float]:
    """How a guide groups the patches of flawless scenes: the object's, and the ground's.

    `part_auroc` says how well the cosine of two patches tells whether both are of the object or
    both of the ground; `similarity` is the mean cosine, `kept` the share of pairs that D-Attn's
    threshold leaves, `own_part` how much of an object's patch D-Attn reads from the object. Each is
    a mean over pictures that have enough of both.

    Args:
        guide: The guide.
        attention: D-Attn.
        image_size: In pixels.
        scenes: How many scenes; those without an object do not count.
        seed: Of the drawings.
    """
    canvas = Canvas(image_size, torch.Generator().manual_seed(seed))
    drawn = draw_scenes(canvas, scenes, natural=0.4)
    rows = []
    for rgb, region in zip(drawn.rgb, drawn.region, strict=True):
        features = guide(rgb[None])
        covered = F.avg_pool2d(region[None], image_size // features.shape[-1]).flatten()
        on, off = covered > 0.95, covered < 0.05
        if min(int(on.sum()), int(off.sum())) < 4:
            continue
        unit = F.normalize(features[0].flatten(1), dim=0)
        similar = unit.T @ unit
        read = attention.correlations(features)[0]
        other = ~torch.eye(len(similar), dtype=torch.bool)
        same = other & (on[:, None] & on | off[:, None] & off)
        pairs = same | on[:, None] & off | off[:, None] & on
        rows.append(
            (
                _auroc(similar[pairs], same[pairs]),
                float(similar[other].mean()),
                float((read > 0)[other].float().mean()),
                float(read[on][:, on].sum() / read[on].sum()),
            )
        )
    means = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
    names = ("part_auroc", "similarity", "kept", "own_part")
    return {name: round(value, 3) for name, value in zip(names, means, strict=True)}


def _share(right: Tensor) -> float:
    return round(float(right.float().mean()), 4)


def _auroc(scores: Tensor, labels: Tensor) -> float:
    positive = labels.bool()
    ranks = scores.double().argsort().argsort().double() + 1.0
    num, of = float(positive.sum()), float((~positive).sum())
    return round((float(ranks[positive].sum()) - num * (num + 1) / 2) / (num * of), 4)
