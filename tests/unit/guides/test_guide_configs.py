import sys
from pathlib import Path

import hydra.utils
import pytest
import torch
from omegaconf import OmegaConf

from crane.guides import HubGuide, TimmGuide

CONF = Path(__file__).parents[3] / "conf" / "guide"
GRIDS = {
    "dinov2_vitb14_reg": None,
    "dinov2_vitb14_reg_timm": (768, 37, 37),
    "dino_vitb8": (768, 64, 64),
    "dinov3_vitb16": (768, 32, 32),
    "sam_vitb": (256, 64, 64),
    "tiny": (64, 37, 37),
    "mini": (128, 65, 65),
    "none": None,
}
"""Channels and grid at the published 518 px; None where this test cannot build the model."""


def composed(option):
    shared = {"weights_dir": "nowhere", "allow_download": False}
    return OmegaConf.merge(shared, OmegaConf.load(CONF / f"{option}.yaml"))


def test_every_option_is_tested():
    assert {path.stem for path in CONF.glob("*.yaml")} == set(GRIDS)


def test_none_is_all_null():
    assert dict(composed("none")) | {} == {
        "weights_dir": "nowhere",
        "allow_download": False,
        "features": None,
        "attention": None,
    }


@pytest.mark.parametrize("option", [name for name in GRIDS if name != "none"])
def test_published_values(option):
    attention = composed(option)["attention"]
    assert attention == {
        "_target_": "crane.attention.GuidedAttention",
        "beta": 1.08 if option == "sam_vitb" else 1.2,
        "gamma": 3.0,
        "mean": "image",
        "value_input": "after_attention",
    }


@pytest.mark.parametrize("option", [name for name, grid in GRIDS.items() if grid])
def test_timm_options_build_and_have_their_grid(option):
    config = composed(option)["features"]
    with torch.device("meta"):
        guide = hydra.utils.instantiate(config, weights="random", _convert_="all")
        features = guide(torch.rand(1, 3, 518, 518))
    assert isinstance(guide, TimmGuide)
    assert features.shape == (1, *GRIDS[option])


def test_the_hub_option_builds_from_a_clone(tmp_path):
    lines = ["from torch import nn", "class Model(nn.Identity):", "    patch_size = 14"]
    lines += ["    get_intermediate_layers = None", "def dinov2_vitb14_reg(*, pretrained): "]
    (tmp_path / "hubconf.py").write_text("\n".join([*lines, "    return Model()"]))
    config = composed("dinov2_vitb14_reg")["features"]
    local = {"source": "local", "repo_dir": str(tmp_path), "weights": "random"}
    guide = hydra.utils.instantiate(config, **local, _convert_="all")
    assert isinstance(guide, HubGuide)
    assert len(config["repo"].partition(":")[2]) == 40, "pinned at a commit"
    assert str(tmp_path) not in sys.path
