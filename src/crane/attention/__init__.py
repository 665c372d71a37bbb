"""Second-stream attentions: E-Attn (a block's own correlations) and D-Attn (a guide's)."""

from crane.attention.guided import GuidedAttention
from crane.attention.self_correlation import (
    Correlation,
    JointSelfCorrelation,
    SecondStream,
    SumOfSelfCorrelations,
)

__all__ = [
    "Correlation",
    "GuidedAttention",
    "JointSelfCorrelation",
    "SecondStream",
    "SumOfSelfCorrelations",
]
