"""E-Attn: how a block's own queries, keys and values correlate patches (paper section 3.2).

Each class replaces ordinary attention in the second stream: from the same queries, keys and values
it returns W v, row-normalised correlations W times values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from crane.checks import NonNegativeInt, checked
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
