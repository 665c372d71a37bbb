"""The towers equal open_clip's own encoders; what does not fit is refused at construction."""

from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from crane.backbones import Clip, clip_from_state_dict, load_backbone
from crane.errors import UsageError
from crane.weights import load_open_clip
from reference import crane_slow
from reference.build import furthest
from reference.generated import generated_clip_state_dict

VISION = {"image_size": 12, "patch_size": 4, "layers": 3, "width": 64, "head_width": 64}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
QUICKLY = settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate),  # shrinking would build hundreds of towers
)
SENTENCES = ("object.", "damaged object.", "a photo of a very damaged transistor")


def architecture(vision: dict[str, Any], text: dict[str, Any], **more: object) -> dict[str, Any]:
    return {"embed_dim": 64, "vision_cfg": VISION | vision, "text_cfg": TEXT | text, **more}


def random_weights(quick_gelu: bool = False) -> dict[str, Any]:
    return {
        "weights": "random",
        "quick_gelu": quick_gelu,
        "seed": 0,
        "weights_dir": "nowhere",
        "allow_download": False,
    }


FITTING = {
    "OpenAI's": ({}, {}, {}, True),
    "open_clip's": ({}, {}, {}, False),
    "text tower of its own": ({}, {}, {"custom_text": True}, False),
    "layer scale": ({"ls_init_value": 0.4}, {"ls_init_value": 0.4}, {}, False),
    "no first norm": ({"no_ln_pre": True}, {}, {}, False),
}


@pytest.fixture(params=FITTING, scope="module")
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, Clip]:
    """A model of open_clip, and ours of the same weights."""
    vision, text, more, quick_gelu = FITTING[request.param]
    geometry = architecture(vision, text, **more)
    theirs = load_open_clip(geometry, **random_weights(quick_gelu))
    return theirs, load_backbone(geometry, **random_weights(quick_gelu))


def test_the_plain_vision_stream_is_open_clips(pair: tuple[nn.Module, Clip]) -> None:
    theirs, ours = pair
    images = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    mean, std = ours.vision.mean, ours.vision.std
    x = ours.vision.embed(images)
    for block in ours.vision.blocks:
        x = block(x)
    global_ = ours.vision.to_joint(x[:, :1]).squeeze(1)
    assert furthest(global_, theirs.encode_image((images - mean) / std)) < 1e-5


def test_the_text_tower_is_open_clips_without_its_padding(pair: tuple[nn.Module, Clip]) -> None:
    theirs, ours = pair
    text = ours.text
    ids = [text.tokenize(sentence) for sentence in SENTENCES]
    rows = torch.zeros(len(ids), max(map(len, ids)), text.width)
    for row, one in zip(rows, ids, strict=True):
        row[: len(one)] = text.token_embedding(one)
    ends = torch.tensor([len(one) - 1 for one in ids])
    wanted = theirs.encode_text(torch.cat([text.tokenizer(one) for one in SENTENCES]))
    assert furthest(text(rows, ends, torch.empty(0, len(ids), 1, text.width)), wanted) < 1e-5


def test_everything_is_frozen(pair: tuple[nn.Module, Clip]) -> None:
    _, ours = pair
    assert not any(parameter.requires_grad for parameter in ours.parameters())
    assert not ours.training
    assert ours.vision.joint_width == ours.text.joint_width == 64


@QUICKLY
@given(
    st.integers(1, 4), st.integers(1, 4), st.integers(2, 4), st.integers(1, 4), st.integers(1, 4)
)
def test_images_of_any_grid_are_embedded_as_slowly(
    rows: int, columns: int, patch: int, side: int, num_images: int
) -> None:
    state = generated_clip_state_dict(
        vision_layers=2, vision_width=64, patch=patch, grid=side, text_layers=1, text_width=64,
        joint=64, vocabulary=1,
    )  # fmt: skip
    tower = clip_from_state_dict(state).vision
    images = torch.rand(num_images, 3, rows * patch, columns * patch)
    assert tower.grid(*images.shape[-2:]) == (rows, columns)
    ours = tower.embed(images)
    double = crane_slow.in_double(state)
    for one, image in zip(ours, (images - tower.mean) / tower.std, strict=True):
        slow, grid = crane_slow.embed_image(double, image.double())
        assert grid == (rows, columns)
        assert furthest(one, slow) < 1e-5


