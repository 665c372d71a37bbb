"""E-Attn: how a block's own queries, keys and values correlate patches (paper section 3.2).

Each of these stands in the place of ordinary attention in the second stream: it takes what the
block's ordinary attention takes and returns W v, row-normalised correlations W times values.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from crane.errors import UsageError

Heads = Float[Tensor, "B heads T d"]


class Correlation(Protocol):
    """What an attention variant is: one function of a block's queries, keys and values."""

    def __call__(self, q: Heads, k: Heads, v: Heads) -> Heads:
        """Return W v."""
        ...


class SumOfSelfCorrelations:
    """Σ_t A(t) v over the given t ∈ {q, k, v}, with A(t) = softmax(t tᵀ / √d).

    A sum, not a mean, as the official code has it (spec, "E-Attn").

    Args:
        of: Which of `q`, `k` and `v` correlate with themselves; `qq+kk+vv` is the default of the
            paper, `vv` that of AnomalyCLIP.

    >>> attend = SumOfSelfCorrelations(["q", "v"])
    >>> x = torch.randn(2, 4, 10, 8)
    >>> attend(x, x, x).shape
    torch.Size([2, 4, 10, 8])
    """

    def __init__(self, of: Sequence[str]) -> None:
        if not of or set(of) - {"q", "k", "v"} or len(set(of)) != len(of):
            raise UsageError(
                "a list of distinct terms out of q, k, v", list(of), key="attention.correlation.of"
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


class SecondStream(NamedTuple):
    """E-Attn: which correlation, in how many of the last blocks."""

    correlation: Correlation | None
    """None only where `num_blocks` is 0."""
    num_blocks: int
    """Last blocks that have a second stream. 0 is plain CLIP: the ViT's own patches."""
