"""The vision side: which local embeddings there are, and combinations that make no sense."""

import pytest
import torch
from torch import Tensor, nn

from crane.attention import GuidedAttention, SecondStream, SumOfSelfCorrelations
from crane.backbones import VisionTower, clip_from_state_dict
from crane.errors import UsageError
from crane.methods import VisionEncoder
from crane.methods.vision import GuidedTaps
from reference.build import FixedFeatures, furthest
from reference.crane_slow import guide_attention, resize
from reference.generated import generated_clip_state_dict

GUIDED = GuidedAttention(beta=1.2, gamma=3.0, mean="image", value_input="after_attention")
PLAIN = SecondStream(None, 0)


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    state = generated_clip_state_dict(
        vision_layers=3, vision_width=64, patch=2, grid=2, text_layers=1, text_width=64, joint=64,
        vocabulary=1,
    )  # fmt: skip
    return clip_from_state_dict(state).vision


def e_attn(num_blocks: int) -> SecondStream:
    return SecondStream(SumOfSelfCorrelations(["q", "k", "v"]), num_blocks)


def images() -> Tensor:
    return torch.rand(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def features(height: int = 3, width: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 5, height, width, generator=generator)


def test_d_stands_before_z(tower: VisionTower) -> None:
    guide = FixedFeatures(features())
    both = VisionEncoder(tower, e_attn(2), guide, GUIDED)(images())
    d = VisionEncoder(tower, None, guide, GUIDED)(images())
    z = VisionEncoder(tower, e_attn(2))(images())
    assert [len(tokens.patches) for tokens in (both, d, z)] == [2, 1, 1]
    assert furthest(both.patches[0], d.patches[0]) < 1e-6
    assert furthest(both.patches[1], z.patches[0]) < 1e-6
    assert furthest(both.patches[0], both.patches[1]) > 1e-2
    assert both.global_.equal(d.global_)
    # Without a guide the last block leaves its patches out: products of another shape.
    assert furthest(both.global_, z.global_) < 1e-6


def test_everything_is_of_unit_length(tower: VisionTower) -> None:
    tokens = VisionEncoder(tower, e_attn(3), FixedFeatures(features(2, 5)), GUIDED)(images())
    assert tokens.grid == (2, 5)
    assert tokens.patches.shape == (2, 2, 10, 64)
    for embeddings in (tokens.patches, tokens.global_):
        torch.testing.assert_close(embeddings.norm(dim=-1), torch.ones(embeddings.shape[:-1]))


def test_the_vit_does_not_feel_the_second_stream(tower: VisionTower) -> None:
    streams = [PLAIN, e_attn(1), e_attn(2), e_attn(3)]
    seen = [VisionEncoder(tower, stream)(images()) for stream in streams]
    for number, one in enumerate(seen[1:], start=1):
        assert one.global_.equal(seen[1].global_)
        # Plain CLIP needs the last block's patches: products of another shape.
        assert furthest(one.global_, seen[0].global_) < 1e-6
        for other in seen[:number]:
            assert furthest(one.patches, other.patches) > 1e-3


def test_no_second_stream_is_plain_clip(tower: VisionTower) -> None:
    x = tower.embed(images())
    for block in tower.blocks:
        x = block(x)
    joint = tower.to_joint(x[:, 1:])
    plain = VisionEncoder(tower, PLAIN)(images()).patches[0]
    assert furthest(plain, joint / joint.norm(dim=-1, keepdim=True)) < 1e-5


def test_taps_stand_behind_their_averages_on_the_guides_grid() -> None:
    taps = [torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(t)) for t in (0, 1)]
    f = features(2, 5)
    guided = GuidedTaps(FixedFeatures(f), GUIDED)
    found, grid = guided(guided.features(images()), taps, (3, 4))
    assert grid == (2, 5)
    attention = guide_attention(f.double())
    for number, tap in enumerate(taps):
        for image in range(2):
            own = resize(tap[image].double(), (3, 4), grid)
            assert furthest(found[number][image], attention[image] @ own) < 1e-5
            assert furthest(found[2 + number][image], own) < 1e-5


def test_without_a_guide_taps_are_left_as_they_are() -> None:
    taps, guided = [torch.randn(2, 12, 8)], GuidedTaps(None, None)
    assert guided(guided.features(images()), taps, (3, 4)) == (taps, (3, 4))


def test_taps_have_no_values_to_choose() -> None:
    chosen = GuidedAttention(beta=1.2, gamma=3.0, mean="image", value_input="block_input")
    with pytest.raises(UsageError, match=r"guide\.attention\.value_input must be after_attention"):
        GuidedTaps(FixedFeatures(features()), chosen)


@pytest.mark.parametrize(
    ("stream", "guide", "guided", "message"),
    [
        (None, None, None, "attention=none needs a guide"),
        (PLAIN, FixedFeatures(features()), None, "guide must have features and attention"),
        (PLAIN, None, GUIDED, "guide must have features and attention"),
        (e_attn(4), None, None, r"attention\.num_blocks must be at most 3, .*, not 4"),
    ],
)
def test_combinations_that_make_no_sense_are_refused(
    tower: VisionTower,
    stream: SecondStream | None,
    guide: nn.Module | None,
    guided: GuidedAttention | None,
    message: str,
) -> None:
    with pytest.raises(UsageError, match=message):
        VisionEncoder(tower, stream, guide, guided)
