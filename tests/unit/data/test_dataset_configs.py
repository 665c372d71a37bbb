from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from crane.config import conf_dir
from crane.data import CraneDataModule
from crane.errors import UsageError
from crane.gate import build

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
    text = DEFAULTS.format(conf=conf_dir(), datasets=tmp_path / "sets")
    (tmp_path / "config.yaml").write_text(text)

    def composed(*overrides):
        with initialize_config_dir(str(tmp_path), version_base="1.3"):
            return compose("config", ["data.strict=false", *overrides])

    return composed


@pytest.fixture
def built(config):
    def data(*overrides) -> CraneDataModule:
        return build(config(*overrides).data, "data")

    return data


@pytest.fixture
def sets(tmp_path, write):
    """A miniature of each raw data set."""
    for name in RAW:
        write.classed(tmp_path / "sets" / name / f"{name}_thing")
    return tmp_path / "sets"


def test_every_data_set_composes_and_builds(built, sets):
    data = built("dataset@source=[visa,mpdd]", f"dataset@targets=[{','.join(RAW)}]")
    assert tuple(data.source) == ("visa", "mpdd")
    assert tuple(data.targets) == RAW
    assert data.source_class_names == ("visa/visa_thing", "mpdd/mpdd_thing")
    assert all(index.num_anomalous == 4 for index in data.targets.values())
    assert data.num_train == 16


def test_lists_keep_their_order(built, config, sets):
    override = "dataset@targets=[visa,btad,mvtec]"
    assert list(config(override).targets) == ["visa", "btad", "mvtec"]
    assert tuple(built(override).targets) == ("visa", "btad", "mvtec")


def test_one_name_and_none(built, sets):
    data = built("dataset@source=[]", "dataset@targets=dtd")
    assert data.source == {}
    assert tuple(data.targets) == ("dtd",)


def test_a_folder_of_ones_own(built, sets, tmp_path, write):
    write.image(tmp_path / "own" / "good" / "1.png")
    write.image(tmp_path / "own" / "bad" / "2.png")
    data = built("dataset@targets=[folder]", f"targets.folder.root={tmp_path / 'own'}")
    assert data.targets["folder"].num_anomalous == 1


def test_a_meta_json_of_ones_own(built, sets, tmp_path, write):
    write.image(tmp_path / "own" / "1.png")
    write.meta(tmp_path / "own", {"thing": [("1.png", "", 0)]})
    data = built("dataset@targets=meta_json", f"targets.meta_json.root={tmp_path / 'own'}")
    assert data.targets["meta_json"].num_normal == 1


@pytest.mark.parametrize("name", ["folder", "meta_json"])
def test_a_root_must_be_given(built, sets, name):
    with pytest.raises(UsageError, match=rf"targets\.{name}\.root"):
        built(f"dataset@targets={name}")


def test_classes_and_split_are_keys(built, sets):
    data = built("source.mvtec.split=train", "source.mvtec.classes=[mvtec_thing]")
    assert data.source["mvtec"].num_anomalous == 0
    with pytest.raises(UsageError, match="no class bottle; choose from mvtec_thing"):
        built("source.mvtec.classes=[bottle]")


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


def test_another_data_set_under_a_published_name_is_refused_unless_allowed(built, sets, caplog):
    with pytest.raises(UsageError, match="mvtec is not the data set behind") as caught:
        built("data.strict=true")
    assert "data.strict=false" in str(caught.value)
    assert "0 normal and 0 anomalous images, not 20 and 63" in str(caught.value)
    built()
    text = "mvtec is not the published data set: mvtec_thing is not one of its classes"
    assert text in caplog.text


@pytest.mark.parametrize("name", RAW)
def test_missing_data_say_what_to_fetch(built, config, name):
    with pytest.raises(UsageError, match=rf"datasets_dir.*targets\.{name}\.root") as caught:
        built(f"dataset@targets=[{name}]", "dataset@source=[]")
    assert config(f"dataset@targets=[{name}]").targets[name].fetch in str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.batch_size=true", "data.batch_size must be an integer of at least 1, not true"),
        ("data.batch_size=1.5", "data.batch_size must be an integer of at least 1, not 1.5"),
        ("data.seed=null", "data.seed must be an integer from 0 to 4294967295, not null"),
        ("data.k_shot=3", "data.k_shot must be an integer of at least 0 divisible by 2, not 3"),
        ("data.portion=nan", "data.portion must be a number above 0 and of at most 1, not nan"),
        ("data.num_workers=many", "data.num_workers must be an integer of at least 0 or auto"),
        (
            "targets.visa.mask_threshold=-1",
            "^targets.visa.mask_threshold must be .* 0 to 254, not -1",
        ),
        (
            "targets.visa.mask_threshold=255",
            "^targets.visa.mask_threshold must be .* 0 to 254, not 255",
        ),
        ("targets.visa.mask_threshold=nan", "mask_threshold must be an integer from 0 to 254"),
        ("targets.visa.classes=[[a]]", "visa.classes must be"),
        ("targets.visa.card.domain=fun", "card.domain must be industrial or medical, not 'fun'"),
        (
            "targets.visa.card.counts.0.evidence=x",
            r"^targets.visa.card.counts.0.evidence must be counted",
        ),
        (
            "+targets.visa.card.counts.0.totl=1",
            r"^targets.visa.card.counts.0: .* 'totl'",
        ),
        ("+targets.visa.card.titel=x", r"unknown key .*targets.visa.card.titel"),
    ],
)
def test_values_that_do_not_fit_name_their_key(built, sets, override, message):
    with pytest.raises(UsageError, match=message):
        built(override)


@pytest.mark.parametrize("name", ["folder", "meta_json", "embedded_boards"])
@pytest.mark.parametrize("value", ["-1", "255", "nan", "0.5", "true"])
def test_every_reader_checks_its_mask_threshold(built, sets, tmp_path, name, value):
    typed = [f"targets.{name}.root={tmp_path}", f"targets.{name}.mask_threshold={value}"]
    with pytest.raises(UsageError, match=rf"targets.{name}.mask_threshold must be an integer"):
        built(f"dataset@targets=[{name}]", *typed)


SIX_LINES = """\
defaults:
  - /base/dataset@bolts
  - _self_
bolts:
  name: bolts
  fetch: copy the folder bolts from the shared disk
"""


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"card": None},
        {"fetch": None},
        {"card": {"_target_": "crane.datasets.Card", "title": "Bolts", "domain": "industrial",
                  "class_names": ["bolt"]}},
    ],
)  # fmt: skip
def test_a_data_set_of_ones_own_is_six_lines(built, sets, tmp_path, write, changes):
    (tmp_path / "dataset").mkdir()
    node = OmegaConf.create(SIX_LINES)
    node.bolts.update(changes)
    (tmp_path / "dataset" / "bolts.yaml").write_text(OmegaConf.to_yaml(node))
    with pytest.raises(UsageError, match=r"bolts does not exist; .*change datasets_dir"):
        built("dataset@targets=[bolts]")
    write.classed(tmp_path / "sets" / "Bolts")
    assert built("dataset@targets=[bolts]").targets["bolts"].num_anomalous == 4


def test_a_card_without_a_title_is_refused_with_its_key(built, sets):
    with pytest.raises(UsageError, match=r"targets\.visa\.card\.title is required"):
        built("~targets.visa.card.title")


def test_the_folder_of_configurations_is_the_tests_own():
    assert conf_dir() == Path(__file__).parents[3] / "conf"
