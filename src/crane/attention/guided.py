"""D-Attn: another model's patch correlations in the place of attention (paper section 3.3)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from crane.checks import PositiveFloat, checked


class GuidedAttention:
    """R v, with R the thresholded, sharpened cosine similarities of a guide's patches.

    R = softmax over rows of γ (S − β mean(S)), without entries below 0. Near-uniform features can
    lose a whole row that way; such a row keeps its diagonal, where the official code gives NaN.

    Args:
        beta: β, the threshold as a multiple of the mean similarity.
        gamma: γ, the sharpness.
        mean: `image` takes mean(S) over each image, so that a result does not depend on the rest
            of its batch; `batch` takes it over the batch, as the official code does.
        value_input: Input of the last block's values: `after_attention` is the stream after the
            block's attention (an in-place addition of the official code), and `block_input` the
            stream before it (the paper's formula).
    """

    @checked
    def __init__(
        self,
        *,
        beta: float,
        gamma: PositiveFloat,
        mean: Literal["image", "batch"],
        value_input: Literal["after_attention", "block_input"],
    ) -> None:
        self.beta, self.gamma = float(beta), float(gamma)
        self.mean, self.value_input = mean, value_input

    def correlations(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B P P"]:
        """R of each image over the guide's P = h * w patches; every row sums to 1."""
        with torch.autocast(features.device.type, enabled=False):
            unit = F.normalize(features.float().flatten(2), dim=1)
            similarities = unit.transpose(1, 2) @ unit
            over = (1, 2) if self.mean == "image" else (0, 1, 2)
            threshold = self.beta * similarities.mean(dim=over, keepdim=True)
            sharpened = self.gamma * (similarities - threshold)
            diagonal = torch.eye(sharpened.shape[-1], dtype=torch.bool, device=features.device)
            left_out = (sharpened < 0) & ~diagonal
            return sharpened.masked_fill(left_out, float("-inf")).softmax(dim=-1)

    def __call__(
        self, features: Float[Tensor, "B C h w"], v: Float[Tensor, "B heads h0 w0 d"]
    ) -> Float[Tensor, "B heads P d"]:
        """Multiply R by the values, resized bilinearly to the guide's grid if it differs.

        Args:
            features: The guide's patch features of the same images.
            v: Values of CLIP's last block at each patch, without the class token.
        """
        grid, own_grid = features.shape[-2:], v.shape[2:4]
        if grid == own_grid:
            values = v.flatten(2, 3)
        else:
            planes = v.flatten(0, 1).movedim(-1, 1)
            resized = F.interpolate(planes, size=grid, mode="bilinear", align_corners=False)
            values = resized.flatten(2).transpose(1, 2).unflatten(0, v.shape[:2])
        return self.correlations(features).to(values.dtype).unsqueeze(1) @ values
