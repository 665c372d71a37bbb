"""Losses: Crane's (paper section 3.6; spec, "Training"), and that of AnomalyCLIP, VAND, AdaCLIP."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from crane.checks import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from crane.methods.crane import Crane
from crane.methods.detector import Outputs, on_device
from crane.scoring import upsample
from crane.types import ANOMALOUS, NORMAL, VisionTokens


class Losses(NamedTuple):
    """The parts of the loss; scalars."""

    focal: Tensor
    """Focal loss of pixels, summed over local embeddings and weighted."""
    dice: Tensor
    """Dice loss of pixels, summed over local embeddings and weighted."""
    image: Tensor
    """Cross-entropy of images, unweighted."""
    total: Tensor
    """The sum that is minimised."""


def rows_with_mask(has_mask: Bool[Tensor, " B"], like: Tensor) -> slice | Tensor | None:
    """Index of the images whose mask is known, on a tensor's device; None if there is none.

    The host decides, and `has_mask` stays there in training, so that it never waits for a GPU.
    """
    known = [row for row, is_known in enumerate(has_mask.tolist()) if is_known]
    if len(known) == len(has_mask):
        return slice(None)
    return on_device(known, like) if known else None


def focal_loss(
    probabilities: Float[Tensor, "B 2 H W"],
    mask: Bool[Tensor, "B H W"],
    *,
    gamma: float,
    smooth: float = 1e-5,
) -> Float[Tensor, ""]:
    """Focal loss with α = 1 over both channels, mean over pixels.

    Targets are clamped to [smooth, 1 - smooth], and `smooth` is added inside the logarithm, both
    as in the official code. The loss can be slightly negative if a pixel is certain.
    """
    one_hot = torch.stack([~mask, mask], dim=1).to(probabilities.dtype)
    p = (one_hot.clamp(smooth, 1.0 - smooth) * probabilities).sum(dim=1) + smooth
    return -((1.0 - p) ** gamma * p.log()).mean()


def dice_loss(
    anomalous: Float[Tensor, "B H W"], mask: Bool[Tensor, "B H W"], *, smooth: float = 1.0
) -> Float[Tensor, ""]:
    """1 - Dice coefficient, averaged over images."""
    p, t = anomalous.flatten(1), mask.flatten(1).to(anomalous.dtype)
    overlap = 2.0 * (p * t).sum(dim=1) + smooth
    return 1.0 - (overlap / (p.sum(dim=1) + t.sum(dim=1) + smooth)).mean()


class CraneLoss:
    """focal_weight Σ focal + dice_weight Σ Dice + image_weight · cross-entropy.

    Args:
        focal_weight: Weight of the focal loss, summed over local embeddings.
        dice_weight: Weight of the Dice loss, likewise.
        image_weight: Weight of the image's cross-entropy.
        image_temperature: Divisor of the image's similarities, in this loss only.
        focal_gamma: γ of the focal loss.
        local_copies: How often each local embedding counts. The official Crane counts its one
            local embedding four times, because its four taps are views of one tensor (spec,
            "Vision: E-Attn").
        interpolation: How probabilities are spread from patches to pixels.
    """

    @checked
    def __init__(
        self,
        *,
        focal_weight: NonNegativeFloat,
        dice_weight: NonNegativeFloat,
        image_weight: NonNegativeFloat,
        image_temperature: PositiveFloat,
        focal_gamma: NonNegativeFloat,
        local_copies: PositiveInt,
        interpolation: Literal["nearest", "bilinear"],
    ) -> None:
        self.focal_weight, self.dice_weight = focal_weight, dice_weight
        self.image_weight, self.image_temperature = image_weight, image_temperature
        self.focal_gamma, self.local_copies = focal_gamma, local_copies
        self.interpolation = interpolation

    def __call__(
        self,
        model: Crane,
        tokens: VisionTokens,
        text: Float[Tensor, "T 2 E"],
        *,
        mask: Int[Tensor, "B H W"],
        has_mask: Bool[Tensor, " B"],
        label: Int[Tensor, " B"],
    ) -> Losses:
        """Losses of a batch; images without a mask count in the image loss only."""
        logits = model.patch_logits(tokens, text)
        fused = model.fuse(tokens, logits)
        image_logits = model.image_logits(fused, text, self.image_temperature)
        image = F.cross_entropy(image_logits, label)

        focal = dice = logits.new_zeros(())
        known = rows_with_mask(has_mask, logits)
        if known is not None:
            anomalous_pixels = mask[known] > 0
            size = (mask.shape[-2], mask.shape[-1])
            for local in logits:
                probabilities = upsample(
                    local[known].softmax(dim=-1), tokens.grid, size, self.interpolation
                )
                focal = focal + focal_loss(probabilities, anomalous_pixels, gamma=self.focal_gamma)
                one_map = (1.0 - probabilities[:, NORMAL] + probabilities[:, ANOMALOUS]) / 2.0
                dice = dice + dice_loss(one_map, anomalous_pixels)
        focal = self.focal_weight * self.local_copies * focal
        dice = self.dice_weight * self.local_copies * dice
        return Losses(focal, dice, image, focal + dice + self.image_weight * image)


class PixelLosses(NamedTuple):
    """The parts of the loss before their weights, each summed over maps; scalars."""

    focal: Tensor
    """Focal loss of pixels."""
    dice: Tensor
    """Dice loss of anomalous pixels."""
    dice_normal: Tensor
    """Dice loss of normal pixels."""
    image: Tensor
    """Loss of whole images."""
    total: Tensor
    """The value that is minimised."""


class PixelLoss:
    """focal_weight Σ focal + dice_weight Σ Dice + dice_normal_weight Σ Dice of normal + image.

    Args:
        focal_weight: Weight of the focal loss.
        dice_weight: Weight of the Dice loss of anomalous pixels.
        dice_normal_weight: Weight of the Dice loss of normal pixels.
        image_weight: Weight of the image's loss.
        image_loss: `cross_entropy`, or the `focal` loss of the image's probabilities.
        dice_over: Items of the Dice loss: whole images, or the `rows` of pixels of each, which is
            what the published AdaCLIP computes.
        focal_gamma: γ of the focal loss.
    """

    @checked
    def __init__(
        self,
        *,
        focal_weight: NonNegativeFloat,
        dice_weight: NonNegativeFloat,
        dice_normal_weight: NonNegativeFloat,
        image_weight: NonNegativeFloat,
        image_loss: Literal["cross_entropy", "focal"],
        dice_over: Literal["images", "rows"],
        focal_gamma: NonNegativeFloat,
    ) -> None:
        self.focal_weight, self.dice_weight = focal_weight, dice_weight
        self.dice_normal_weight, self.image_weight = dice_normal_weight, image_weight
        self.image_loss, self.dice_over, self.focal_gamma = image_loss, dice_over, focal_gamma

    def __call__(
        self,
        outputs: Outputs,
        *,
        mask: Int[Tensor, "B H W"],
        has_mask: Bool[Tensor, " B"],
        label: Int[Tensor, " B"],
    ) -> PixelLosses:
        """The losses of a batch; images without a mask count in the image's loss only."""
        image = self._image(outputs.image, label)
        # 0 where no mask is known, with gradients of 0: whatever is learned always has some.
        focal = dice = dice_normal = 0.0 * outputs.pixels[:, :0].sum()
        known = rows_with_mask(has_mask, outputs.pixels)
        if known is not None:
            truth = mask[known] > 0
            for pixels in outputs.pixels[:, known]:
                focal = focal + focal_loss(pixels, truth, gamma=self.focal_gamma)
                dice = dice + self._dice(pixels[:, ANOMALOUS], truth)
                dice_normal = dice_normal + self._dice(pixels[:, NORMAL], ~truth)
        total = self.focal_weight * focal + self.dice_weight * dice
        total = total + self.dice_normal_weight * dice_normal + self.image_weight * image
        return PixelLosses(focal, dice, dice_normal, image, total)

    def _dice(self, probabilities: Tensor, truth: Tensor) -> Tensor:
        if self.dice_over == "rows":
            probabilities, truth = (x.flatten(0, 1).unsqueeze(1) for x in (probabilities, truth))
        return dice_loss(probabilities, truth)

    def _image(self, logits: Tensor, label: Tensor) -> Tensor:
        if self.image_loss == "cross_entropy":
            return F.cross_entropy(logits, label)
        probabilities = logits.softmax(dim=-1)[..., None, None]
        return focal_loss(probabilities, label.bool()[:, None, None], gamma=self.focal_gamma)
