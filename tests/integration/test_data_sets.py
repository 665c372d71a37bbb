"""All published data sets, in small, from their archives to a result."""

import json
import shutil
from functools import partial
from pathlib import Path
from re import search

import numpy as np
import pytest
import torch
from PIL import Image

from crane.config import compose, plain
from crane.data.dataset import IndexDataset
from crane.datasets import Card
from crane.datasets.preparation import read_splits, unpack, write_meta
from crane.datasets.verification import verify
from crane.gate import build
from longer import one_by_default
from miniatures import MINIATURES, VARIANTS, counts_override, pack

ROOT = Path(__file__).parents[2]
ALL = {**MINIATURES, **VARIANTS}
NAMES = ",".join(ALL)


def readers(datasets_dir: Path, meta: bool = True) -> dict[str, partial]:
    """What `crane data` builds, with the counts of the miniatures."""
    overrides = [counts_override(name, one) for name, one in ALL.items()]
    targets = compose(
        "data",
        ["action=verify", f"dataset@targets=[{NAMES}]", f"datasets_dir={datasets_dir}", *overrides],
    ).targets
    return {
        str(name): build({**node, "_partial_": True}, f"targets.{name}")
        for name, node in plain(targets).items()
    }


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    """The raw folder of each miniature, under the name of its data set; not to be changed."""
    root = tmp_path_factory.mktemp("raw")
    for name, miniature in ALL.items():
        (root / name).mkdir()
        miniature.make(root / name)
    return root


@pytest.fixture(scope="module")
def archives(raw, tmp_path_factory) -> dict[str, Path]:
    """Each data set's archive; versions computed from one archive share it."""
    folder = tmp_path_factory.mktemp("archives")
    packed: dict[str, Path] = {}
    for name, one in ALL.items():
        if one.folder not in packed:
            packed[one.folder] = pack(raw / name, folder / f"{name}.{one.suffix}")
    return {name: packed[one.folder] for name, one in ALL.items()}


@pytest.fixture(scope="module")
def cached_readers():
    return readers(Path("nowhere"))


def check(reader: partial, root: Path, fast=False):
    found = verify(
        reader.keywords["name"],
        partial(reader, root=root, meta=None),
        "test",
        reader.keywords["card"],
        fast=fast,
        num_workers=2,
    )
    lines = [f"{fault.kind} {fault.text}" for fault in found.faults]
    return found, lines + [f"remark {remark}" for remark in found.remarks]


def test_every_row_of_the_published_table_has_a_miniature(cached_readers):
    """A further data set may do without."""
    published = (ROOT / "experiments" / "table1_zero_shot" / "published.csv").read_text()
    rows = {line.split(",")[2] for line in published.splitlines()[1:]}
    tested = {row for one in cached_readers.values() for row in one.keywords["card"].table_rows}
    assert {row for row in rows if not row.startswith("average")} <= tested


@pytest.mark.parametrize("name", ALL)
def test_a_good_copy_has_no_fault(raw, cached_readers, name):
    miniature = ALL[name]
    found, lines = check(cached_readers[name], raw / name)
    assert not found.faults, lines
    assert found.num_opened == sum(sum(pair) for pair in miniature.counts.values())
    for split, (normal, anomalous) in miniature.counts.items():
        rows = [one for one in found.counts if one.split == split]
        assert sum(one.num_normal for one in rows) == normal
        assert sum(one.num_anomalous for one in rows) == anomalous
    tested = [one for one in found.counts if one.split == "test"]
    assert tuple(one.class_name for one in tested) == miniature.classes
    assert sum(one.num_masks for one in tested) == miniature.num_masks
    assert len(found.fingerprint) == 64
    fast, _ = check(cached_readers[name], raw / name, fast=True)
    assert (fast.fingerprint, fast.num_opened) == (found.fingerprint, 0)


@pytest.mark.parametrize(
    ("name", "fault"), [(name, fault) for name, one in ALL.items() for fault in one.wrong]
)
def test_a_wrong_copy_is_caught_and_said_right(raw, cached_readers, tmp_path, name, fault):
    act, message = ALL[name].wrong[fault]
    copy = shutil.copytree(raw / name, tmp_path / name)
    act(copy)
    found, lines = check(cached_readers[name], copy)
    assert any(search(f"^{message}", line) for line in lines), lines
    # What is no part of the data set does no harm; all else makes it another one.
    assert bool(found.faults) == (not message.startswith("remark"))