@QUICKLY
@given(st.integers(2, 5), st.integers(0, 4), st.integers(1, 3), st.integers(5, 20), st.data())
def test_deep_tokens_enter_as_slowly(
    num_blocks: int, num_sets: int, num_deep: int, length: int, data: st.DataObject
) -> None:
    num_sets = min(num_sets, num_blocks - 1)
    state = generated_clip_state_dict(
        vision_layers=1, vision_width=64, patch=2, grid=1, text_layers=num_blocks, text_width=64,
        joint=64, vocabulary=1,
    )  # fmt: skip
    tower = clip_from_state_dict(state).text
    torch.manual_seed(data.draw(st.integers(0, 10_000)))
    rows = 0.1 * torch.randn(2, length, 64)
    ends = torch.tensor([data.draw(st.integers(num_deep, length - 1)) for _ in rows])
    deep = 0.1 * torch.randn(num_sets, 2, num_deep, 64)
    ours = F.normalize(tower(rows, ends, deep), dim=-1)
    double = crane_slow.in_double(state)
    for number, one in enumerate(ours):
        sets = [each[number].double() for each in deep]
        slow = crane_slow.encode_sentence(
            double, rows[number].double(), int(ends[number]), sets, round_deep=False
        )
        assert furthest(one, slow) < 1e-5


@pytest.mark.parametrize("size", [(13, 12), (12, 14), (3, 4), (0, 4)])
def test_image_sizes_between_patches_are_refused(size: tuple[int, int]) -> None:
    tower = load_backbone(architecture({}, {}), **random_weights()).vision
    with pytest.raises(UsageError, match=r"image_size must be a multiple of the 4x4 patch"):
        tower.grid(*size)
    with pytest.raises(UsageError, match="image_size must be a multiple"):
        tower.embed(torch.rand(1, 3, *size))


MISFITS = {
    "average pooling": ({"pool_type": "avg"}, {}, {}),
    "attentional pooling": ({"attentional_pool": True, "attn_pooler_heads": 1}, {}, {}),
    "norm after pooling": ({"final_ln_after_pool": True}, {}, {}),
    "convolutions": ({"layers": [1, 1, 1, 1], "width": 16, "image_size": 32}, {}, {}),
    "timm": ({"timm_model_name": "test_vit", "timm_pool": "", "image_size": 160}, {}, {}),
    "query-key norms": ({"qk_norm": True}, {}, {}),
    "the same in the text": ({}, {"qk_norm": True}, {}),
    "text without causal mask": ({}, {"no_causal_mask": True}, {"custom_text": True}),
    "text read at its last token": ({}, {"pool_type": "last"}, {"custom_text": True}),
    "text projected with a bias": ({}, {"proj_bias": True}, {"custom_text": True}),
    "text read at an appended token": ({}, {"embed_cls": True}, {"custom_text": True}),
    "text without projection": ({}, {"proj_type": "none"}, {"custom_text": True}),
}


@pytest.mark.parametrize("name", MISFITS)
def test_backbones_that_do_not_fit_are_refused(name: str) -> None:
    vision, text, more = MISFITS[name]
    with pytest.raises(UsageError, match=r"backbone's .*tower|tower of timm") as caught:
        load_backbone(architecture(vision, text, **more), **random_weights())
    assert str(caught.value.key).startswith("backbone")


@pytest.mark.parametrize("positions", [8, 77])
def test_sentences_that_do_not_fit_are_refused(positions: int) -> None:
    state = generated_clip_state_dict(
        vision_layers=1, vision_width=64, patch=2, grid=1, text_layers=1, text_width=64, joint=64,
        positions=positions, vocabulary=1,
    )  # fmt: skip
    text = clip_from_state_dict(state).text
    most = positions - 3
    assert len(text.tokenize("object " * most)) == most + 2
    wanted = rf"prompt\.words must have 1 to {most} tokens, not '"
    for sentence in ("object " * (most + 1), "object " * 100, "", "  "):
        with pytest.raises(UsageError, match=wanted):
            text.tokenize(sentence)


def test_a_state_dict_of_any_geometry_keeps_its_numbers() -> None:
    state = generated_clip_state_dict(
        vision_layers=2, vision_width=128, patch=3, grid=2, text_layers=1, text_width=64, joint=192,
        vocabulary=100,
    )  # fmt: skip
    clip = clip_from_state_dict(state)
    assert (clip.vision.position_grid, clip.vision.patch_size) == ((2, 2), (3, 3))
    assert (clip.text.width, clip.text.joint_width, clip.vision.joint_width) == (64, 192, 192)
    last, text_block = clip.vision.blocks[1], clip.text.blocks[0]
    for value, name in [
        (last.attn.in_proj_weight, "visual.transformer.resblocks.1.attn.in_proj_weight"),
        (clip.vision.projection, "visual.proj"),
        (text_block.feed_forward.c_fc.bias, "transformer.resblocks.0.mlp.c_fc.bias"),
        (clip.text.token_embedding.weight, "token_embedding.weight"),
    ]:
        assert torch.equal(value, state[name]), name
