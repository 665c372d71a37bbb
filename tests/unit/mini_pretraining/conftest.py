"""A short version of the recipe: the same code, few steps on few small pictures."""

from functools import partial
from typing import Any

import pytest
import torch
import yaml

from experiments.mini_pretraining.__main__ import HERE
from experiments.mini_pretraining.canvas import Canvas
from experiments.mini_pretraining.pictures import Drawn, draw


@pytest.fixture
def recipe() -> dict[str, Any]:
    """The shipped recipe, shortened: ten steps in the first stage, then one, of eight pictures."""
    short = shortened("recipe.yaml", 10)
    short["image_size"] = 56
    short["guide"].update(steps=4, warmup=2, num_prototypes=64)
    short["guide"]["drawings"]["num"] = 2
    short["guide"]["segments"].update(image_size=56, warmup=2)
    short["guide"]["segments"]["looks"] = [{"num": 4, "window": 4}, {"num": 2, "window": None}]
    return short


def shortened(file: str, first: int) -> dict[str, Any]:
    """A recipe with few steps of eight small pictures: `first`, then one in each stage."""
    short = yaml.safe_load((HERE / file).read_text())
    for number, stage in enumerate(short["clip"]["stages"]):
        steps = 1 if number else first
        stage.update(steps=steps, warmup=2)
        stage["drawings"]["num"] = 4
        for look in stage["looks"]:
            look["image_size"] = look["image_size"] // 16 * 8
            if "scattered" in look:
                look["scattered"] = 16
            else:
                look["window"] = look["window"] and 4
    return short


@pytest.fixture(autouse=True)
def quick_muon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Muon with one Newton-Schulz iteration in place of five, which take most of a step."""
    if hasattr(torch.optim, "Muon"):
        monkeypatch.setattr(torch.optim, "Muon", partial(torch.optim.Muon, ns_steps=1))


@pytest.fixture(scope="session")
def drawn() -> Drawn:
    """Forty scenes, each without and with a defect."""
    with torch.no_grad():
        return draw(Canvas(112, torch.Generator().manual_seed(3)), 40, 0.05)