def test_what_is_peculiar_is_read_as_it_should_be(raw, cached_readers):
    index = {name: cached_readers[name](root=raw / name, meta=None) for name in ALL}
    ids = [np.asarray(Image.open(s.mask)).max() for s in index["visa"].samples if s.mask]
    assert sorted(ids) == [1, 1, 2, 2, 3, 3]
    assert all(item["mask"].any() == item["label"] for item in IndexDataset(index["visa"], 32))
    assert {s.image.suffix for s in index["brainmri"].samples} == {".jpg", ".JPG", ".jpeg", ".png"}
    assert not any("brain_tumor_dataset" in str(s.image) for s in index["brainmri"].samples)
    assert not any("pred" in str(s.image) for s in index["br35h"].samples)
    for name in ("cvc_colondb", "cvc_300"):
        assert all(s.image.name == s.mask.name for s in index[name].samples)
    assert {s.image.suffix + s.mask.suffix for s in index["btad"].samples if s.mask} == {
        ".bmp.png",
        ".png.png",
        ".bmp.bmp",
    }


def test_jpeg_masks_have_artefacts_and_the_threshold_is_a_key(raw, cached_readers):
    reader = cached_readers["tn3k"]
    published = reader(root=raw / "tn3k")
    clean = reader(root=raw / "tn3k", mask_threshold=127)
    assert published.mask_threshold == 0
    areas = [
        sum(int(IndexDataset(index, 40).open(i).mask.sum()) for i in range(4))
        for index in (published, clean)
    ]
    assert areas[0] > areas[1]
    assert areas[1] == pytest.approx(4 * 12 * 14, rel=0.1)
    _, lines = check(reader, raw / "tn3k")
    assert any("masks are JPEG and have compression artefacts" in line for line in lines)
    assert published.fingerprint() != clean.fingerprint()


def test_thirds_are_parts_of_the_whole_images(raw, cached_readers):
    whole = cached_readers["ksdd"](root=raw / "ksdd")
    read = partial(cached_readers["ksdd_thirds"], root=raw / "ksdd", meta=None)
    test, train = read(), read(split="train")
    boxes = {(0, 0, 20, 20), (0, 20, 20, 40), (0, 40, 20, 61)}
    keys = [test.key(s) for s in test.samples] + [train.key(s) for s in train.samples]
    assert len(set(keys)) == len(keys) == 3 * len(whole.samples)
    assert {s.box for s in (*test.samples, *train.samples)} == boxes
    # The defects lie in rows 45 to 55 of Part1, in the last third.
    anomalous = [s for s in test.samples if s.label]
    assert {(s.image.name, s.box) for s in anomalous} == {("Part1.jpg", (0, 40, 20, 61))}
    dataset = IndexDataset(test, 20)
    opened = dataset.open(test.samples.index(anomalous[0]))
    assert opened.image.size == (20, 21)
    assert np.argwhere(opened.mask).min(0).tolist() == [5, 4]
    entire = np.asarray(Image.open(anomalous[0].image).convert("RGB"))
    assert np.array_equal(np.asarray(opened.image), entire[40:61])
    assert whole.fingerprint() != test.fingerprint()


def test_the_normal_thirds_tested_are_those_scikit_learn_draws(raw, cached_readers):
    from sklearn.model_selection import train_test_split

    read = partial(cached_readers["ksdd_thirds"], root=raw / "ksdd", meta=None)
    indices = {split: read(split=split) for split in ("train", "test")}
    whole = [
        f"kos{number:02d}/Part{part}.jpg[0,{top},20,{bottom}]"
        for number in range(1, 5)
        for part in range(3)
        for top, bottom in ((0, 20), (20, 40), (40, 61))
        if (part, top) != (1, 40)
    ]
    train, test = train_test_split(whole, test_size=0.25, random_state=42)
    for split, wanted in (("train", train), ("test", test)):
        index = indices[split]
        assert {index.key(s) for s in index.samples if not s.label} == set(wanted)


def test_balanced_means_as_many_normal_as_anomalous(raw, cached_readers):
    index = cached_readers["dagm_balanced"](root=raw / "dagm", meta=None)
    assert index.num_normal == index.num_anomalous == 8
    assert {s.image.parent.name for s in index.samples} == {"Train", "Test"}
    assert index.fingerprint() != cached_readers["dagm"](root=raw / "dagm").fingerprint()


# ---- the commands ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def datasets_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("datasets")


@pytest.mark.parametrize("name", one_by_default(["mvtec", "visa", "tn3k", "ksdd_thirds"]))
def test_the_command_prepares_and_verifies(crane, archives, datasets_dir, name):
    """The four kinds of archive; the same for all is below, without the command line."""
    typed = [f"datasets_dir={datasets_dir}", counts_override(name, ALL[name])]
    done = crane("data", "prepare", name, f"archive={archives[name]}", *typed)
    assert done.code == 0, done.err
    assert "unpacked" in done.out
    assert "written: " in done.out
    again = crane("data", "prepare", name, f"archive={archives[name]}", *typed)
    assert again.code == 0, again.err
    assert "already unpacked" in again.out
    assert ".json unchanged: " in again.out
    verified = crane("data", "verify", name, *typed)
    assert verified.code == 0, verified.out + verified.err
    assert f"{name} verified" in verified.out
    fast = crane("data", "verify", name, "--fast", *typed)
    assert "no file was opened (--fast)" in fast.out
    prints = [out.split("fingerprint ")[1].split()[0] for out in (verified.out, fast.out)]
    assert prints[0] == prints[1]


