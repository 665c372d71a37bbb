"""What pretraining minimises: captions, states of pictures, states of patches."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from crane.scoring import fuse, similarity_logits
from experiments.mini_pretraining.captions import caption, state_phrases
from experiments.mini_pretraining.model import MiniClip, Seen
from experiments.mini_pretraining.pictures import Drawn

TEMPERATURE = 0.07
"""Of states, as in conf/base/scoring.yaml, where the method compares patches with sentences."""

CLOSEST = 0.9
"""Cosine of "object." and "damaged object." at most, about that of large CLIP models: the logit
between them, at that temperature, can reach 6."""

Correlations = Callable[[Tensor, Int[Tensor, "K N"] | None], Tensor]
"""From pictures, and which of their patches are looked at, to D-Attn's correlations (K, N, N)."""


@dataclass(frozen=True)
class Weights:
    """Shares of the parts of the loss."""

    caption: float
    picture: float
    paired: float
    plain: float
    stream: float
    values: float
    found: float
    """Of damaged patches in the loss of patches; the others have the rest."""
    apart: float
    """Of the sentences about one thing in its two states, where they are too close."""


def losses(
    model: MiniClip,
    drawn: Drawn,
    weights: Weights,
    chance: random.Random,
    stream_share: float,
    kept: Int[Tensor, "M N"] | None = None,
    guide: Correlations | None = None,
) -> dict[str, Tensor]:
    """The parts of the loss of one batch, and their weighted sum as `total`.

    Args:
        model: The model.
        drawn: The batch: flawless pictures, then the same ones damaged.
        weights: Shares.
        chance: Chooses captions and phrases.
        stream_share: Share of the pictures that E-Attn and D-Attn read too.
        kept: The patches of each picture that are looked at; None is all.
        guide: D-Attn's correlations; None is each patch with itself only.
    """
    num = len(drawn.images) // 2
    half = max(1, round(num * stream_share))
    device = drawn.images.device
    chosen = torch.cat([torch.arange(half), torch.arange(num, num + half)]).to(device)
    look = None if kept is None else kept[chosen]
    related = None if guide is None else guide(drawn.images[chosen], look)
    seen = model.see(drawn.images, chosen, kept, related)
    captions = [caption(facts, chance) for facts in drawn.facts]
    normal, damaged = state_phrases(chance, 6)
    said = model.say(captions + normal + damaged)
    texts, states = said[: 2 * num], torch.stack(said[2 * num :].chunk(2), dim=1)

    coverage = patch_coverage(drawn.masks, model.tower.patch_size[0])
    if kept is not None:
        coverage = coverage.gather(1, kept)
    separate, paired = _pictures(seen, chosen, states, coverage)
    parts = {
        "caption": _contrastive(seen.global_, texts, model.clip.logit_scale),
        "picture": separate,
        "paired": paired,
        "plain": _patches(seen.plain, states, weights.found, coverage),
        "stream": _patches(seen.stream, states, weights.found, coverage[chosen]),
        "values": _patches(seen.values, states, weights.found, coverage[chosen]),
        "apart": F.relu((states[:, 0] * states[:, 1]).sum(-1) - CLOSEST).mean(),
    }
    total = sum(getattr(weights, name) * part for name, part in parts.items())
    return {**parts, "total": torch.as_tensor(total)}


def patch_coverage(masks: Tensor, patch: int) -> Float[Tensor, "M N"]:
    """Share of each patch that is damaged."""
    return F.avg_pool2d(masks[:, None].float(), patch).flatten(1)


def _contrastive(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """The symmetric loss of CLIP; a scene's twin with the other state is in the batch."""
    logits = scale.exp().clamp(max=100.0) * images @ texts.T
    own = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2.0


def _pictures(
    seen: Seen, chosen: Tensor, states: Tensor, coverage: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses of whole pictures: from the class token alone, and fused with the patches.

    Fused as Crane (E-Attn), as D-Attn alone and as Crane+ (both) fuse them.

    Returns:
        The cross-entropy of each picture on its own, and that of which of two twins is damaged:
        the second asks what AUROC asks, where all pictures of a class look alike.
    """
    label = (coverage.amax(1) > 0).float()
    weight = 0.3 + 0.7 * torch.where(label > 0, (coverage.sum(1) * 2.0).clamp_max(1.0), 1.0)
    alone = torch.stack([_evidence(seen.global_[:, None], pair)[:, 0] for pair in states])
    own, stream, values = states[0], seen.stream, seen.values
    fused = []
    for local in ([stream], [values], [values, stream]):
        patches = torch.stack(local)
        logits = similarity_logits(patches, own[None], TEMPERATURE)
        both = fuse(seen.global_[chosen], patches, logits, 0.5)
        fused.append(_evidence(both[:, None], own)[:, 0])
    separate, paired = torch.zeros(()), torch.zeros(())
    for evidence, which in ((alone, slice(None)), (torch.stack(fused), chosen)):
        separate = separate + _cross_entropy(evidence, label[which], weight[which])
        paired = paired + _paired(evidence, label[which] * weight[which])
    return separate, paired


def _cross_entropy(evidence: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    label = label.expand_as(evidence)
    each = F.binary_cross_entropy_with_logits(evidence, label, reduction="none")
    return (each * weight).mean()


def _paired(evidence: Tensor, weight: Tensor) -> Tensor:
    """The second half of the pictures are the first half, damaged."""
    flawless, damaged = evidence.chunk(2, dim=1)
    return (F.softplus(flawless - damaged) * weight[len(weight) // 2 :]).mean()


def _patches(patches: Tensor, states: Tensor, share: float, coverage: Tensor) -> Tensor:
    """Binary cross-entropy of patches under every pair of phrases.

    A patch a quarter or more of which is damaged is wholly damaged. Damaged ones weigh `share`
    together, and a region weighs as the square root of its size.
    """
    target = (4.0 * coverage).clamp_max(1.0)
    of_region = target / target.sum(1, keepdim=True).clamp_min(0.25).sqrt()
    evidence = torch.stack([_evidence(patches, pair) for pair in states])
    found = -(F.logsigmoid(evidence) * of_region).sum((1, 2)) / of_region.sum().clamp_min(1e-3)
    intact = (target == 0).float()
    clear = -(F.logsigmoid(-evidence) * intact).sum((1, 2)) / intact.sum().clamp_min(1.0)
    return (share * found + (1.0 - share) * clear).mean()


def _evidence(embeddings: Float[Tensor, "M N E"], pair: Float[Tensor, "2 E"]) -> Tensor:
    """Logit of `damaged` against `flawless`, as Crane computes it."""
    return embeddings @ (pair[1] - pair[0]) / TEMPERATURE
