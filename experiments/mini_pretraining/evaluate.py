"""Evaluate the small CLIP and the small guide on drawings unseen in training."""

import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from crane.attention import GuidedAttention
from crane.guides import Guide
from crane.scoring import fuse, similarity_logits
from experiments.mini_pretraining.canvas import Canvas
from experiments.mini_pretraining.captions import caption
from experiments.mini_pretraining.defects import DEFECTS, HELD_OUT_DEFECTS
from experiments.mini_pretraining.model import MiniClip
from experiments.mini_pretraining.objective import TEMPERATURE
from experiments.mini_pretraining.pictures import (
    PATCH,
    Drawn,
    draw,
    patch_coverage,
    segment_features,
)
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
"""Sets of drawings by name; their seeds are never used in pretraining."""


Features = Callable[[Canvas, Drawn], Tensor]
"""Features of the patches of drawings (M, C, h, w), for D-Attn."""


def features_of(guide: Guide) -> Features:
    """What a guide sees in drawings."""
    return lambda _, drawn: torch.cat([guide(part) for part in drawn.images.split(32)])


def features_drawn(canvas: Canvas, drawn: Drawn) -> Tensor:
    """What was drawn, perturbed as in pretraining."""
    return segment_features(canvas, drawn, PATCH)


@torch.no_grad()
def evaluate(
    model: MiniClip,
    attention: GuidedAttention,
    guides: Mapping[str, Features],
    *,
    image_size: int,
    scenes: int,
    visible: float,
    seed: int,
) -> list[dict[str, Any]]:
    """Retrieval and detection without prompt training, one row per set of drawings.

    `caption_to_image` and `image_to_caption` are top-1 retrieval accuracies among all pictures and
    their captions (each scene occurs twice, without and with its defect); `twin` is the fraction of
    pictures that are closer to their own caption than to their twin's. The AUROCs score "damaged
    object." against "object.": pictures by the class token, alone and fused with E-Attn's patches
    as in Crane; patches by each kind of embedding, and by Crane+'s mean of E-Attn and D-Attn under
    each guide.

    Args:
        model: The model.
        attention: D-Attn.
        guides: Names of guides, and what they see.
        image_size: Height and width in pixels.
        scenes: Number of scenes in each set.
        visible: Smallest visible change, see `draw`.
        seed: Seed of the drawings and captions.
    """
    model.eval()
    rows: list[dict[str, Any]] = []
    for number, (name, drawn_with) in enumerate(DRAWINGS.items()):
        canvas = Canvas(image_size, torch.Generator().manual_seed(seed + number))
        drawn = draw(canvas, scenes, visible, **drawn_with)
        rng = random.Random(seed + number)
        texts = model.encode_text([caption(facts, rng) for facts in drawn.facts])
        chunks = [model.encode_images(p, torch.arange(len(p))) for p in drawn.images.split(32)]
        image, stream = (
            torch.cat([getattr(c, kind) for c in chunks]) for kind in ("global_", "stream")
        )
        similar = image @ texts.T
        own = torch.arange(len(image))
        twin = (own + scenes) % (2 * scenes)
        normal, damaged = model.encode_text(["object.", "damaged object."])
        direction, states = damaged - normal, torch.stack([normal, damaged])[None]
        logits = similarity_logits(stream[None], states, TEMPERATURE)
        fused = fuse(image, stream[None], logits, 0.5)
        coverage = patch_coverage(drawn.masks, PATCH).flatten()
        clear = (coverage == 0) | (coverage >= 0.25)
        row: dict[str, Any] = {
            "drawings": name,
            "image_to_caption": _accuracy(similar.argmax(1) == own),
            "caption_to_image": _accuracy(similar.argmax(0) == own),
            "twin": _accuracy(similar[own, own] > similar[own, twin]),
            "image_auroc": _auroc(image @ direction, own >= scenes),
            "image_auroc_fused": _auroc(fused @ direction, own >= scenes),
        }
        for kind in ("plain", "stream", "values"):
            patches = torch.cat([getattr(chunk, kind) for chunk in chunks])
            evidence = (patches @ direction).flatten()
            row[f"patch_auroc_{kind}"] = _auroc(evidence[clear], coverage[clear] > 0)
        for guide, features in guides.items():
            seen = features(canvas, drawn)
            values = [
                model.encode_images(p, torch.arange(len(p)), None, attention.correlations(f)).values
                for p, f in zip(drawn.images.split(32), seen.split(32), strict=True)
            ]
            evidence = ((torch.cat(values) + stream) @ direction).flatten()
            row[f"patch_auroc_with_{guide}"] = _auroc(evidence[clear], coverage[clear] > 0)
        rows.append(row)
    return rows


@torch.no_grad()
def evaluate_guide(
    guide: Guide, attention: GuidedAttention, *, image_size: int, scenes: int, seed: int
) -> dict[str, float]:
    """How well a guide groups the patches of flawless scenes into object and background.

    `part_auroc` is the AUROC of the cosine of two patches for whether both lie on the object or
    both on the background; `similarity` is the mean cosine, `kept` the fraction of pairs above
    D-Attn's threshold, `own_part` the attention weight of object patches that stays on the object.
    Each is a mean over pictures with enough patches of both.

    Args:
        guide: The guide.
        attention: D-Attn.
        image_size: Height and width in pixels.
        scenes: Number of scenes; those without an object are left out.
        seed: Seed of the drawings.
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


def _accuracy(correct: Tensor) -> float:
    return round(float(correct.float().mean()), 4)


def _auroc(scores: Tensor, labels: Tensor) -> float:
    positive = labels.bool()
    ranks = scores.double().argsort().argsort().double() + 1.0
    num, of = float(positive.sum()), float((~positive).sum())
    return round((float(ranks[positive].sum()) - num * (num + 1) / 2) / (num * of), 4)
