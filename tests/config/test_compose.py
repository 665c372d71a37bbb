import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from crane.config import compose, plain


def test_run_dir_is_here_unless_given():
    assert compose("train").run_dir == "."
    assert compose("train", ["run_dir=/there"]).run_dir == "/there"


def test_environment_names_the_folders(monkeypatch):
    monkeypatch.setenv("CRANE_DATASETS", "/d")
    monkeypatch.setenv("CRANE_WEIGHTS", "/w")
    config = compose("train", ["backbone=tiny", "dataset@source=visa"])
    assert config.source.visa.datasets_dir == "/d"
    assert config.backbone.model.weights_dir == "/w"


def test_someone_elses_hydra_program_is_left_as_it_was(tmp_path):
    (tmp_path / "train.yaml").write_text("theirs: 1\n")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert "theirs" not in compose("train")
        assert hydra_compose("train") == {"theirs": 1}
    assert not GlobalHydra.instance().is_initialized()


def test_a_failed_composition_leaves_hydra_as_it_was():
    with pytest.raises(Exception, match="qqq"):
        compose("train", ["attention=qqq"])
    assert not GlobalHydra.instance().is_initialized()
    assert compose("train").seed == 111


def test_plain():
    config = OmegaConf.create({"a": "${b}", "b": [1, {"c": None}]})
    assert plain(config) == {"a": [1, {"c": None}], "b": [1, {"c": None}]}
    assert plain(config, resolve=False)["a"] == "${b}"
    assert type(plain(config)["b"]) is list
