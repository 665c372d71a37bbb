"""What runs need: found, missing, fetched."""

import pytest
from omegaconf import OmegaConf

from crane.config import compose, plain
from crane.errors import UsageError
from crane.files import sha256
from crane.reproduce import resources as module
from crane.reproduce.plan import Planner, Setting
from crane.reproduce.resources import Missing, Resources, missing_checkpoint, why_missing
from crane.reproduce.runner import Runner
from crane.runs import StoredRun, store_run
from crane.weights import weights_needed
from miniatures import MINIATURES, counts_override

CLIP = ("ViT-B-16/openai",)


@pytest.fixture
def resources(tmp_path):
    return Resources(str(tmp_path), allow_download=True)


def target(name, *overrides):
    return compose("test", [f"dataset@targets=[{name}]", *overrides]).targets[name]


def test_a_data_set_that_is_not_here_is_known_by_its_card(resources, tmp_path):
    found = resources.data_set("visa", target("visa", f"datasets_dir='{tmp_path}'"), strict=True)
    assert (found.num_images, found.num_classes, found.fingerprint) == (2162, 12, None)
    assert found.missing.kind == "data"
    assert "VisA_20220922.tar" in found.missing.help


def test_a_copy_that_is_not_the_published_one_is_missing_where_that_is_strict(resources, tmp_path):
    MINIATURES["visa"].make(tmp_path / "visa")
    node = target("visa", f"datasets_dir='{tmp_path}'")
    assert "data.strict" in resources.data_set("visa", node, strict=True).missing.help
    loose = resources.data_set("visa", node, strict=False)
    assert (loose.missing, loose.num_images) == (None, 12)
    right = target(
        "visa", f"datasets_dir='{tmp_path}'", counts_override("visa", MINIATURES["visa"])
    )
    whole = resources.data_set("visa", right, strict=True)
    assert whole.missing is None
    assert whole.fingerprint == loose.fingerprint


def test_missing_weights_are_fetched_once_and_a_failure_is_told(resources, tmp_path, monkeypatch):
    config = compose("test", ["backbone=clip_vit_b16", f"weights_dir='{tmp_path}'"])
    (lack,) = resources.missing_weights(CLIP)
    assert (lack.name, lack.downloadable) == ("ViT-B-16/openai", True)
    assert why_missing([lack]) is None
    calls = []

    def fail(config):
        calls.append(config)
        raise UsageError("there is no network")

    monkeypatch.setattr(module, "build_model", fail)
    assert resources.download(config, CLIP) == "there is no network"
    assert resources.download(config, CLIP) == "there is no network"
    assert len(calls) == 1


def test_code_that_is_not_here_goes_where_it_is_looked_for(resources, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    config = compose("test", ["method=crane_plus", f"weights_dir='{tmp_path}'"])
    needed = weights_needed(plain(config))
    helps = {one.name: one.help for one in resources.missing_weights(needed)}
    (code,) = (name for name in helps if ":" in name)
    commit = code.partition(":")[2]
    assert f"https://github.com/facebookresearch/dinov2/archive/{commit}.zip" in helps[code]
    assert f"{tmp_path}/torch/hub/facebookresearch_dinov2_{commit}" in helps[code]


def test_a_failure_without_a_word_is_told_by_its_kind(resources, tmp_path, monkeypatch):
    def fail(config):
        raise RuntimeError

    monkeypatch.setattr(module, "build_model", fail)
    config = compose("test", ["backbone=clip_vit_b16", f"weights_dir='{tmp_path}'"])
    assert resources.download(config, CLIP) == "RuntimeError"


def test_weights_that_come_during_a_run_count_from_then_on(resources, tmp_path):
    """Otherwise every run after the download would be repeated."""
    assert resources.hashes(CLIP) == {}
    file = tmp_path / "ViT-B-16.pt"
    file.write_bytes(b"numbers")
    assert resources.hashes(CLIP) == {"ViT-B-16/openai": sha256(file)}


def test_the_model_of_random_weights_needs_nothing(resources):
    config = compose("test", ["backbone=tiny"])
    needed = weights_needed(plain(config))
    assert resources.missing_weights(needed) == []
    assert resources.hashes(needed) == {}
    assert resources.download(config, needed) is None


def test_a_checkpoint_that_is_not_here(tmp_path):
    path = tmp_path / "trained_on_mvtec_crane" / "epoch_5.pth"
    assert missing_checkpoint(path).name == "trained_on_mvtec_crane/epoch_5.pth"
    path.parent.mkdir()
    path.touch()
    assert missing_checkpoint(path) is None


def test_what_can_be_downloaded_is_not_missing_alone_but_named_with_the_rest():
    clip = Missing("weights", "clip", "", downloadable=True)
    data = [Missing("data", name, "") for name in ("a", "b")]
    assert why_missing([]) is None
    assert why_missing([clip, *data]) == "weights clip, data a + b"


def test_finished_runs_are_of_these_very_files(tmp_path, monkeypatch):
    def run(**changes):
        facts = {"data": {"source.a": "1"}, "weights": {"clip": "2", "prompts": "3"}, **changes}
        return StoredRun("setting", "test", "finished", "here", 111, (), (), {}, **facts)

    planner = Planner({"weights_dir": "", "allow_download": False}, tmp_path)
    here = {"clip": "2"}
    monkeypatch.setattr(planner.resources, "hashes", lambda names: here)
    setting = Setting(OmegaConf.create(), "setting", ("clip",), ())
    store_run(tmp_path, run())
    runner = Runner(planner, tmp_path / "runs", tmp_path, print)
    assert runner._find("setting", 111, {"source.a": "1"}, setting).folder == "here"
    for other in (("other", 111, {"source.a": "1"}), ("setting", 1, {"source.a": "1"})):
        assert runner._find(*other, setting) is None
    assert runner._find("setting", 111, {"source.a": "9"}, setting) is None
    here["clip"] = "9"
    assert runner._find("setting", 111, {"source.a": "1"}, setting) is None
    here["clip"] = "2"
    store_run(tmp_path, run(data={"source.a": "9"}))
    runner = Runner(planner, tmp_path / "runs", tmp_path, print)
    assert runner._find("setting", 111, {"source.a": "9"}, setting)
    empty = Runner(planner, tmp_path / "runs", tmp_path / "none", print)
    assert empty._find("setting", 111, {"source.a": "9"}, setting) is None


def test_a_wrong_configuration_is_no_missing_data_set(resources):
    broken = OmegaConf.create({"_target_": "crane.data.index_nothing"})
    with pytest.raises(UsageError, match=r"targets\.x\._target_: .*index_nothing"):
        resources.data_set("x", broken, strict=True)
