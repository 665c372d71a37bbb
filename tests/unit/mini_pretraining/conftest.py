"""The recipe in short: the same code, few steps on few small pictures."""

from typing import Any

import pytest
import torch
import yaml

from experiments.mini_pretraining.__main__ import HERE
from experiments.mini_pretraining.canvas import Canvas
from experiments.mini_pretraining.pictures import Drawn, draw


@pytest.fixture
def recipe() -> dict[str, Any]:
    """The shipped recipe, each stage ten steps of eight pictures of 56 pixels."""
    short = yaml.safe_load((HERE / "recipe.yaml").read_text())
    short["image_size"] = 56
    for stage in short["clip"]["stages"]:
        stage.update(scenes=4, steps=10, warmup=2, image_sizes=[56, 64])
        stage["window"] = stage["window"] and 4
    short["guide"].update(scenes=2, steps=4, warmup=2, num_prototypes=64)
    return short


@pytest.fixture(scope="session")
def drawn() -> Drawn:
    """40 scenes, each without and with a defect."""
    with torch.no_grad():
        return draw(Canvas(112, torch.Generator().manual_seed(3)), 40, 0.05)
