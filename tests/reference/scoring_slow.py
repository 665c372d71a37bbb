"""Scores, maps, losses and training once more, as slowly as the method's description reads.

The second half of `crane_slow`, under the same rules and with the same letters.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from reference.crane_slow import Grid, State, Vision, resize, softmax, unit

# --- maps and scores ---------------------------------------------------------------------------


def patch_logits(patches: Tensor, text: Tensor, temperature: float = 0.07) -> Tensor:
    """(M, B, N, 2) of unit-norm patches (M, B, N, E) and text (B or 1, 2, E)."""
    text = text.expand(patches.shape[1], -1, -1)
    return torch.einsum("mbne,bce->mbnc", patches, text) / temperature


def anomaly_map(
    logits: Tensor, grid: Grid, size: Grid, aggregate: str = "mean of softmax maps"
) -> Tensor:
    """Anomaly probability of each pixel (B, H, W), before the blur."""
    maps = []
    for b in range(logits.shape[1]):
        if aggregate == "mean of softmax maps":
            each = [resize(softmax(one[b]), grid, size) for one in logits]
            whole = sum(each) / len(each)
        else:
            each = [resize(one[b], grid, size) for one in logits]
            whole = softmax(sum(each) / len(each))
        maps.append(whole[:, 1].reshape(size))
    return torch.stack(maps)


def blur(maps: Tensor, sigma: float = 4.0) -> Tensor:
    each = [gaussian_filter(one.numpy(), sigma, mode="reflect", truncate=4.0) for one in maps]
    return torch.from_numpy(np.stack(each))


def fuse(global_: Tensor, patches: Tensor, logits: Tensor) -> Tensor:
    """g+ (B, E): half the global embedding, half the patches weighted by their anomaly."""
    fused = []
    for b in range(len(global_)):
        weights = softmax(logits[:, b].mean(0))[:, 1]
        gathered = torch.zeros_like(global_[b])
        for i, weight in enumerate(weights):
            gathered = gathered + weight * patches[:, b, i].mean(0)
        fused.append(unit(unit(gathered) / 2 + global_[b] / 2))
    return torch.stack(fused)


def image_logits(global_: Tensor, text: Tensor, temperature: float = 0.07) -> Tensor:
    """(B, 2); the anomaly score is the second column of its softmax."""
    text = text.expand(len(global_), -1, -1)
    return torch.stack([t @ g for g, t in zip(global_, text, strict=True)]) / temperature


def nearest_matrix(rows_out: int, rows_in: int) -> np.ndarray:
    matrix = np.zeros((rows_out, rows_in))
    for i in range(rows_out):
        matrix[i, i * rows_in // rows_out] = 1
    return matrix


# --- training ----------------------------------------------------------------------------------


def focal_loss(probabilities: Tensor, mask: Tensor) -> Tensor:
    """Mean over the pixels of (B, 2, H, W) probabilities against a (B, H, W) mask of 0 and 1."""
    smooth = 1e-5
    target = torch.stack([1 - mask, mask], 1).to(probabilities).clamp(smooth, 1 - smooth)
    p = (target * probabilities).sum(1) + smooth
    return (-((1 - p) ** 2) * p.log()).mean()


def dice_loss(soft: Tensor, mask: Tensor) -> Tensor:
    """Mean over images of 1 - Dice, smoothed by 1, of (B, H, W) against a mask of 0 and 1."""
    losses = []
    for x, t in zip(soft, mask.to(soft), strict=True):
        losses.append(1 - (2 * (x * t).sum() + 1) / (x.sum() + t.sum() + 1))
    return torch.stack(losses).mean()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    chosen = [softmax(row)[label].log() for row, label in zip(logits, labels.tolist(), strict=True)]
    return -torch.stack(chosen).mean()


class Losses(NamedTuple):
    """As the golden files have them: focal and dice weighted by 2, ce unweighted."""

    focal: Tensor
    dice: Tensor
    ce: Tensor
    total: Tensor


def training_losses(
    seen: Vision,
    text: Tensor,
    labels: Tensor,
    masks: Tensor,
    fusion: bool = True,
    repeat_local: int = 1,
) -> Losses:
    """Losses of a batch; `repeat_local` counts each local embedding several times (Crane: 4)."""
    size = (masks.shape[1], masks.shape[2])
    logits = patch_logits(seen.patches, text)
    focal, dice = logits.new_zeros(()), logits.new_zeros(())
    for one in logits:
        pixels = torch.stack([resize(softmax(b), seen.grid, size, nearest_matrix) for b in one])
        probabilities = pixels.reshape(len(one), *size, 2).permute(0, 3, 1, 2)
        focal = focal + repeat_local * 2 * focal_loss(probabilities, masks)
        soft = (1 - probabilities[:, 0] + probabilities[:, 1]) / 2
        dice = dice + repeat_local * 2 * dice_loss(soft, masks)
    g = fuse(seen.global_, seen.patches, logits) if fusion else seen.global_
    ce = cross_entropy(image_logits(g, text, 0.01), labels)
    return Losses(focal, dice, ce, focal + dice + 0.2 * ce)


def adam_steps(
    prompts: State, losses_of_step: Sequence[Callable[[State], Losses]], lr: float = 1e-3
) -> tuple[list[Losses], State]:
    """Plain Adam with betas (0.6, 0.999): the losses before each step and the prompts at the end.

    A prompt without a gradient stays as it is.
    """
    first, second, eps = 0.6, 0.999, 1e-8
    values = {name: tensor.clone().requires_grad_() for name, tensor in prompts.items()}
    mean = {name: torch.zeros_like(tensor) for name, tensor in prompts.items()}
    square = {name: torch.zeros_like(tensor) for name, tensor in prompts.items()}
    history = []
    for step, losses_of in enumerate(losses_of_step, start=1):
        losses = losses_of(values)
        gradients = torch.autograd.grad(losses.total, list(values.values()))
        history.append(Losses(*(loss.detach() for loss in losses)))
        with torch.no_grad():
            for (name, value), gradient in zip(values.items(), gradients, strict=True):
                mean[name] = first * mean[name] + (1 - first) * gradient
                square[name] = second * square[name] + (1 - second) * gradient**2
                unbiased = mean[name] / (1 - first**step)
                spread = (square[name] / (1 - second**step)).sqrt() + eps
                value -= lr * unbiased / spread
    return history, {name: value.detach() for name, value in values.items()}
