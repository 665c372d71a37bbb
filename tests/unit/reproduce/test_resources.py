"""What runs need: found, missing, fetched."""

import pytest
from omegaconf import OmegaConf

from crane.config import compose
from crane.errors import UsageError
from crane.files import sha256
from crane.reproduce import resources as module
from crane.reproduce.finished import Finished
from crane.reproduce.plan import Composed, missing
from crane.reproduce.resources import Lack, Resources, checkpoint_lack
from crane.reproduce.runner import Runner
from miniatures import MINIATURES, counts_override


@pytest.fixture
def resources(tmp_path):
    return Resources(str(tmp_path), allow_download=True)


def target(name, *overrides):
    return compose("test", [f"dataset@targets=[{name}]", *overrides]).targets[name]


def test_a_data_set_that_is_not_here_is_known_by_its_card(resources, tmp_path):
    found = resources.data_set("visa", target("visa", f"datasets_dir='{tmp_path}'"), strict=True)
    assert (found.num_images, found.num_classes, found.fingerprint) == (2162, 12, None)
    assert found.lack.kind == "data"
    assert "VisA_20220922.tar" in found.lack.help


def test_a_copy_that_is_not_the_published_one_is_missing_where_that_is_strict(resources, tmp_path):
    MINIATURES["visa"].make(tmp_path / "visa")
    node = target("visa", f"datasets_dir='{tmp_path}'")
    assert "data.strict" in resources.data_set("visa", node, strict=True).lack.help
    loose = resources.data_set("visa", node, strict=False)
    assert (loose.lack, loose.num_images) == (None, 12)
    right = target(
        "visa", f"datasets_dir='{tmp_path}'", counts_override("visa", MINIATURES["visa"])
    )
    whole = resources.data_set("visa", right, strict=True)
    assert whole.lack is None
    assert whole.fingerprint == loose.fingerprint


def test_missing_weights_are_fetched_once_and_a_failure_is_told(resources, tmp_path, monkeypatch):
    config = compose("test", ["backbone=clip_vit_b16", f"weights_dir='{tmp_path}'"])
    (lack,) = resources.lacking_weights(config)
    assert (lack.name, lack.can_be_fetched) == ("ViT-B-16/openai", True)
    assert missing([lack]) is None
    calls = []

    def fail(config):
        calls.append(config)
        raise UsageError("a network", "none")

    monkeypatch.setattr(module, "build_model", fail)
    assert resources.fetch(config) == "expected a network, but got 'none'"
    assert resources.fetch(config) == "expected a network, but got 'none'"
    assert len(calls) == 1


def test_code_that_is_not_here_goes_where_it_is_looked_for(resources, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    config = compose("test", ["method=crane_plus", f"weights_dir='{tmp_path}'"])
    helps = {lack.name: lack.help for lack in resources.lacking_weights(config)}
    (code,) = (name for name in helps if ":" in name)
    commit = code.partition(":")[2]
    assert f"https://github.com/facebookresearch/dinov2/archive/{commit}.zip" in helps[code]
    assert f"{tmp_path}/torch/hub/facebookresearch_dinov2_{commit}" in helps[code]


def test_a_failure_without_a_word_is_told_by_its_kind(resources, tmp_path, monkeypatch):
    def fail(config):
        raise RuntimeError

    monkeypatch.setattr(module, "build_model", fail)
    config = compose("test", ["backbone=clip_vit_b16", f"weights_dir='{tmp_path}'"])
    assert resources.fetch(config) == "RuntimeError"


def test_weights_that_come_during_a_run_count_from_then_on(resources, tmp_path):
    """Otherwise every run after the download would be repeated."""
    config = compose("test", ["backbone=clip_vit_b16", f"weights_dir='{tmp_path}'"])
    composed = Composed(config, "setting", tuple(resources.lacking_weights(config)))
    runner = Runner.__new__(Runner)
    runner.resources, runner._hashes = resources, {}
    assert runner._weights(composed) == {}
    file = tmp_path / "ViT-B-16.pt"
    file.write_bytes(b"numbers")
    assert runner._weights(composed) == {"ViT-B-16/openai": sha256(file)}


def test_the_model_of_random_weights_needs_nothing(resources):
    config = compose("test", ["backbone=tiny"])
    assert resources.lacking_weights(config) == []
    assert resources.weights(config) == {}
    assert resources.fetch(config) is None


def test_a_checkpoint_that_is_not_here(tmp_path):
    path = tmp_path / "trained_on_mvtec_crane" / "epoch_5.pth"
    assert checkpoint_lack(path).name == "trained_on_mvtec_crane/epoch_5.pth"
    path.parent.mkdir()
    path.touch()
    assert checkpoint_lack(path) is None


def test_what_can_be_fetched_is_not_missing_alone_but_told_with_the_rest():
    clip = Lack("weights", "clip", "", can_be_fetched=True)
    assert missing([]) is None
    assert (
        missing([clip, Lack("data", "a", ""), Lack("data", "b", "")]) == "weights clip, data a + b"
    )


def test_finished_runs_are_of_these_very_files(tmp_path):
    from crane.runs import StoredRun, store_run

    def run(**changes):
        facts = {"data": {"source.a": "1"}, "weights": {"clip": "2", "prompts": "3"}, **changes}
        return StoredRun("setting", "test", "finished", "here", 111, (), (), {}, **facts)

    store_run(tmp_path, run())
    found = Finished(tmp_path)
    assert found.find("setting", 111, {"source.a": "1"}, {"clip": "2"}).folder == "here"
    for other in (
        ("other", 111, {"source.a": "1"}, {"clip": "2"}),
        ("setting", 1, {"source.a": "1"}, {"clip": "2"}),
        ("setting", 111, {"source.a": "9"}, {"clip": "2"}),
        ("setting", 111, {"source.a": "1"}, {"clip": "9"}),
    ):
        assert found.find(*other) is None
    found.add(run(data={"source.a": "9"}))
    assert found.find("setting", 111, {"source.a": "9"}, {"clip": "2"})
    assert Finished(tmp_path / "none").find(*other) is None


def test_what_is_no_mistake_of_a_user_is_raised(resources):
    broken = OmegaConf.create({"_target_": "crane.data.index_nothing"})
    with pytest.raises(Exception, match="index_nothing"):
        resources.data_set("x", broken, strict=True)
