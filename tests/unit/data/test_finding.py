import json
import logging
import shutil
from functools import partial
from pathlib import Path

import pytest

from crane import datasets
from crane.config import compose, plain
from crane.datasets import candidate_folders
from crane.errors import UsageError
from crane.gate import build
from miniatures import MINIATURES, VARIANTS, image, mask, mvtec_like, polyps

ALL = {**MINIATURES, **VARIANTS}
PACKAGED = {"textile": ("conformal_clip_data", (1000, 1000)), "elpv": ("elpv_dataset", (1508, 715))}


@pytest.fixture(scope="module")
def readers():
    targets = compose(
        "data", ["action=list", f"dataset@targets=[{','.join([*ALL, *PACKAGED])}]"]
    ).targets
    return {
        str(name): build({**node, "_partial_": True}, f"targets.{name}")
        for name, node in plain(targets).items()
    }


def adaclip(name: str):
    """MVTec AD's layout with one class."""
    return partial(mvtec_like, classes=(name,))


def authors_isic(root: Path) -> None:
    for i in range(2):
        image(root / "skin" / "test" / "lesion" / f"ISIC_{i}.jpg")
        mask(root / "skin" / "ground_truth" / f"ISIC_{i}_Segmentation.png")


def yes_no(root: Path) -> None:
    image(root / "yes" / "1.jpg")
    image(root / "no" / "2.jpg")


@pytest.mark.parametrize(
    ("name", "folder", "make", "where", "classes"),
    [
        # official
        ("mvtec", "mvtec", MINIATURES["mvtec"].make, "", ("bottle", "metal_nut")),
        ("visa", "VisA_20220922", MINIATURES["visa"].make, "", ("candle", "pcb1")),
        ("ksdd", "KolektorSDD", MINIATURES["ksdd"].make, "", ("electrical commutators",)),
        ("dagm", "DAGM2007", MINIATURES["dagm"].make, "", ("Class1", "Class10")),
        ("tn3k", "Thyroid Dataset", MINIATURES["tn3k"].make, "tn3k", ("thyroid",)),
        ("cvc_colondb", "TestDataset/CVC-ColonDB", polyps, "", ("colon",)),
        ("visa", "VisA_pytorch/1cls", adaclip("candle"), "", ("candle",)),
        # AdaCLIP's
        ("mvtec", "mvtec_anomaly_detection", adaclip("a"), "", ("a",)),
        ("ksdd_thirds", "SDD_anomaly_detection", adaclip("SDD"), "", ("SDD",)),
        ("dagm_balanced", "DAGM_anomaly_detection", adaclip("C"), "", ("C",)),
        ("headct", "HeadCT_anomaly_detection", adaclip("h"), "", ("h",)),
        ("br35h", "Br35h_anomaly_detection", adaclip("b"), "", ("b",)),
        ("isic", "ISIC", adaclip("isic"), "", ("isic",)),
        ("tn3k", "TN3K", adaclip("t"), "", ("t",)),
        ("endo", "EndoTect", adaclip("endo"), "", ("endo",)),
        # the authors'
        ("ksdd_anomalyclip", "sdd", adaclip("SDD"), "", ("SDD",)),
        ("headct", "headct", adaclip("brain"), "", ("brain",)),
        ("brainmri", "brainmri/brain_tumor_dataset", yes_no, "", ("brain",)),
        ("br35h", "br35h/brain", yes_no, "", ("brain",)),
        ("isic", "isic", authors_isic, "", ("skin",)),
    ],
)  # fmt: skip
def test_found_as_it_lies(readers, tmp_path, name, folder, make, where, classes):
    make(tmp_path / folder)
    index = readers[name](datasets_dir=tmp_path)
    assert index.class_names == classes
    assert index.root.is_relative_to(tmp_path / folder / where)
    assert index.num_anomalous > 0
    assert readers[name](root=tmp_path / folder).fingerprint() == index.fingerprint()


