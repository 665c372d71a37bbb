"""A transformer block of open_clip that exposes its queries, keys and values."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from crane.errors import UsageError

Heads = Float[Tensor, "B heads T d"]


class Block(nn.Module):
    """One frozen pre-norm block in four steps, from which Crane's streams are put together.

    It shares the weights of the given block: LN1, W_qkv, Proj, LN2 and MLP of the specification.

    Args:
        block: A residual attention block of an open_clip tower.

    Raises:
        UsageError: The block has another architecture (cross attention, query-key norms, ...).
    """

    def __init__(self, block: nn.Module) -> None:
        from open_clip.transformer import ResidualAttentionBlock

        super().__init__()
        if not isinstance(block, ResidualAttentionBlock) or hasattr(block, "ln_1_kv"):
            raise UsageError(
                f"the backbone's tower is made of {type(block).__name__}; Crane needs ordinary "
                "pre-norm attention blocks",
                key="backbone",
            )
        self.ln_1, self.attn, self.scale_1 = block.ln_1, block.attn, block.ls_1
        self.ln_2, self.feed_forward, self.scale_2 = block.ln_2, block.mlp, block.ls_2

    def qkv(self, x: Float[Tensor, "B T D"]) -> tuple[Heads, Heads, Heads]:
        """Queries, keys and values of each head, from one product: W_qkv LN1(x)."""
        flat = F.linear(self.ln_1(x), self.attn.in_proj_weight, self.attn.in_proj_bias)
        q, k, v = flat.unflatten(-1, (3, self.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def values(self, x: Float[Tensor, "B T D"]) -> Heads:
        """The values alone."""
        width = x.shape[-1]
        weight, bias = self.attn.in_proj_weight[2 * width :], self.attn.in_proj_bias[2 * width :]
        flat = F.linear(self.ln_1(x), weight, bias)
        return flat.unflatten(-1, (self.attn.num_heads, -1)).transpose(1, 2)

    def project(self, attended: Heads) -> Float[Tensor, "B T D"]:
        """The term that attention adds to its stream: Proj of the concatenated heads."""
        out: Tensor = self.scale_1(self.attn.out_proj(attended.transpose(1, 2).flatten(2)))
        return out

    def mlp(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """The term that the feed-forward part adds to its stream: MLP(LN2(x))."""
        out: Tensor = self.scale_2(self.feed_forward(self.ln_2(x)))
        return out

    def read(self, x: Float[Tensor, "R L D"], at: Int[Tensor, " R"]) -> Float[Tensor, "R D"]:
        """Output of the causal block at one position of each row, all that a last block needs."""
        q, k, v = self.qkv(x)
        rows = torch.arange(x.shape[0], device=x.device)
        seen = torch.arange(x.shape[1], device=x.device) <= at.unsqueeze(1)
        attended = F.scaled_dot_product_attention(
            q[rows, :, at].unsqueeze(2), k, v, attn_mask=seen[:, None, None]
        )
        y = x[rows, at].unsqueeze(1) + self.project(attended)
        return (y + self.mlp(y)).squeeze(1)

    def forward(self, x: Float[Tensor, "B T D"], *, causal: bool = False) -> Float[Tensor, "B T D"]:
        """The ordinary block: softmax attention, then the feed-forward part, both residual."""
        q, k, v = self.qkv(x)
        x = x + self.project(F.scaled_dot_product_attention(q, k, v, is_causal=causal))
        return x + self.mlp(x)
