"""Doubtful masks and images: what is said of them, and that the key it names mends them."""

import re

import numpy as np
import pytest
import torch
from PIL import Image

from crane.data import index_folder
from crane.data.dataset import IndexDataset, TokenDataset
from crane.data.doubts import class_lines, examine, looks_like_mask
from crane.data.images import read_rgb, upright_size

REGION = np.zeros((24, 32), dtype=bool)
REGION[6:14, 10:20] = True
BLURRED = np.clip(np.hypot(*np.mgrid[-10:14, -15:17]) * -40 + 400, 0, 255).astype(np.uint8)


def mask_of(kind: str) -> Image.Image:
    white = REGION.astype(np.uint8) * 255
    rgba = np.dstack([np.zeros((24, 32, 3), np.uint8), white])
    red = np.zeros((24, 32, 3), np.uint8)
    red[REGION, 0] = 1
    palette = Image.fromarray(REGION.astype(np.uint8), "P")
    palette.putpalette([0] * 768)
    kinds = {
        "clean": Image.fromarray(white),
        "ids": Image.fromarray(REGION.astype(np.uint8) * 3),
        "inverted": Image.fromarray(255 - white),
        "background": Image.fromarray(np.where(REGION, 255, 2).astype(np.uint8)),
        "alpha": Image.fromarray(rgba),
        "red id": Image.fromarray(red),
        "palette": palette,
        "grey edges": Image.fromarray(BLURRED),
        "full": Image.fromarray(np.full((24, 32), 255, np.uint8)),
        "empty": Image.fromarray(np.zeros((24, 32), np.uint8)),
    }
    return kinds[kind]


@pytest.fixture
def marked(tmp_path, write):
    def make(kind: str):
        for i in range(3):
            write.image(tmp_path / "good" / f"{i}.png", size=(32, 24))
            write.image(tmp_path / "bad" / f"{i}.png", size=(32, 24), seed=i)
            (tmp_path / "ground_truth" / "bad").mkdir(parents=True, exist_ok=True)
            mask_of(kind).save(tmp_path / "ground_truth" / "bad" / f"{i}.png")
        return tmp_path

    return make


def read(root, **keys):
    return index_folder("mine", root, "test", **{"mask_threshold": 0, **keys})


@pytest.mark.parametrize(
    ("kind", "text", "key"),
    [
        ("inverted", "look inverted", "mask_invert=true"),
        ("background", "background that is not 0", "mask_threshold=127"),
        ("alpha", "are empty", "mask_values=alpha"),
        ("red id", "are empty", "mask_values=brightest"),
        ("palette", "are empty", "mask_values=index"),
        ("grey edges", "have grey edges", "mask_threshold=127"),
    ],
)
def test_the_key_that_is_named_mends_the_mask(marked, kind, text, key):
    root = marked(kind)
    (said,) = examine(read(root), "targets.mine.")
    assert said.startswith("3 of 3 masks ")
    assert text in said
    assert f"set targets.mine.{key}" in said
    name, _, value = key.partition("=")
    keys = {name: int(value) if value.isdigit() else value == "true" or value}
    mended = read(root, **keys)
    assert examine(mended, "targets.mine.") == []
    mask = (
        IndexDataset(mended, 24)
        .open(mended.samples.index(next(s for s in mended.samples if s.mask)))
        .mask
    )
    wanted = BLURRED > 127 if kind == "grey edges" else REGION
    assert (mask == wanted).all()
    assert mended.fingerprint() != read(root).fingerprint()


def test_masks_without_a_doubt_are_not_remarked_on(marked):
    for kind in ("clean", "ids"):
        assert examine(read(marked(kind)), "targets.mine.") == []


def test_masks_that_hold_one_value_are_remarked_on(marked):
    assert "hold one value only" in examine(read(marked("full")), "")[0]
    assert "are empty" in examine(read(marked("empty")), "")[0]


def test_a_line_for_each_class(marked):
    assert class_lines(read(marked("clean")), {marked("clean").name: 0.25}) == [
        f"{marked('clean').name}: 3 normal (good), 3 anomalous (bad), "
        "masks of 3 of 3 from ground_truth, 25 % of pixels anomalous"
    ]


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 16])
def test_a_white_level_mends_dark_images(tmp_path, bits):
    grey = np.arange(32 * 24, dtype=np.uint16).reshape(24, 32) % 256
    for label in ("good", "bad"):
        (tmp_path / label).mkdir()
        deep = (grey.astype(np.uint32) * (2**bits - 1) // 255).astype(np.uint16)
        Image.fromarray(deep).save(tmp_path / label / "0.tif")
    said = examine(read(tmp_path), "source.mine.")
    assert bool(said) == (bits < 14)
    if said:
        level = int(re.search(r"set source\.mine\.white_level=(\d+)", said[0])[1])
        assert level == 2**bits - 1
        index = read(tmp_path, white_level=level)
        assert examine(index, "") == []
        pixels = np.asarray(index.read_image(index.samples[0]))[..., 0]
        assert np.abs(pixels.astype(int) - grey).max() <= 1


def test_transparency(tmp_path, write):
    grey = np.full((8, 8), 30000, np.uint16)
    grey[0, 0] = 7
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=7)
    pixels = np.asarray(read_rgb(tmp_path / "a.png"))
    assert (pixels[0, 0].tolist(), pixels[1, 1].tolist()) == ([255] * 3, [117] * 3)
    rgba = Image.new("RGBA", (8, 8), (9, 9, 9, 0))
    for label in ("good", "bad"):
        (tmp_path / label).mkdir()
        rgba.save(tmp_path / label / "0.png")
    assert "2 of 2 images are wholly transparent" in examine(read(tmp_path), "")[0]


@pytest.mark.parametrize("suffix", ["tif", "jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_sizes_are_those_of_upright_images(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (20, 12)).save(path, exif=exif)
    assert upright_size(path) == read_rgb(path).size


def test_looks_like_a_mask(tmp_path, write):
    for kind in ("clean", "ids", "inverted", "background"):
        mask_of(kind).save(tmp_path / "m.png")
        assert looks_like_mask(tmp_path / "m.png")
    assert not looks_like_mask(write.image(tmp_path / "i.png"))
    Image.new("L", (9, 9), 128).save(tmp_path / "flat.png")
    assert not looks_like_mask(tmp_path / "flat.png")
    assert not looks_like_mask(tmp_path / "none.png")


def test_cached_features_have_masks_of_turned_tiffs(tmp_path, write):
    exif = Image.Exif()
    exif[0x0112] = 6
    for label in ("good", "bad"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (32, 24)).save(tmp_path / label / "0.tif", exif=exif)
    write.mask(tmp_path / "masks" / "bad" / "0.png", size=(24, 32))
    images = IndexDataset(read(tmp_path), 16)
    tokens = TokenDataset(images, lambda key: (torch.zeros(1), torch.zeros(1, 1, 1, 1)))
    for position in range(2):
        assert (tokens[position]["mask"] == images[position]["mask"]).all()
