"""E-Attn and D-Attn: how the second stream correlates patches (paper sections 3.2 and 3.3).

Each correlation replaces ordinary attention: from the same queries, keys and values it returns W v,
row-normalised correlations W times values. D-Attn takes them from another model's patches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from crane.checks import NonNegativeInt, PositiveFloat, checked
from crane.errors import UsageError

Heads = Float[Tensor, "B heads T d"]


class Correlation(Protocol):
    """An attention variant: one function of a block's queries, keys and values."""

    def __call__(self, q: Heads, k: Heads, v: Heads) -> Heads:
        """Return W v."""
        ...


class SumOfSelfCorrelations:
    """Σ_t A(t) v over the given t ∈ {q, k, v}, with A(t) = softmax(t tᵀ / √d).

    A sum, not a mean, as the official code has it (spec, "E-Attn").

    Args:
        of: Which of `q`, `k` and `v` are correlated with themselves; `qq+kk+vv` is the default of
            the paper, `vv` that of AnomalyCLIP.

    Raises:
        UsageError: A term is unknown or repeated, or there is none.

    >>> attend = SumOfSelfCorrelations(["q", "v"])
    >>> x = torch.randn(2, 4, 10, 8)
    >>> attend(x, x, x).shape
    torch.Size([2, 4, 10, 8])
    """

    @checked
    def __init__(self, of: Sequence[Literal["q", "k", "v"]]) -> None:
        if not of or len(set(of)) != len(of):
            raise UsageError(
                f"must hold at least one of q, k and v, each at most once, not {list(of)}",
                key="attention.correlation.of",
            )
        self.of = tuple(of)

    def __call__(self, q: Heads, k: Heads, v: Heads) -> Heads:
        """Return Σ_t A(t) v."""
        terms = {"q": q, "k": k, "v": v}
        first, *others = (F.scaled_dot_product_attention(terms[t], terms[t], v) for t in self.of)
        return sum(others, start=first)


class JointSelfCorrelation:
    """A([q; k; v]) v: the three side by side in each head, scaled by 1/√(3d); `(q+k+v)^2`.

    >>> x = torch.randn(2, 4, 10, 8)
    >>> JointSelfCorrelation()(x, x, x).shape
    torch.Size([2, 4, 10, 8])
    """

    def __call__(self, q: Heads, k: Heads, v: Heads) -> Heads:
        """Return A([q; k; v]) v."""
        joint = torch.cat([q, k, v], dim=-1)
        return F.scaled_dot_product_attention(joint, joint, v)


@checked
@dataclass(frozen=True)
class SecondStream:
    """E-Attn: which correlation, in how many of the last blocks.

    Raises:
        UsageError: A stream without blocks has a correlation, or one with blocks has none.
    """

    correlation: Correlation | None
    """None only if `num_blocks` is 0."""
    num_blocks: NonNegativeInt
    """Last blocks that have a second stream. 0 is plain CLIP: the ViT's own patches."""

    def __post_init__(self) -> None:
        if (self.correlation is None) != (self.num_blocks == 0):
            raise UsageError(
                "a stream of 1 block or more needs a correlation, and one of 0 blocks takes none; "
                "change attention.correlation or attention.num_blocks",
                key="attention",
            )


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
