"""D-Attn: another model's patch correlations in the place of attention (paper section 3.3)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from crane.errors import UsageError


class GuidedAttention:
    """R v, with R the thresholded, sharpened cosine similarities of a guide's patches.

    R = softmax over rows of γ (S − β mean(S)) with entries below 0 left out. Near-uniform features
    can leave out a whole row; a row then keeps its own diagonal, where the official code gives NaN.

    Args:
        beta: β, the threshold as a multiple of the mean similarity.
        gamma: γ, the sharpness.
        mean: `image` takes mean(S) over each image, so that a result does not depend on its batch
            mates; `batch` takes it over the batch, as the official code does.
        value_input: What the values of the last block are computed from: `after_attention` is the
            stream after the block's attention (an in-place addition of the official code), and
            `block_input` the stream before it (the paper's formula).
    """

    def __init__(self, *, beta: float, gamma: float, mean: str, value_input: str) -> None:
        if mean not in ("image", "batch"):
            raise UsageError("'image' or 'batch'", mean, key="guide.attention.mean")
        if value_input not in ("after_attention", "block_input"):
            raise UsageError(
                "'after_attention' or 'block_input'", value_input, key="guide.attention.value_input"
            )
        if gamma <= 0:
            raise UsageError("a positive number", gamma, key="guide.attention.gamma")
        self.beta, self.gamma = float(beta), float(gamma)
        self.mean, self.value_input = mean, value_input

    def correlations(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B P P"]:
        """R of each image for the P = h * w patches of a guide; every row sums to 1."""
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
        """R times the values, these resized bilinearly to the guide's grid where it differs.

        Args:
            features: The guide's patch features of the same images.
            v: Values of CLIP's last block at each patch, class token dropped.
        """
        grid, own_grid = features.shape[-2:], v.shape[2:4]
        if grid == own_grid:
            values = v.flatten(2, 3)
        else:
            planes = v.flatten(0, 1).movedim(-1, 1)
            resized = F.interpolate(planes, size=grid, mode="bilinear", align_corners=False)
            values = resized.flatten(2).transpose(1, 2).unflatten(0, v.shape[:2])
        return self.correlations(features).to(values.dtype).unsqueeze(1) @ values
