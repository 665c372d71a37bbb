import json
import math

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from crane.config import compose
from crane.files import sha256
from crane.methods import build_model
from crane.weights import CATALOGUE, PRESENT, weight_status, weights_needed
from crane.weights.catalogue import MINI_CLIP, MINI_FOLDER, MINI_PROMPTS
from experiments.mini_pretraining.evaluate import evaluate_guide
from experiments.mini_pretraining.look import drawings, guide_colours
from experiments.mini_pretraining.model import small_guide

EMBEDDED = [entry for entry in CATALOGUE.values() if entry.embedded]


def test_shipped_weights_have_at_most_12_mb_and_a_card():
    files = list(MINI_FOLDER.glob("*.safetensors"))
    assert {path.name for path in files} == {file for e in EMBEDDED for file in e.files} | {
        MINI_PROMPTS
    }
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    card = (MINI_FOLDER / "card.md").read_text()
    for path in files:
        assert path.name in card
    for word in ("Data", "Steps", "Seed", "Hardware", "Time", "retrieval", "Licence", "MIT"):
        assert word in card


@pytest.mark.parametrize("entry", EMBEDDED, ids=lambda entry: entry.name)
def test_each_file_matches_the_catalogue_and_is_half_precision(entry, tmp_path):
    path = MINI_FOLDER / entry.files[0]
    assert sha256(path) == entry.sha256
    assert abs(path.stat().st_size / 1e6 - entry.size_mb) <= 0.6
    assert all(v.dtype == torch.float16 and v.isfinite().all() for v in load_file(path).values())
    status = weight_status(entry.name, tmp_path)
    assert status.state == PRESENT
    assert status.verified


def test_crane_weights_knows_what_backbone_and_guide_mini_need():
    from omegaconf import OmegaConf

    config = compose("train", ["backbone=mini", "method=crane_plus", "guide=mini"])
    needed = weights_needed(OmegaConf.to_container(config, resolve=True))
    assert needed == [entry.name for entry in EMBEDDED]


def test_the_small_clip_is_deep_and_fine_enough_for_e_attn():
    config = json.loads((MINI_FOLDER / f"{MINI_CLIP}.json").read_text())
    vision = config["vision_cfg"]
    assert vision["layers"] >= 8
    assert vision["image_size"] // vision["patch_size"] >= 14
    model = build_model(compose("train", ["backbone=mini"]))
    assert len(model.vision.tower.blocks) == vision["layers"]
    assert math.prod(model.vision.tower.position_grid) >= 14 * 14


def test_the_small_guide_groups_patches_by_part():
    drawings = {"image_size": 224, "scenes": 24, "seed": 1_000_000_000}
    shipped = evaluate_guide(*small_guide("crane-mini-guide/embedded"), **drawings)
    untrained = evaluate_guide(*small_guide("random"), **drawings)
    assert shipped["part_auroc"] > max(0.9, untrained["part_auroc"])
    assert shipped["own_part"] > untrained["own_part"]
    assert shipped["kept"] > 0.1, "D-Attn correlates patches with others"


def test_figures_of_drawings_and_features(tmp_path):
    options = {"visible": 0.12, "tinted": 0.4, "natural": 0.4}
    drawings(tmp_path / "drawings.jpg", 56, options, seed=3)
    guide_colours(tmp_path / "guide.jpg", small_guide("random")[0])
    for name, size in (("drawings", (12 * 58 + 2, 5 * 58 + 2)), ("guide", (1142, 8 * 114 + 2))):
        with Image.open(tmp_path / f"{name}.jpg") as picture:
            assert picture.size == size
            assert np.asarray(picture).std() > 20
