"""The loss of pretraining: captions, states of pictures, states of patches."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from crane.scoring import fuse, similarity_logits
from experiments.mini_pretraining.captions import caption, state_phrases
from experiments.mini_pretraining.model import ImageEmbeddings, MiniClip
from experiments.mini_pretraining.pictures import Drawn, patch_coverage

TEMPERATURE = 0.07
"""Temperature of the state logits, as in conf/base/scoring.yaml."""

CLOSEST = 0.9
"""Upper limit for the cosine of "object." and "damaged object.", about that of large CLIP models;
the logit between them can then reach 6 at this temperature."""

Correlations = Callable[[Tensor, Int[Tensor, "K N"] | None], Tensor]
"""Maps indices of pictures, and of their patches in use, to D-Attn's correlations (K, N, N)."""


@dataclass(frozen=True)
class Weights:
    """Weights of the terms of the loss."""

    caption: float
    picture: float
    paired: float
    plain: float
    stream: float
    values: float
    both: float
    """Patches of E-Attn and D-Attn under the mean of their logits, as in Crane+."""
    found: float
    """Share of damaged patches in the patch losses; intact ones have the rest."""
    apart: float
    """Weight of the penalty on sentence pairs that are too close."""


def losses(
    model: MiniClip,
    drawn: Drawn,
    weights: Weights,
    rng: random.Random,
    stream_share: float,
    kept: Int[Tensor, "M N"] | None = None,
    guide: Correlations | None = None,
) -> dict[str, Tensor]:
    """The terms of the loss of one batch, and their weighted sum as `total`.

    Args:
        model: The model.
        drawn: The batch: flawless pictures, then the same ones damaged.
        weights: Weights of the terms.
        rng: Chooses captions and phrases.
        stream_share: Fraction of the pictures that E-Attn and D-Attn also process.
        kept: Indices of the patches used from each picture; None uses all.
        guide: Computes D-Attn's correlations; None correlates each patch with itself only.
    """
    num = len(drawn.images) // 2
    half = max(1, round(num * stream_share))
    device = drawn.images.device
    chosen = torch.cat([torch.arange(half), torch.arange(num, num + half)]).to(device)
    chosen_kept = None if kept is None else kept[chosen]
    correlations = None if guide is None else guide(chosen, chosen_kept)
    images = model.encode_images(drawn.images, chosen, kept, correlations)
    captions = [caption(facts, rng) for facts in drawn.facts]
    normal, damaged = state_phrases(rng, 6)
    encoded = model.encode_text(captions + normal + damaged)
    texts, states = encoded[: 2 * num], torch.stack(encoded[2 * num :].chunk(2), dim=1)

    coverage = patch_coverage(drawn.masks, model.tower.patch_size[0])
    if kept is not None:
        coverage = coverage.gather(1, kept)
    separate, paired = _pictures(images, chosen, states, coverage)
    parts = {
        "caption": _contrastive(images.global_, texts, model.clip.logit_scale),
        "picture": separate,
        "paired": paired,
        "plain": _patches(images.plain, states, weights.found, coverage),
        "stream": _patches(images.stream, states, weights.found, coverage[chosen]),
        "values": _patches(images.values, states, weights.found, coverage[chosen]),
        "both": _patches(
            (images.stream + images.values) / 2.0, states, weights.found, coverage[chosen]
        ),
        "apart": F.relu((states[:, 0] * states[:, 1]).sum(-1) - CLOSEST).mean(),
    }
    total = sum(getattr(weights, name) * part for name, part in parts.items())
    return {**parts, "total": torch.as_tensor(total)}


def _contrastive(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss; the batch holds each scene in both states."""
    logits = scale.exp().clamp(max=100.0) * images @ texts.T
    own = torch.arange(len(images), device=images.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2.0


def _pictures(
    images: ImageEmbeddings, chosen: Tensor, states: Tensor, coverage: Tensor
) -> tuple[Tensor, Tensor]:
    """Losses of whole pictures, from the class token alone and fused with patches.

    Fusion is done as in Crane (E-Attn), with D-Attn alone and as in Crane+ (both).

    Returns:
        The binary cross-entropy of single pictures, and the cross-entropy of which twin of a pair
        is damaged: like AUROC within a class, the second depends on the ranking only.
    """
    label = (coverage.amax(1) > 0).float()
    weight = 0.3 + 0.7 * torch.where(label > 0, (coverage.sum(1) * 2.0).clamp_max(1.0), 1.0)
    alone = torch.stack([_evidence(images.global_[:, None], pair)[:, 0] for pair in states])
    own, stream, values = states[0], images.stream, images.values
    fused = []
    for local in ([stream], [values], [values, stream]):
        patches = torch.stack(local)
        logits = similarity_logits(patches, own[None], TEMPERATURE)
        both = fuse(images.global_[chosen], patches, logits, 0.5)
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
    """Pairwise loss; the second half of the pictures is the first half, damaged."""
    flawless, damaged = evidence.chunk(2, dim=1)
    return (F.softplus(flawless - damaged) * weight[len(weight) // 2 :]).mean()


def _patches(patches: Tensor, states: Tensor, share: float, coverage: Tensor) -> Tensor:
    """Binary cross-entropy of patches, averaged over the pairs of phrases.

    A patch counts as fully damaged from a coverage of one quarter. Damaged patches have a total
    weight of `share`; a region's weight grows with the square root of its size.
    """
    target = (4.0 * coverage).clamp_max(1.0)
    weight = target / target.sum(1, keepdim=True).clamp_min(0.25).sqrt()
    evidence = torch.stack([_evidence(patches, pair) for pair in states])
    found = -(F.logsigmoid(evidence) * weight).sum((1, 2)) / weight.sum().clamp_min(1e-3)
    intact = (target == 0).float()
    clear = -(F.logsigmoid(-evidence) * intact).sum((1, 2)) / intact.sum().clamp_min(1.0)
    return (share * found + (1.0 - share) * clear).mean()


def _evidence(embeddings: Float[Tensor, "M N E"], pair: Float[Tensor, "2 E"]) -> Tensor:
    """Logit of damaged against flawless, as in Crane."""
    return embeddings @ (pair[1] - pair[0]) / TEMPERATURE