@pytest.mark.long
def test_the_archive_of_another_data_set_is_refused_and_the_right_one_still_fits(
    crane, archives, tmp_path
):
    typed = [f"datasets_dir={tmp_path}/sets", counts_override("visa", ALL["visa"])]
    for other in ("btad", "tn3k", "br35h"):
        done = crane("data", "prepare", "visa", f"archive={archives[other]}", *typed)
        assert done.code == 2
        assert "this is not the archive of VisA: it holds " in done.err
        assert "; nothing was unpacked; to get the data, unpack " in done.err
        assert not list((tmp_path / "sets").iterdir())
    done = crane("data", "prepare", "visa", f"archive={archives['visa']}", *typed)
    assert done.code == 0, done.err
    assert "not as published" not in done.out
    done = crane("data", "prepare", "tn3k", f"archive={archives['btad']}", *typed[:1])
    assert done.code == 2
    assert "this is not the archive of TN3K" in done.err


def test_an_archive_with_other_numbers_is_unpacked_and_told(crane, archives, tmp_path):
    typed = [f"archive={archives['btad']}", f"datasets_dir={tmp_path}/sets"]
    done = crane("data", "prepare", "btad", *typed)
    assert done.code == 0, done.err
    assert "not as published 01: " in done.out
    assert " normal and " in done.out


def test_only_data_sets_that_have_an_archive_take_one(crane, archives, raw, tmp_path):
    typed = [f"archive={archives['btad']}", f"datasets_dir={tmp_path}/sets"]
    done = crane("data", "prepare", "embedded_parts", *typed)
    assert done.code == 2
    assert "embedded_parts has no archive" in done.err
    assert not (tmp_path / "sets").exists()
    own = pack(raw / "mvtec" / "bottle", tmp_path / "own.zip")
    root = f"targets.folder.root={tmp_path}/own"
    done = crane("data", "prepare", "folder", f"archive={own}", root)
    assert done.code == 0, done.err
    assert (tmp_path / "own" / "meta.json").is_file()


def test_a_faulty_copy_ends_the_command_with_an_error(crane, raw, tmp_path):
    copy = shutil.copytree(raw / "mvtec", tmp_path / "sets" / "mvtec")
    (copy / "bottle" / "test" / "good" / "001.png").write_bytes(b"cut")
    typed = [f"datasets_dir={tmp_path / 'sets'}", counts_override("mvtec", ALL["mvtec"])]
    done = crane("data", "verify", "mvtec", *typed)
    assert done.code == 2
    assert "unreadable bottle/test/good/001.png" in done.out
    assert "mvtec not verified" in done.out
    assert "some data sets have faults: mvtec has 1" in done.err
    published = crane("data", "verify", "mvtec", f"datasets_dir={tmp_path / 'sets'}", "--fast")
    assert published.code == 2
    assert "bottle: 3 normal and 6 anomalous images, not 20 and 63" in published.out


@pytest.mark.long
def test_from_the_archive_to_a_result(crane, archives, datasets_dir, tiny, tmp_path):
    """Train on two, test on all, by the lists that `prepare` writes."""
    for miniature in ALL.values():
        shutil.rmtree(datasets_dir / miniature.folder, ignore_errors=True)
    found = {}
    for name, reader in readers(datasets_dir).items():
        card, folder = reader.keywords["card"], datasets_dir / ALL[name].folder
        unpack(archives[name], folder)
        indices = read_splits(partial(reader, meta=None), "test", card)
        write_meta(indices, indices["test"].root / reader.keywords["meta"], overwrite=False)
        found[name] = verify(name, reader, "test", card, fast=False, num_workers=1)
    assert not [fault for one in found.values() for fault in one.faults]
    typed_below = ("datasets_dir", "data.strict", "image_size", "overlay.num_anomalous")
    settings = [word for word in tiny if not word.startswith(typed_below)]
    counts = [counts_override(name, one) for name, one in ALL.items()]
    trained = [counts_override(name, ALL[name], "source") for name in ("mvtec", "visa")]
    done = crane(
        "train", *settings, f"datasets_dir={datasets_dir}", "source=[mvtec,visa]",
        f"targets=[{NAMES}]", "image_size=28", "trainer.max_steps=2", "overlay.num_anomalous=0",
        "overlay.num_normal=0", f"hydra.run.dir={tmp_path / 'run'}", *counts, *trained,
    )  # fmt: skip
    assert done.code == 0, done.err
    results = {
        one["dataset"]: one
        for one in json.loads((tmp_path / "run" / "results.json").read_text())["datasets"]
    }
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    for name, miniature in ALL.items():
        normal, anomalous = miniature.counts["test"]
        classes = results[name]["classes"].values()
        assert sum(one["num_normal"] for one in classes) == normal
        assert sum(one["num_anomalous"] for one in classes) == anomalous
        means = results[name]["means"]
        assert (means["pixel_auroc"] is None) == (miniature.num_masks == 0), name
        assert (means["image_auroc"] is None) == (normal == 0), name
        if normal == 0:
            assert all("normal" in one["reasons"]["image_auroc"] for one in classes)
        assert record["data"][f"targets.{name}"] == found[name].fingerprint
    assert set(record["data"]) >= {"source.mvtec", "source.visa"}


