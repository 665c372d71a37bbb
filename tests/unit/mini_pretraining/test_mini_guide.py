import math

import pytest
import torch
import yaml

pytest.importorskip("lightly", reason="lightly 1.6 needs Python 3.11")

from crane.config import compose
from crane.guides import TimmGuide
from experiments.mini_pretraining.__main__ import HERE
from experiments.mini_pretraining.canvas import Canvas
from experiments.mini_pretraining.export import export
from experiments.mini_pretraining.guide import MEAN, STD, pretrain_guide, view


def test_the_short_recipe_trains_resumes_exports_and_loads(recipe, tmp_path):
    first = pretrain_guide(recipe, tmp_path, "cpu", steps=2)
    rest = pretrain_guide(recipe, tmp_path, "cpu", steps=4)
    assert len(first) == len(rest) == 2
    assert all(math.isfinite(loss) for loss in first + rest)

    state = torch.load(tmp_path / "guide.ckpt")
    assert state["step"] == 4
    path = tmp_path / "guide.safetensors"
    export(state["vit"], path)
    options = compose("train", ["method=crane_plus", "guide=mini"]).guide.features
    settings = {k: v for k, v in options.items() if k != "_target_"}
    guide = TimmGuide(**{**settings, "weights": path})
    assert guide(torch.rand(2, 3, 112, 112)).shape == (2, 128, 14, 14)
    own = guide.model.state_dict()
    for name, value in state["vit"].items():
        torch.testing.assert_close(own[name], value, atol=1e-3, rtol=1e-3)


def test_teacher_is_the_running_mean_of_the_student(recipe, tmp_path):
    recipe["guide"]["momentum"] = 1.0
    pretrain_guide(recipe, tmp_path, "cpu", steps=2)
    state = torch.load(tmp_path / "guide.ckpt")["model"]
    student = {k: v for k, v in state.items() if k.startswith("trained.0")}
    moved = [k for k, v in student.items() if not torch.equal(v, state["teachers" + k[7:]])]
    assert moved  # the student has learned; a teacher with momentum 1 has not changed


def test_the_configuration_matches_the_recipe():
    guide = yaml.safe_load((HERE / "recipe.yaml").read_text())["guide"]
    config = compose("train", ["method=crane_plus", "guide=mini"]).guide.features
    assert dict(config.options) == guide["options"]
    assert tuple(config.mean) == MEAN
    assert tuple(config.std) == STD


def test_views_are_crops_of_the_picture():
    canvas = Canvas(56, torch.Generator().manual_seed(0))
    grey = torch.full((64, 3, 56, 56), 0.5)
    flat = view(canvas, grey).flatten(2)
    assert torch.allclose(flat.amax(2), flat.amin(2), atol=1e-4)  # a uniform picture stays uniform
    ramp = torch.linspace(0, 1, 56).expand(64, 3, 56, 56)
    parts = view(canvas, ramp)[:, 0]
    rising = parts[:, 28, -5] > parts[:, 28, 5]
    assert 10 < int(rising.sum()) < 54  # some are flipped
