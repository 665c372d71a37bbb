"""Every option of the backbone group describes a model that exists and fits."""

import open_clip
import pytest
import torch

from crane.config import compose, conf_dir, plain
from crane.weights import CATALOGUE, load_open_clip, open_clip_with_mini

OPTIONS = sorted(path.stem for path in (conf_dir() / "backbone").glob("*.yaml"))


@pytest.fixture(scope="module", params=OPTIONS)
def backbone(request):
    chosen = [f"backbone={request.param}", "weights_dir=nowhere", "allow_download=false"]
    return compose("train", chosen).backbone


def test_options_describe_models_that_exist_and_fit(backbone):
    model = backbone.model
    assert model._target_ == "crane.backbones.load_backbone"
    architecture, weights = model.architecture, model.weights
    named = isinstance(architecture, str)
    geometry = open_clip_with_mini().get_model_config(architecture) if named else architecture
    if weights == "embedded":
        assert f"{architecture}/{weights}" in CATALOGUE
    elif named:
        tag = open_clip.get_pretrained_cfg(architecture, weights)
        assert tag, "a tag open_clip knows"
        assert tag.get("quick_gelu", False) == model.quick_gelu
    vision = geometry["vision_cfg"]
    assert backbone.num_attention_blocks == vision["layers"] * 19 // 24, "the published share"
    assert backbone.image_size % vision["patch_size"] == 0
    assert geometry["embed_dim"] == geometry["text_cfg"]["width"], "image context needs E = width"
    assert geometry["text_cfg"]["layers"] >= 9, "published prompts reach nine text blocks"


def test_options_build(backbone):
    model = {key: value for key, value in plain(backbone.model).items() if key != "_target_"}
    with torch.device("cpu" if model["weights"] == "random" else "meta"):
        built = load_open_clip(**{**model, "weights": "random"})
    assert isinstance(built, open_clip.CLIP)
    assert built.visual.class_embedding.ndim == 1