def test_another_data_set_stops_a_run_unless_it_may_not(crane, raw, tiny, tmp_path):
    shutil.copytree(raw / "br35h", tmp_path / "sets" / "br35h")
    typed_below = ("datasets_dir", "data.strict", "image_size", "overlay.num_anomalous")
    settings = [word for word in tiny if not word.startswith(typed_below)]
    typed = ["train", *settings, "source=[br35h]", "targets=[]", f"datasets_dir={tmp_path}/sets"]
    done = crane(*typed)
    assert done.code == 2
    assert "br35h is not the data set behind the published results" in done.err
    assert "data.strict=false" in done.err


def test_counts_from_memory_never_fail(raw, cached_readers):
    reader = cached_readers["brainmri"]
    published = compose("data", ["action=list", "dataset@targets=[brainmri]"]).targets.brainmri
    card: Card = build(published.card, "targets.brainmri.card")
    found = verify(
        "brainmri",
        partial(reader, root=raw / "brainmri", meta=None, card=card),
        "test",
        card,
        fast=True,
        num_workers=1,
    )
    assert not found.faults
    assert any("not 98 and 155 (memory" in remark for remark in found.remarks)
    assert reader(root=raw / "brainmri", meta=None, card=card).mismatches == ()


def test_ones_own_folder_is_verified_alike(crane, raw, tmp_path):
    own = shutil.copytree(raw / "mvtec" / "bottle", tmp_path / "own")
    done = crane("data", "verify", "folder", f"targets.folder.root={own}")
    assert done.code == 0, done.out
    assert "folder verified; 9 images were opened" in done.out
    (own / "ground_truth" / "broken" / "001_mask.png").unlink()
    done = crane("data", "verify", "folder", f"targets.folder.root={own}")
    assert done.code == 0
    assert "1 anomalous image without a mask counts in image metrics only" in done.out


def test_statistics_are_a_table_and_a_picture(crane, raw, tmp_path):
    typed = [f"targets.visa.root={raw / 'visa'}", f"hydra.run.dir={tmp_path / 'run'}"]
    done = crane("data", "stats", "visa", *typed)
    assert done.code == 0, done.err
    assert "3 + 3" in done.out
    assert "40 x 32" in done.out
    assert "13.1%  13.1%  13.1%" in done.out  # 12 x 14 of 40 x 32 pixels
    picture = Image.open(tmp_path / "run" / "visa.png")
    assert picture.width >= 480
    assert torch.from_numpy(np.array(picture)).float().std() > 10


def test_the_list_names_every_data_set(crane, datasets_dir):
    done = crane("data", "list", f"datasets_dir={datasets_dir}")
    assert done.code == 0
    for name in ALL:
        assert name in done.out
    one = crane("data", "list", "ksdd_thirds")
    for fact in ("286 normal and 54 anomalous", "AdaCLIP, issue 27", "vicos.si", "Tabernik"):
        assert fact in one.out


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ([], "crane data list | verify | prepare | stats"),
        (["verfy", "mvtec"], "unknown action 'verfy'"),
        (["verify"], "name a data set: crane data verify NAME"),
        (["verify", "mvtc"], "did you mean mvtec?"),
        (
            ["prepare", "mvtec", "visa", "archive=a.zip"],
            "archive takes one data set",
        ),
        (["prepare", "visa", "archive=nothing.zip"], "there is no archive nothing.zip"),
        (["stats", "tn3k", "datasets_dir=nowhere"], "get TN3K from https://github.com"),
    ],
)
def test_mistakes_are_said(crane, typed, shown):
    done = crane("data", *typed)
    assert done.code == 2
    assert shown in done.err
    assert done.err.count("\n") == 1