def test_a_published_list_comes_first_wherever_its_paths_point(readers, tmp_path):
    yes_no(tmp_path / "br35h")
    entry = {
        "img_path": "/home/somebody/datasets/br35h/yes/1.jpg",
        "mask_path": "",
        "cls_name": "brain",
        "specie_name": "yes",
        "anomaly": 1,
    }
    (tmp_path / "br35h" / "meta.json").write_text(
        json.dumps({"train": {}, "test": {"brain": [entry]}})
    )
    index = readers["br35h"](datasets_dir=tmp_path)
    assert (index.num_normal, index.num_anomalous) == (0, 1)
    assert readers["br35h"](datasets_dir=tmp_path, meta=None).num_normal == 1
    with pytest.raises(UsageError, match="br35h has no split train"):
        readers["br35h"](datasets_dir=tmp_path, split="train")


def test_versions_in_one_folder_have_lists_of_their_own(readers):
    assert readers["ksdd"].keywords["meta"] != readers["ksdd_thirds"].keywords["meta"]
    assert readers["dagm"].keywords["meta"] != readers["dagm_balanced"].keywords["meta"]


def test_another_version_is_not_taken_for_this_one(readers, tmp_path):
    """AnomalyCLIP's images under the name of the raw data set, and the other way round."""
    VARIANTS["ksdd_anomalyclip"].make(tmp_path / "a" / "ksdd")
    with pytest.raises(UsageError, match=r"data set ksdd: .* which is not a known layout of it"):
        readers["ksdd"](datasets_dir=tmp_path / "a")
    MINIATURES["ksdd"].make(tmp_path / "b" / "sdd")
    with pytest.raises(
        UsageError, match=r"data set ksdd_anomalyclip: .*holds kos01.*not a known layout"
    ):
        readers["ksdd_anomalyclip"](datasets_dir=tmp_path / "b")


def test_two_copies_are_told(readers, tmp_path, caplog):
    for folder in ("mvtec", "mvtec_anomaly_detection"):
        mvtec_like(tmp_path / folder, ("bottle",))
    with caplog.at_level(logging.WARNING):
        index = readers["mvtec"](datasets_dir=tmp_path)
    assert index.root == tmp_path / "mvtec"
    assert "other copies: " in caplog.text
    assert "mvtec_anomaly_detection" in caplog.text


def test_names_in_any_case_and_with_either_dash(tmp_path):
    for folder in ("CVC_colonDB", "other"):
        (tmp_path / folder).mkdir()
    assert candidate_folders(tmp_path, ["cvc-colondb"]) == [tmp_path / "CVC_colonDB"]
    assert candidate_folders(tmp_path / "nowhere", ["cvc-colondb"]) == []


@pytest.mark.parametrize("name", PACKAGED)
def test_data_that_come_with_a_python_package(readers, tmp_path, monkeypatch, name):
    package, counts = PACKAGED[name]
    pytest.importorskip(package)
    index = readers[name](datasets_dir=tmp_path)
    assert (index.num_normal, index.num_anomalous) == counts
    assert not index.mismatches
    monkeypatch.setattr(datasets, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match=f"{name}.* does not exist; pip install "):
        readers[name](datasets_dir=tmp_path)


@pytest.mark.parametrize("path", ["../a.png", "/a.png", "images/gone.png"])
def test_a_table_of_solar_cells_names_images_beside_it(readers, tmp_path, path):
    image(tmp_path / "elpv" / "images" / "a.png")
    table = tmp_path / "elpv" / "labels.csv"
    table.write_text("images/a.png  0.0  mono\n")
    assert readers["elpv"](datasets_dir=tmp_path).num_normal == 1
    table.write_text(f"images/a.png  0.0  mono\n{path}  1.0  poly\n")
    with pytest.raises(UsageError, match="labels"):
        readers["elpv"](datasets_dir=tmp_path)


def test_only_folders_around_everything_are_looked_through(readers, tmp_path):
    polyps(tmp_path / "cvc-300" / "a" / "b")
    assert readers["cvc_300"](datasets_dir=tmp_path).num_anomalous == 4
    (tmp_path / "cvc-300" / "other").mkdir()
    with pytest.raises(
        UsageError,
        match=r"cvc-300 holds a, other, which is not a known layout of it; .*change datasets_dir",
    ):
        readers["cvc_300"](datasets_dir=tmp_path)


