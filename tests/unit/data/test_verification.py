import shutil
from functools import partial

import numpy as np
import pytest
from PIL import Image

from crane.data import index_folder
from crane.datasets import Card, ImageCounts
from crane.datasets.verification import verify
from miniatures import image, mask, mvtec_like


@pytest.fixture
def root(tmp_path):
    mvtec_like(tmp_path / "things", ("bolt", "nut"), defects=("bent",))
    for name in ("bolt", "nut"):
        shutil.rmtree(tmp_path / "things" / name / "train")
    return tmp_path / "things"


@pytest.fixture
def card():
    per_class = {"bolt": (3, 3), "nut": (3, 3)}
    return Card(
        title="Things",
        domain="industrial",
        has_masks=True,
        has_normals=True,
        class_names=("bolt", "nut"),
        licence="",
        page="",
        citation="",
        size="",
        table_rows=(),
        counts=[
            ImageCounts("test", "counted", "a list", classes=per_class),
            ImageCounts("train", "counted", "a list", total=(1, 0)),
        ],
    )


def check(root, card, **options):
    read = partial(index_folder, "things", root, mask_threshold=0)
    options = {"fast": False, "num_workers": 2, **options}
    return verify("things", read, "test", card, **options)


def faults(found):
    return [(fault.kind, fault.text) for fault in found.faults]


def test_all_that_is_wrong_is_said_at_once(root, card):
    for name in ("bolt", "nut"):
        mask(root / name / "ground_truth" / "bent" / "900_mask.png")
    found = check(root, card)
    texts = [text for kind, text in faults(found) if kind == "layout"]
    assert any("bolt/ground_truth/bent" in text for text in texts)
    assert any("nut/ground_truth/bent" in text for text in texts)
    assert found.fingerprint is None


def test_every_unreadable_file_is_named(root, card):
    for name in ("test/good/001.png", "test/bent/002.png", "ground_truth/bent/000_mask.png"):
        path = root / "bolt" / name
        path.write_bytes(path.read_bytes()[:60])
    found = check(root, card)
    assert {kind for kind, _ in faults(found)} == {"unreadable"}
    assert [text.split(":")[0] for _, text in faults(found)] == [
        "bolt/test/good/001.png",
        "bolt/ground_truth/bent/000_mask.png",
        "bolt/test/bent/002.png",
    ]
    assert check(root, card, fast=True).faults == []


def test_masks_of_another_size_are_named_and_empty_ones_remarked(root, card):
    mask(root / "bolt" / "ground_truth" / "bent" / "001_mask.png", size=(30, 32))
    mask(root / "nut" / "ground_truth" / "bent" / "001_mask.png", value=0)
    found = check(root, card)
    (fault,) = faults(found)
    assert fault[0] == "mask"
    assert "001_mask.png is 30 x 32, its image bolt/test/bent/001.png 40 x 32" in fault[1]
    assert any("1 of 6 masks are empty: no pixel exceeds" in remark for remark in found.remarks)


def test_a_split_that_is_not_needed_may_be_absent(root, card):
    found = check(root, card)
    assert found.faults == []
    assert found.num_opened == 12
    assert not [one for one in found.counts if one.split == "train"]
    assert "split train is missing; only test is needed" in found.remarks


def test_what_is_beside_is_remarked(root, card):
    image(root / "notes" / "1.png")
    image(root / "notes" / "2.png")
    image(root / "bolt" / "1.png")
    remark = "images that are not part of it: bolt (1), notes (2)"
    assert check(root, card).remarks[-1] == remark


def test_copies_of_single_images_are_no_fault(root, card):
    good = root / "bolt" / "test" / "good"
    (good / "002.png").write_bytes((good / "001.png").read_bytes())
    assert check(root, card).faults == []


def test_progress_is_heard(root, card):
    heard = []
    check(root, card, advance=lambda *what: heard.append(what))
    assert heard == [("test", number, 12) for number in range(1, 13)]


def test_a_large_mask_threshold_finds_no_ringing(root, card):
    found = check(root, card)
    assert not any("artefacts" in remark for remark in found.remarks)
    truth = root / "bolt" / "ground_truth" / "bent" / "001_mask.png"
    pixels = np.asarray(Image.open(truth))
    truth.unlink()
    Image.fromarray(pixels).save(truth.with_suffix(".jpg"), quality=20)
    assert any(
        "1 of 6 masks are JPEG and have compression artefacts" in remark
        for remark in check(root, card).remarks
    )
