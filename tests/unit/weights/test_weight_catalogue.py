import re
from pathlib import Path, PurePosixPath

import pytest
import timm
import yaml
from open_clip import pretrained

from crane.weights import CATALOGUE, RANDOM, describe, weights_needed

CONF = Path(__file__).parents[3] / "conf"
OPTIONS = [*(CONF / "backbone").glob("*.yaml"), *(CONF / "guide").glob("*.yaml")]
CLIPS = [entry for entry in CATALOGUE.values() if "ViT-" in entry.name]


@pytest.mark.parametrize("entry", CLIPS, ids=lambda entry: entry.name)
def test_open_clip_entries_are_those_of_open_clips_registry(entry):
    cfg = pretrained.get_pretrained_cfg(*entry.name.split("/"))
    assert (entry.url or "") == cfg["url"]
    if entry.hub_repo is None:  # open_clip names one repository for both epochs of LAION-400M
        assert "laion400m_e3" in entry.name
    else:
        assert f"{entry.hub_repo}/" == cfg["hf_hub"]


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name.startswith("timm/")])
def test_timm_entries_are_those_of_timms_registry(name):
    cfg = timm.get_pretrained_cfg(name.removeprefix("timm/"))
    assert cfg.hf_hub_id == name
    assert cfg.tag == name.rpartition(".")[2]


def test_stated_checksums_are_the_ones_in_openais_addresses():
    stated = {entry.name: entry for entry in CATALOGUE.values() if entry.url and entry.sha256}
    assert set(stated) == {"ViT-L-14-336/openai", "ViT-L-14/openai", "ViT-B-16/openai"}
    for entry in stated.values():
        assert re.fullmatch("[0-9a-f]{64}", entry.sha256)
        assert PurePosixPath(entry.url).parts[-2] == entry.sha256


@pytest.mark.parametrize("option", OPTIONS, ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_names_catalogued_weights_that_name_it_back(option):
    config = yaml.safe_load(option.read_text())
    files = [name for name in weights_needed(config) if ":" not in name]
    section = config.get("model") or config.get("features")
    assert len(files) == (section is not None and section["weights"] != RANDOM)
    for name in files:
        assert CATALOGUE[name].options == (f"{option.parent.name}={option.stem}",)


def test_open_clip_tags_outside_the_catalogue_are_described_from_its_registry():
    by_url = describe("RN50/openai")
    assert by_url.url.endswith(f"{by_url.sha256}/RN50.pt")
    assert by_url.files[0] == "RN50.pt"
    named_file = describe("ViTamin-S/datacomp1b")
    assert named_file.hub_repo == "jienengchen/ViTamin-S"
    assert named_file.files == ("ViTamin-S/pytorch_model.bin",)
    assert describe("timm/vit_small_patch16_224.dino").hub_repo == "timm/vit_small_patch16_224.dino"


@pytest.mark.parametrize("name", ["ViT-B-16/nothing", "a/b.pt", "/abs/timm/x", "w.pt", "timm/", ""])
def test_what_is_not_a_published_name_is_none(name):
    assert describe(name) is None
