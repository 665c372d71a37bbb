"""Every option of the guide group builds, on the grid that its keys say, with catalogued code."""

import sys

import pytest
import torch

from crane.config import compose, conf_dir
from crane.gate import build
from crane.guides import HubGuide, TimmGuide
from crane.weights import HUB_REPOS

OPTIONS = sorted(path.stem for path in (conf_dir() / "guide").glob("*.yaml"))
PLACES = ("weights_dir=nowhere", "allow_download=false")


def composed(option, *more):
    return compose("train", [f"guide={option}", *PLACES, *more]).guide


FEATURES = {option: composed(option).features for option in OPTIONS if option != "none"}
TIMM = [option for option, one in FEATURES.items() if one._target_.endswith(".TimmGuide")]
HUB = [option for option, one in FEATURES.items() if one._target_.endswith(".HubGuide")]


def test_none_is_all_null():
    assert composed("none") == {"features": None, "attention": None}


@pytest.mark.parametrize(("option", "beta"), [("dinov2_vitb14_reg", 1.2), ("sam_vitb", 1.08)])
def test_published_values(option, beta):
    assert composed(option).attention == {
        "_target_": "crane.attention.GuidedAttention",
        "beta": beta,
        "gamma": 3.0,
        "mean": "image",
        "value_input": "after_attention",
    }


@pytest.mark.parametrize("option", FEATURES)
def test_every_option_says_how_its_features_become_attention(option):
    assert build(composed(option).attention, "guide.attention").gamma > 0


@pytest.mark.parametrize("option", TIMM)
def test_timm_options_build_and_have_the_grid_that_they_say(option):
    config = composed(option, "guide.features.weights=random").features
    with torch.device("meta"):
        guide = build(config, "guide.features")
        features = guide(torch.rand(1, 3, 518, 518))
    assert isinstance(guide, TimmGuide)
    size, patch = config.image_size or 518, guide.patch_size
    side = size // patch if config.fit == "crop" else round(size / patch)
    assert features.shape[2:] == (side, side)
    assert config.options.get("patch_size", patch) == patch


@pytest.mark.parametrize("option", HUB)
def test_hub_options_build_from_a_clone(option, tmp_path):
    config = composed(option).features
    lines = ["from torch import nn", "class Model(nn.Identity):", "    patch_size = 14"]
    lines += ["    get_intermediate_layers = None", f"def {config.entry}(*, pretrained): "]
    (tmp_path / "hubconf.py").write_text("\n".join([*lines, "    return Model()"]))
    clone = [f"guide.features.repo_dir={tmp_path}", "guide.features.source=local"]
    local = composed(option, *clone, "guide.features.weights=random").features
    assert isinstance(build(local, "guide.features"), HubGuide)
    assert config.repo in HUB_REPOS, "a checkpoint may choose it"
    assert len(config.repo.partition(":")[2]) == 40, "pinned at a commit"
    assert str(tmp_path) not in sys.path
