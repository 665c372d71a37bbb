"""The small guide learns which patches belong together from what is drawn in them.

SAM's features come from supervised segmentation, and so do these: of two patches near each other,
D-Attn should keep the pair if both show the same segment (the object, what lies behind it, or the
defect), and drop it otherwise. The logit of a pair is its cosine above D-Attn's threshold.
"""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from crane.files import replacing
from experiments.mini_pretraining.canvas import Canvas
from experiments.mini_pretraining.loop import rate
from experiments.mini_pretraining.model import small_guide
from experiments.mini_pretraining.pictures import PATCH, Drawn, draw, patch_coverage, window

log = logging.getLogger(__name__)

GROUND, OBJECT, DEFECT, UNCLEAR = 0, 1, 2, -1
"""What a patch shows; UNCLEAR is more than one of them."""


def segment_labels(drawn: Drawn, patch: int) -> Int[Tensor, "M P"]:
    """What each patch shows; one that a defect covers by more than a quarter shows the defect."""
    object_, defect = patch_coverage(drawn.regions, patch), patch_coverage(drawn.masks, patch)
    labels = torch.full(object_.shape, UNCLEAR, device=object_.device)
    labels[(object_ < 0.1) & (defect == 0)] = GROUND
    labels[(object_ > 0.9) & (defect == 0)] = OBJECT
    labels[defect > 0.25] = DEFECT
    return labels


def pair_loss(
    features: Float[Tensor, "M C h w"],
    labels: Int[Tensor, "M P"],
    *,
    beta: float,
    reach: int,
    sharpness: float,
) -> Float[Tensor, ""]:
    """Binary cross-entropy of whether D-Attn keeps a pair of patches.

    Pairs of one segment count if they are near each other, since the threshold is a multiple of
    the mean cosine: where one segment fills the picture, not all of its pairs can exceed it. In
    each picture, pairs of one segment, pairs of the defect and something else, and pairs of object
    and ground have the same weight, however many there are.

    Args:
        features: The guide's features.
        labels: Segments of the patches.
        beta: D-Attn's threshold as a multiple of the mean cosine.
        reach: Most rows or columns between two patches of one segment that count.
        sharpness: Factor from cosines to logits.
    """
    unit = F.normalize(features.flatten(2), dim=1)
    similar = unit.transpose(1, 2) @ unit
    logits = sharpness * (similar - beta * similar.mean(dim=(1, 2), keepdim=True))
    clear = labels != UNCLEAR
    pairs = clear[:, :, None] & clear[:, None, :] & (_distance(features) > 0)
    same = pairs & (labels[:, :, None] == labels[:, None, :]) & (_distance(features) <= reach)
    other = pairs & (labels[:, :, None] != labels[:, None, :])
    damaged = labels == DEFECT
    one_damaged = damaged[:, :, None] | damaged[:, None, :]
    apart = -F.logsigmoid(-logits)
    return (
        _mean(-F.logsigmoid(logits), same)
        + _mean(apart, other & one_damaged)
        + _mean(apart, other & ~one_damaged)
    )


def _distance(features: Tensor) -> Int[Tensor, "P P"]:
    """Chebyshev distance of patches."""
    height, width = features.shape[-2:]
    row = torch.arange(height, device=features.device).repeat_interleave(width)
    column = torch.arange(width, device=features.device).repeat(height)
    return torch.maximum((row[:, None] - row[None]).abs(), (column[:, None] - column[None]).abs())


def _mean(losses: Float[Tensor, "M P P"], pairs: Bool[Tensor, "M P P"]) -> Float[Tensor, ""]:
    """Mean over pairs in each picture, then over the pictures that have any."""
    counts = pairs.sum((1, 2))
    each = (losses * pairs).sum((1, 2)) / counts.clamp_min(1)
    return each.sum() / (counts > 0).sum().clamp_min(1)


def train_on_segments(
    recipe: dict[str, Any],
    folder: Path,
    device: str,
    rounds: Sequence[int],
    *,
    save_every: float = 120.0,
) -> list[float]:
    """Train the self-distilled guide on drawn segments, or resume; returns the losses of this call.

    The pictures are crops around a defect, and whole ones, at the size at which the guide is used.
    The result replaces `vit` in `guide.ckpt`.

    Args:
        recipe: The whole recipe; only `guide.segments` and `seed` are used.
        folder: Folder of `guide.ckpt`.
        device: Device for drawing and training.
        rounds: Steps of each round, those of earlier calls included; the learning rate rises and
            falls in each.
        save_every: Seconds between checkpoints.
    """
    settings, path = recipe["guide"]["segments"], folder / "guide.ckpt"
    state = torch.load(path, map_location=device)
    guide, attention = small_guide("random")
    vit = guide.model.to(device).train().requires_grad_(True)
    vit.load_state_dict(state["vit"])
    vit.pos_embed.requires_grad_(False)  # zero: a guide that knows positions groups by them
    trained = [parameter for parameter in vit.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=settings["weight_decay"])
    first = state.get("segments_step", 0)
    if first:
        optimizer.load_state_dict(state["segments_optimizer"])
    mean, std = guide.mean.to(device), guide.std.to(device)
    totals: list[float] = []
    saved = time.monotonic()
    steps = sum(rounds)
    within = [(step, length) for length in rounds for step in range(length)]
    for step in range(first, steps):
        factor = rate(*within[step], settings["warmup"], settings["decay"])
        for group in optimizer.param_groups:
            group["lr"] = settings["learning_rate"] * factor
        seed = recipe["seed"] * 11_000_000 + step
        canvas = Canvas(settings["image_size"], torch.Generator(device).manual_seed(seed))
        with torch.no_grad():
            look = settings["looks"][step % len(settings["looks"])]
            drawn = draw(canvas, look["num"], **settings["drawings"])
            images, labels = drawn.images, segment_labels(drawn, PATCH)
            if look["window"] is not None:
                images, labels = _crops(canvas, drawn, labels, look["window"])
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=device != "cpu"):
            features = vit.forward_intermediates(
                (images - mean) / std, indices=1, norm=True, intermediates_only=True
            )[0]
        loss = pair_loss(
            features.float(),
            labels,
            beta=attention.beta,
            reach=settings["reach"],
            sharpness=settings["sharpness"],
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, settings["clip_norm"])
        optimizer.step()
        totals.append(float(loss.detach()))
        if (step + 1) % 20 == 0:
            recent = sum(totals[-20:]) / len(totals[-20:])
            log.info("segments, step %d of %d: loss %.3f", step + 1, steps, recent)
        if step + 1 == steps or time.monotonic() - saved > save_every:
            saved = time.monotonic()
            state["vit"], state["segments_step"] = vit.state_dict(), step + 1
            state["segments_optimizer"] = optimizer.state_dict()
            with replacing(path) as part:
                torch.save(state, part)
    return totals


def _crops(
    canvas: Canvas, drawn: Drawn, labels: Int[Tensor, "M N"], side: int
) -> tuple[Float[Tensor, "M 3 s s"], Int[Tensor, "M P"]]:
    """Square crops of `side` patches around defects, and the segments of their patches."""
    kept = window(canvas, drawn, PATCH, side)
    grid = canvas.size // PATCH
    corners = [divmod(first, grid) for first in kept[:, 0].tolist()]
    size = side * PATCH
    crops = [
        image[:, row * PATCH : row * PATCH + size, column * PATCH : column * PATCH + size]
        for image, (row, column) in zip(drawn.images, corners, strict=True)
    ]
    return torch.stack(crops), labels.gather(1, kept)
