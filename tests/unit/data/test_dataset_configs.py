from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import MissingMandatoryValue, OmegaConf

from crane.errors import UsageError

CONF = Path(__file__).parents[3] / "conf"
RAW = ("btad", "dtd", "mpdd", "mvtec", "visa")
DEFAULTS = """
hydra: {{searchpath: ["file://{conf}"]}}
seed: 111
image_size: 8
datasets_dir: {datasets}
source: {{}}
targets: {{}}
defaults:
  - _self_
  - data: default
  - dataset@source: [mvtec]
  - dataset@targets: [visa]
"""


@pytest.fixture
def config(tmp_path):
    """Composes the data groups on their own, with overrides as on the command line."""
    text = DEFAULTS.format(conf=CONF, datasets=tmp_path / "sets")
    (tmp_path / "config.yaml").write_text(text)

    def composed(*overrides):
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            return compose("config", ["data.strict=false", *overrides])

    return composed


@pytest.fixture
def sets(tmp_path, write):
    """A miniature of each raw data set."""
    for name in RAW:
        write.classed(tmp_path / "sets" / name / f"{name}_thing")
    return tmp_path / "sets"


def test_every_data_set_composes_and_builds(config, sets):
    names = ",".join(RAW)
    data = instantiate(config("dataset@source=[visa,mpdd]", f"dataset@targets=[{names}]").data)
    assert tuple(data.source) == ("visa", "mpdd")
    assert data.target_names == RAW
    assert data.source_class_names == ("visa/visa_thing", "mpdd/mpdd_thing")
    assert all(index.num_anomalous == 4 for index in data.targets.values())
    assert data.num_train == 16


def test_lists_keep_their_order(config, sets):
    composed = config("dataset@targets=[visa,btad,mvtec]")
    assert list(composed.targets) == ["visa", "btad", "mvtec"]
    assert instantiate(composed.data).target_names == ("visa", "btad", "mvtec")


def test_one_name_and_none(config, sets):
    data = instantiate(config("dataset@source=[]", "dataset@targets=dtd").data)
    assert data.source == {}
    assert data.target_names == ("dtd",)


def test_a_folder_of_ones_own(config, sets, tmp_path, write):
    write.image(tmp_path / "own" / "good" / "1.png")
    write.image(tmp_path / "own" / "bad" / "2.png")
    composed = config("dataset@targets=[folder]", f"targets.folder.root={tmp_path / 'own'}")
    assert instantiate(composed.data).targets["folder"].num_anomalous == 1


def test_a_meta_json_of_ones_own(config, sets, tmp_path, write):
    write.image(tmp_path / "own" / "1.png")
    write.meta(tmp_path / "own", {"thing": [("1.png", "", 0)]})
    composed = config("dataset@targets=meta_json", f"targets.meta_json.root={tmp_path / 'own'}")
    assert instantiate(composed.data).targets["meta_json"].num_normal == 1


@pytest.mark.parametrize("name", ["folder", "meta_json"])
def test_a_root_must_be_given(config, sets, name):
    with pytest.raises(MissingMandatoryValue, match="root"):
        OmegaConf.to_container(
            config(f"dataset@targets={name}").targets, resolve=True, throw_on_missing=True
        )


def test_classes_and_split_are_keys(config, sets):
    composed = config("source.mvtec.split=train", "source.mvtec.classes=[mvtec_thing]")
    data = instantiate(composed.data)
    assert data.source["mvtec"].num_anomalous == 0
    with pytest.raises(Exception, match="mvtec_thing") as caught:
        instantiate(config("source.mvtec.classes=[bottle]").data)
    assert isinstance(caught.value.__cause__, UsageError)


def test_published_defaults(config):
    data = config().data
    published = {
        "batch_size": 8,
        "validation_fraction": 0.0,
        "k_shot": 0,
        "portion": 1.0,
        "mosaic_rate": 0.0,
        "drop_last": False,
        "seed": 111,
    }
    assert {key: data[key] for key in published} == published
    assert {config().source.mvtec.split, config().targets.visa.split} == {"test"}


def test_another_data_set_under_a_published_name_is_refused_unless_allowed(config, sets, caplog):
    with pytest.raises(Exception, match="mvtec with the images behind") as caught:
        instantiate(config("data.strict=true").data)
    assert isinstance(caught.value.__cause__, UsageError)
    assert "change data.strict" in str(caught.value)
    assert "0 normal and 0 anomalous images, not 20 and 63" in str(caught.value)
    instantiate(config().data)
    assert "mvtec is not the published data set: mvtec_thing is no class of it" in caplog.text


@pytest.mark.parametrize("name", RAW)
def test_missing_data_say_what_to_fetch(config, name):
    with pytest.raises(Exception, match=rf"datasets_dir.*targets\.{name}\.root.*to get the data"):
        instantiate(config(f"dataset@targets=[{name}]").targets)
