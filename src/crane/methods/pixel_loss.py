"""The loss that AnomalyCLIP, VAND and AdaCLIP are trained with, each with weights of its own."""

from typing import Literal, NamedTuple

from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import functional as F

from crane.checks import NonNegativeFloat, checked
from crane.methods.detector import Outputs
from crane.methods.losses import dice_loss, focal_loss, rows_with_mask
from crane.types import ANOMALOUS, NORMAL


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
