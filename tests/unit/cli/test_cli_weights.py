import hashlib
from dataclasses import replace

import pytest
import torch
from omegaconf import OmegaConf

from crane.cli.validation import options
from crane.config import compose, conf_dir, plain
from crane.named_prompts import published_files
from crane.weights import CATALOGUE, is_hub_code, weights_needed


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
        "not published",  # Meta publishes no sha256
        "https://github.com/facebookresearch/dinov2/archive/b8931f7bf91576930313be2c6d6af376033b35f0",
        f"put it in  {torch.hub.get_dir()}, with the unpacked folder renamed to facebookresearch_",
        "or         guide.features.source=local guide.features.repo_dir=UNPACKED_FOLDER",
        f"put it in  {tmp_path}",
    ):
        assert wanted in outcome.out
    assert "3 of 3 weight files are missing or damaged: ViT-L-14-336/openai, " in outcome.err
    assert not list(tmp_path.glob("*.pt"))


def test_a_random_configuration_needs_none(crane):
    outcome = crane("weights", "backbone=tiny", "guide=tiny")
    assert (outcome.code, outcome.err) == (0, "")
    assert "all its weights are random" in outcome.out


@pytest.mark.parametrize("method", options(conf_dir() / "method"))
def test_every_method_names_its_files_and_its_authors_checkpoints(crane, tmp_path, method):
    """Of each file and checkpoint where it is; a method without any says that none is needed."""
    config = compose("test", [f"method={method}"])
    outcome = crane("weights", f"method={method}", f"weights_dir={tmp_path}")
    said = " ".join(outcome.out.split())
    needed = weights_needed(plain(config))
    assert needed, "no published method runs on random weights"
    for name in needed:
        assert f"{name}: " in said
        assert is_hub_code(name) or CATALOGUE[name].source in said
    is_trained = OmegaConf.is_missing(config, "checkpoint")
    assert ("checkpoint: none is needed" in said) != is_trained
    assert ("checkpoint: github.com/" in said) == is_trained


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
        assert "wrong checksum; delete this file" in outcome.out
        assert "1 of 1 weight files are missing or damaged" in outcome.err


def test_weights_of_unknown_size_are_said_to_be(crane, tmp_path):
    """Any model of timm can be a guide; its size stands nowhere."""
    typed = [
        "guide=dinov2_vitb14_reg_timm",
        "guide.features.weights=timm/vit_small_patch16_224.dino",
    ]
    outcome = crane("weights", *typed, "backbone=tiny", f"weights_dir={tmp_path}")
    assert outcome.code == 2
    assert "size       not known" in outcome.out
    assert "None" not in outcome.out


def test_published_prompts_are_listed_by_name(crane, tmp_path):
    listed = crane("weights", "method=crane_plus", f"weights_dir={tmp_path}").out
    for name in ("crane_plus_mvtec", "crane_plus_visa"):
        assert f"{name}: missing" in listed
        assert published_files()[f"{name}@5"].sha256 in listed
    assert "\ncrane_mvtec" not in listed
    assert "crane_" not in crane("weights", "method=winclip", f"weights_dir={tmp_path}").out
