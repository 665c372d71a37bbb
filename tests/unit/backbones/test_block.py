"""A block taken apart equals open_clip's whole one, and the slow reference's."""

import math

import pytest
import torch
from open_clip.transformer import CustomResidualAttentionBlock, ResidualAttentionBlock
from torch import nn

from crane.backbones.towers import Block
from crane.errors import UsageError
from reference.crane_slow import HEAD_WIDTH, gelu, heads, project, softmax


def whole_block(**options: object) -> ResidualAttentionBlock:
    torch.manual_seed(0)
    block = ResidualAttentionBlock(128, 2, **options).double().eval()
    for name, parameter in block.named_parameters():
        if name.endswith("bias"):  # open_clip's start at 0, where a forgotten one goes unnoticed
            nn.init.normal_(parameter)
    return block.requires_grad_(False)


def tokens() -> torch.Tensor:
    return torch.randn(2, 7, 128, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("layer_scale", [None, 0.3])
def test_the_ordinary_block_is_open_clips(causal: bool, layer_scale: float | None) -> None:
    whole = whole_block(ls_init_value=layer_scale)
    mask = torch.full((7, 7), -math.inf, dtype=torch.float64).triu(1) if causal else None
    wanted = whole(tokens(), attn_mask=mask)
    torch.testing.assert_close(Block(whole)(tokens(), causal=causal), wanted)


def test_the_steps_are_those_of_the_slow_reference() -> None:
    whole, x = whole_block(), tokens()
    block = Block(whole)
    state = {f"b.{name}": value for name, value in whole.state_dict().items()}
    q, k, v = block.qkv(x)
    torch.testing.assert_close(block.values(x), v)
    attended = (q @ k.mT / math.sqrt(HEAD_WIDTH)).softmax(-1) @ v
    projected = block.project(attended)
    for image, one in enumerate(whole.ln_1(x)):
        slow = heads(state, "b", one)
        for head, (slow_q, slow_k, slow_v) in enumerate(slow):
            torch.testing.assert_close(q[image, head], slow_q)
            torch.testing.assert_close(k[image, head], slow_k)
            torch.testing.assert_close(v[image, head], slow_v)
        outputs = [softmax(a @ b.T / math.sqrt(HEAD_WIDTH)) @ c for a, b, c in slow]
        torch.testing.assert_close(projected[image], project(state, "b", outputs))
    torch.testing.assert_close(block.mlp(x), whole.mlp(whole.ln_2(x)))
    assert whole.mlp.gelu(torch.tensor(0.7)) == pytest.approx(float(gelu(torch.tensor(0.7))))


def test_the_weights_are_not_copied() -> None:
    whole = whole_block()
    shared = {id(parameter) for parameter in whole.parameters()}
    assert {id(parameter) for parameter in Block(whole).parameters()} == shared


@pytest.mark.parametrize(
    "other",
    [
        CustomResidualAttentionBlock(64, 1, qk_norm=True),
        ResidualAttentionBlock(64, 1, is_cross_attention=True),
        nn.TransformerEncoderLayer(64, 1),
    ],
    ids=lambda other: type(other).__name__,
)
def test_other_architectures_are_refused(other: nn.Module) -> None:
    with pytest.raises(UsageError, match=f"backbone's tower is made of {type(other).__name__}"):
        Block(other)
