"""From a configuration to a model, and what a checkpoint carries of it."""

import pytest
import torch
from omegaconf import OmegaConf

from crane.backbones import load_backbone
from crane.config import compose
from crane.errors import UsageError
from crane.identity import MODEL_KEYS
from crane.methods import Crane, build_model, model_config
from reference.build import FixedFeatures, build, composed
from reference.generated import generated_clip_state_dict, generated_prompts

SMALL = {
    "vision_layers": 2,
    "vision_width": 64,
    "patch": 2,
    "grid": 2,
    "text_layers": 9,
    "text_width": 64,
    "joint": 64,
}
OTHER_JOINT = generated_clip_state_dict(**(SMALL | {"joint": 128}))


def num_trained(model: Crane) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_only_the_prompts_are_trained(model: Crane) -> None:
    width = model.text.width
    assert num_trained(model) == 2 * 12 * width + 8 * 4 * width
    assert not model.training


def test_prompts_are_drawn_from_the_seed_alone() -> None:
    def words(seed: int, drawn_before: int) -> torch.Tensor:
        torch.manual_seed(drawn_before)
        config = composed("backbone=tiny", f"seed={seed}")
        before = torch.get_rng_state()
        model = build_model(config)
        assert torch.equal(torch.get_rng_state(), before), "and draw nothing from others' numbers"
        return model.prompts.words["normal"]

    assert torch.equal(words(1, 0), words(1, 5))
    assert not torch.equal(words(1, 0), words(2, 0))


@pytest.mark.parametrize(
    ("options", "num_local"),
    [
        (["attention=vv"], 1),
        (["attention=clip"], 1),
        (["guide=tiny"], 2),
        (["guide=tiny", "attention=none"], 1),
        (["method=crane_plus", "guide=tiny", "attention=qkv_squared", "prompt=none"], 2),
    ],
)
def test_attentions_and_guides_combine(options: list[str], num_local: int) -> None:
    model = build_model(composed("backbone=tiny", *options))
    assert len(model.vision(torch.rand(1, 3, 56, 56)).patches) == num_local


def test_no_attention_needs_a_guide() -> None:
    with pytest.raises(UsageError, match="attention=none needs a guide"):
        build_model(composed("backbone=tiny", "attention=none"))


def test_more_blocks_than_the_backbone_has_are_refused() -> None:
    with pytest.raises(
        UsageError, match=r"attention\.num_blocks must be at most 8, the backbone's blocks, not 19"
    ):
        build_model(composed("backbone=tiny", "attention.num_blocks=19"))


def test_a_guide_of_ones_own_needs_its_attention() -> None:
    guide = FixedFeatures(torch.rand(1, 4, 2, 2))
    with pytest.raises(UsageError, match="guide must have features and attention, or neither"):
        build_model(composed("backbone=tiny", "guide=none"), guide=guide)


def test_a_joint_width_of_its_own_needs_static_prompts() -> None:
    overrides = ["method=crane", "attention.num_blocks=1"]
    with pytest.raises(
        UsageError, match="joint width is 128 and its text width 64; choose another backbone"
    ):
        build([*overrides, "prompt=pad_suffix"], OTHER_JOINT)
    model = build([*overrides, "prompt=none"], OTHER_JOINT)
    prediction = model(torch.rand(2, 3, 6, 4))
    assert prediction.map.shape == (2, 6, 4)
    assert torch.isfinite(prediction.score).all()


def test_prompts_come_under_our_names_and_the_official_ones(crane: Crane) -> None:
    official = generated_prompts(text_width=128)
    crane.load_learned(official)
    ours = {name: value.clone() for name, value in crane.prompts.state_dict().items()}
    assert torch.equal(ours["deep"][3], official["compound_prompts_text.3"])
    crane.load_learned({"prompt_learner": generated_prompts(seed=1, text_width=128)})
    assert not torch.equal(crane.prompts.deep, ours["deep"])
    crane.load_learned(ours)
    assert torch.equal(crane.prompts.deep, ours["deep"])


def test_prompts_of_another_width_are_refused(crane: Crane) -> None:
    for prompts in (generated_prompts(text_width=64), {"words.normal": torch.rand(12, 128)}):
        with pytest.raises(UsageError, match="checkpoint"):
            crane.load_learned(prompts)


def test_a_checkpoint_carries_the_model_without_anyones_folders() -> None:
    config = composed("backbone=tiny", "weights_dir=/home/someone")
    carried = model_config(config)
    assert set(carried) == set(MODEL_KEYS)
    assert "/home/someone" not in str(carried)
    elsewhere = OmegaConf.merge(composed("weights_dir=/elsewhere"), carried)
    assert elsewhere.backbone.model.weights_dir == "/elsewhere"
    assert isinstance(build_model(elsewhere), Crane)


def test_the_tiny_backbone_is_the_same_every_time() -> None:
    arguments = OmegaConf.to_container(composed("backbone=tiny").backbone.model, resolve=True)
    assert isinstance(arguments, dict)
    del arguments["_target_"]
    first, second = load_backbone(**arguments), load_backbone(**arguments)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("backbone", "size", "near"), [("clip_vit_l14_336", 500, 504), ("tiny", 13, 14)]
)
def test_a_size_that_is_no_multiple_of_the_patch_is_refused_before_weights(backbone, size, near):
    config = compose(
        "train", [f"backbone={backbone}", f"image_size={size}", "allow_download=false"]
    )
    with pytest.raises(
        UsageError, match=rf"image_size must be a multiple .* 14 px, such as {near}"
    ):
        build_model(config)
