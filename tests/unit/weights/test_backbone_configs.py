from pathlib import Path

import open_clip
import pytest
import torch
from omegaconf import OmegaConf

from crane.weights import CATALOGUE, load_open_clip

CONF = Path(__file__).parents[3] / "conf" / "backbone"
OPTIONS = ["tiny", *(path.stem for path in CONF.glob("*.yaml") if path.stem != "tiny")]


def composed(option):
    shared = {"weights_dir": "nowhere", "allow_download": False}
    config = OmegaConf.merge(shared, OmegaConf.load(CONF / f"{option}.yaml"))
    return OmegaConf.to_container(config, resolve=True)


def test_the_five_published_backbones_and_two_small_ones_are_there():
    assert set(OPTIONS) == {
        "clip_vit_l14_336",
        "clip_vit_l14",
        "clip_vit_b16",
        "openclip_vit_h14_laion2b",
        "openclip_vit_l14_datacomp",
        "mini",
        "tiny",
    }


@pytest.mark.parametrize("option", OPTIONS)
def test_options_describe_models_that_exist_and_fit(option):
    config = composed(option)
    model = config["model"]
    assert model.pop("_target_") == "crane.backbones.load_backbone"
    architecture, weights = model["architecture"], model["weights"]
    named = isinstance(architecture, str)
    geometry = open_clip.get_model_config(architecture) if named else architecture
    if option == "mini":
        assert f"{architecture}/{weights}" in CATALOGUE
    elif named:
        tag = open_clip.get_pretrained_cfg(architecture, weights)
        assert tag, "a tag open_clip knows"
        assert tag.get("quick_gelu", False) == model["quick_gelu"]
    vision = geometry["vision_cfg"]
    assert config["num_attention_blocks"] == vision["layers"] * 19 // 24
    assert config["image_size"] % vision["patch_size"] == 0
    assert geometry["embed_dim"] == geometry["text_cfg"]["width"], "image context needs E = width"
    assert geometry["text_cfg"]["layers"] >= 9, "published prompts reach nine text blocks"


@pytest.mark.parametrize("option", OPTIONS)
def test_options_build(option):
    model = composed(option)["model"]
    del model["_target_"]
    with torch.device("cpu" if option == "tiny" else "meta"):
        built = load_open_clip(**{**model, "weights": "random"})
    assert isinstance(built, open_clip.CLIP)
    assert built.visual.class_embedding.ndim == 1