def test_missing_data_say_where_and_what_to_fetch(readers, tmp_path):
    with pytest.raises(
        UsageError,
        match=r"data set visa: .*visa does not exist; unpack .*spot-diff.*, or change",
    ):
        readers["visa"](datasets_dir=tmp_path)
    with pytest.raises(UsageError, match=r"elsewhere does not exist"):
        readers["visa"](root=tmp_path / "elsewhere")


def test_classes_and_counts_of_a_part(readers, tmp_path):
    MINIATURES["mvtec"].make(tmp_path / "mvtec")
    index = readers["mvtec"](datasets_dir=tmp_path, classes=["bottle"])
    assert index.class_names == ("bottle",)
    assert len(index.mismatches) == 1
    with pytest.raises(UsageError, match="mvtec has no class cable; choose from bottle, metal_nut"):
        readers["mvtec"](datasets_dir=tmp_path, classes=["cable"])


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("visa", "val", "only test, train"),
        ("headct", "train", "only test"),
        ("ksdd", "train", "only test"),
        ("ksdd_thirds", "val", "only train, test"),
        ("dagm", "val", "only train, test"),
        ("br35h", "train", "only test"),
        ("isic", "train", "only test"),
    ],
)
def test_splits_that_are_not_there(readers, tmp_path, name, split, message):
    ALL[name].make(tmp_path)
    with pytest.raises(UsageError, match=rf"{name} has no split {split} in .*{message}"):
        readers[name](root=tmp_path, split=split)


def edit(path: str, old: str, new: str):
    def act(root: Path) -> None:
        text = (root / path).read_text()
        assert old in text
        (root / path).write_text(text.replace(old, new))

    return act


@pytest.mark.parametrize(
    ("name", "act", "message"),
    [
        (
            "visa",
            edit("split_csv/1cls.csv", "anomaly", "odd"),
            "labels in .* must be normal or anomaly, not odd",
        ),
        ("visa", edit("split_csv/1cls.csv", "label", "lable"), "has no label"),
        ("visa", edit("split_csv/1cls.csv", "candle/Data/Im", "../../Im"), "names paths outside"),
        ("headct", edit("labels.csv", "hemorrhage", "bleeding"), "has no hemorrhage"),
        ("headct", edit("labels.csv", "0, 1", "0, 2"), "labelled 0 or 1"),
        ("headct", edit("labels.csv", "0, 1", "x, 1"), "must hold integers"),
        ("headct", edit("labels.csv", "0, 1", "1, 1"), "must list each image once"),
        (
            "dagm",
            edit("Class1/Test/Label/Labels.txt", "0003.PNG\t0\t0", "0003.PNG\t1\t0003_label.PNG"),
            "1 image listed as defective lacks a label file: 0003.PNG",
        ),
        (
            "dagm",
            edit("Class1/Test/Label/Labels.txt", "0001.PNG\t1\t0001_label.PNG", "0001.PNG\t0\t0"),
            "1 image listed as normal has a label file: 0001.PNG",
        ),
        (
            "dagm",
            lambda root: (root / "Class1/Test/0005.PNG").unlink(),
            "1 listed image is missing: 0005.PNG",
        ),
    ],
)
def test_tables_that_do_not_fit_the_files(readers, tmp_path, name, act, message):
    ALL[name].make(tmp_path)
    act(tmp_path)
    with pytest.raises(UsageError, match=message):
        readers[name](root=tmp_path)


def test_dagm_without_its_tables(readers, tmp_path):
    MINIATURES["dagm"].make(tmp_path)
    before = readers["dagm"](root=tmp_path).samples
    for table in tmp_path.rglob("Labels.txt"):
        table.unlink()
    assert readers["dagm"](root=tmp_path).samples == before


def test_brainmri_inside_itself_alone(readers, tmp_path):
    MINIATURES["brainmri"].make(tmp_path / "brainmri")
    both = readers["brainmri"](datasets_dir=tmp_path)
    for folder in ("yes", "no"):
        shutil.rmtree(tmp_path / "brainmri" / folder)
    alone = readers["brainmri"](datasets_dir=tmp_path)
    assert (alone.num_normal, alone.num_anomalous) == (both.num_normal, both.num_anomalous)
