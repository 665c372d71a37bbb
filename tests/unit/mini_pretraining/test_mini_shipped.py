import json
import math

import pytest
import torch
from safetensors.torch import load_file

from crane.config import compose
from crane.models import build_model
from crane.weights import CATALOGUE, PRESENT, sha256, weight_status, weights_needed
from crane.weights.embedded import MINI_CLIP, MINI_FOLDER

EMBEDDED = [entry for entry in CATALOGUE.values() if entry.embedded]


def test_what_is_shipped_is_at_most_12_mb_and_has_a_card():
    files = list(MINI_FOLDER.glob("*.safetensors"))
    assert {path.name for path in files} == {file for e in EMBEDDED for file in e.files}
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    card = (MINI_FOLDER / "card.md").read_text()
    for path in files:
        assert path.name in card
    for word in ("Data", "Steps", "Seed", "Hardware", "Time", "retrieval", "Licence", "MIT"):
        assert word in card


@pytest.mark.parametrize("entry", EMBEDDED, ids=lambda entry: entry.name)
def test_each_file_is_the_catalogues_in_half_precision(entry, tmp_path):
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


def test_the_small_clip_has_the_geometry_that_e_attn_needs():
    config = json.loads((MINI_FOLDER / f"{MINI_CLIP}.json").read_text())
    vision = config["vision_cfg"]
    assert vision["layers"] >= 8
    assert vision["image_size"] // vision["patch_size"] >= 14
    model = build_model(compose("train", ["backbone=mini"]))
    assert len(model.vision.tower.blocks) == vision["layers"]
    assert math.prod(model.vision.tower.position_grid) >= 14 * 14
