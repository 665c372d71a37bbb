import hashlib
from dataclasses import replace

import pytest
import torch

from crane.weights import CATALOGUE


def test_missing_files_are_listed_with_source_and_checksum(crane, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    outcome = crane("weights", "method=crane_plus", f"weights_dir={tmp_path}")
    assert outcome.code == 2
    clip = CATALOGUE["ViT-L-14-336/openai"]
    for wanted in (
        "ViT-L-14-336/openai: missing",
        clip.source,
        clip.sha256,
        clip.files[0],
        "dinov2_vitb14_reg4_pretrain.pth: missing",
        "not known",  # Meta publishes no sha256
        "https://github.com/facebookresearch/dinov2/archive/b8931f7bf91576930313be2c6d6af376033b35f0",
        f"put it in  {torch.hub.get_dir()}, the unpacked folder renamed to facebookresearch_",
        "or         guide.features.source=local guide.features.repo_dir=FOLDER",
        f"put it in  {tmp_path}",
    ):
        assert wanted in outcome.out
    assert "3 of 3 not" in outcome.err
    assert "change weights_dir" in outcome.err
    assert not list(tmp_path.glob("*.pt"))


def test_a_random_configuration_needs_none(crane):
    outcome = crane("weights", "backbone=tiny", "guide=tiny")
    assert (outcome.code, outcome.err) == (0, "")
    assert "everything is random" in outcome.out


@pytest.mark.parametrize("is_whole", [True, False])
def test_present_files_are_verified(crane, tmp_path, monkeypatch, is_whole):
    content = b"stands for 0.35 GB"
    entry = replace(CATALOGUE["ViT-B-16/openai"], sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(CATALOGUE, entry.name, entry)
    (tmp_path / "ViT-B-16.pt").write_bytes(content if is_whole else content[:-1])
    outcome = crane("weights", "backbone=clip_vit_b16", f"weights_dir={tmp_path}")
    if is_whole:
        assert (outcome.code, outcome.err) == (0, "")
        assert "ViT-B-16/openai: present, sha256 verified" in outcome.out
        assert str(tmp_path / "ViT-B-16.pt") in outcome.out
    else:
        assert outcome.code == 2
        assert "wrong checksum, sha256 compared: delete this file" in outcome.out
        assert "delete those of a wrong checksum, which are not used" in outcome.err
