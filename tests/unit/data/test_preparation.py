import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crane.data import index_folder, index_meta_json
from crane.datasets.preparation import as_meta, write_images, write_meta
from crane.errors import UsageError


@pytest.fixture
def splits(mvtec_root):
    return {
        split: index_folder("mvtec", mvtec_root, split, mask_threshold=0)
        for split in ("train", "test")
    }


def test_what_is_written_reads_as_what_was_read(splits, mvtec_root):
    path = mvtec_root / "meta.json"
    assert write_meta(splits, path, overwrite=False)
    assert not write_meta(splits, path, overwrite=False)
    for split, index in splits.items():
        again = index_meta_json("mvtec", mvtec_root, split, mask_threshold=0)
        assert again.samples == index.samples
        assert again.fingerprint() == index.fingerprint()
    meta = json.loads(path.read_text())
    assert meta["test"]["bottle"][4] == {
        "img_path": "bottle/test/broken/000.png",
        "mask_path": "bottle/ground_truth/broken/000_mask.png",
        "cls_name": "bottle",
        "specie_name": "broken",
        "anomaly": 1,
    }
    assert list(as_meta({"test": splits["test"]})) == ["train", "test"]


def test_another_list_is_not_replaced_unasked(splits, mvtec_root):
    path = mvtec_root / "meta.json"
    path.write_text('{"test": {}}')
    with pytest.raises(UsageError, match=r"another list.*overwrite=true"):
        write_meta(splits, path, overwrite=False)
    assert path.read_text() == '{"test": {}}'
    assert write_meta(splits, path, overwrite=True)
    assert not list(mvtec_root.glob(".meta*"))


def test_an_interrupted_write_leaves_what_was_there(splits, mvtec_root, monkeypatch):
    path = mvtec_root / "meta.json"
    path.write_text("published")

    def fail(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write_meta(splits, path, overwrite=True)
    assert path.read_text() == "published"
    assert not list(mvtec_root.glob(".meta*"))


def test_parts_become_files_of_their_own(splits, tmp_path):
    test = splits["test"]
    halves = tuple(
        replace(sample, box=box)
        for sample in test.samples
        for box in ((0, 0, 24, 8), (0, 8, 24, 16))
        if sample.class_name == "bottle"
    )
    cut = replace(test, samples=halves)
    heard = []
    write_images({"test": cut}, tmp_path / "cut", lambda *numbers: heard.append(numbers))
    assert heard[-1] == (16, 16)
    written = index_folder("cut", tmp_path / "cut", "test", mask_threshold=0)
    assert (written.num_normal, written.num_anomalous) == (8, 8)
    first = next(s for s in written.samples if s.label)
    assert Image.open(first.image).size == (24, 8)
    whole = next(s for s in test.samples if s.label)
    pixels = np.asarray(Image.open(whole.image).convert("RGB"))[:8]
    assert np.array_equal(np.asarray(Image.open(first.image)), pixels)
    mask = np.asarray(Image.open(first.mask))
    assert np.array_equal(mask, np.asarray(Image.open(whole.mask))[:8])
    with pytest.raises(UsageError, match="cut exists; choose a new write_images"):
        write_images({"test": cut}, tmp_path / "cut")


def test_images_are_written_all_or_none(splits, tmp_path):
    splits["test"].samples[-1].image.write_bytes(b"cut")
    with pytest.raises(UsageError):
        write_images(splits, tmp_path / "cut")
    assert not list(tmp_path.glob("*cut*"))


def test_folders_that_cannot_be_written_are_named(splits, mvtec_root, monkeypatch):
    with pytest.raises(
        UsageError, match=r"cannot write to /proc/x: No such file.*choose another write_images"
    ):
        write_images(splits, Path("/proc/x"))

    def fail(self, target):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(UsageError, match=r"Permission denied; choose another datasets_dir"):
        write_meta(splits, mvtec_root / "meta.json", overwrite=False)
    assert not list(mvtec_root.glob("*meta*"))
