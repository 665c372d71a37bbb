import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane.data.filenames import pair_masks
from crane.errors import UsageError


def pairs(images: list[str], masks: list[str]) -> dict[str, str]:
    found = pair_masks([Path(i) for i in images], [Path(m) for m in masks], "folder")
    return {image.name: " ".join(mask.name for mask in masks) for image, masks in found.items()}


@pytest.mark.parametrize(
    "mask",
    [
        "007.png",
        "007_mask.png",
        "007_label.bmp",
        "007_GT.png",
        "007-mask.jpg",
        "007_Segmentation.png",
    ],
)
def test_endings(mask):
    assert pairs(["007.png"], [mask]) == {"007.png": mask}


def test_zero_padding_and_case_where_beyond_doubt():
    assert pairs(["1.JPG", "2.JPG"], ["001_mask.png", "0002_mask.png"]) == {
        "1.JPG": "001_mask.png",
        "2.JPG": "0002_mask.png",
    }
    assert pairs(["IMG_12.png"], ["img_0012.png"]) == {"IMG_12.png": "img_0012.png"}


def test_a_name_that_ends_like_a_mask_is_still_a_name():
    names = ["a.png", "a_gt.png"]
    assert pairs(names, names) == {"a.png": "a.png", "a_gt.png": "a_gt.png"}


@pytest.mark.parametrize("form", ["{:02d}_mask_{}", "{}_{}", "{}-mask{}", "{:03d}_GT-{}", "{}-{}"])
def test_several_masks_of_one_image_are_numbered(form):
    seven, eight = ([f"{form.format(i, number)}.png" for number in range(2)] for i in (7, 8))
    found = pairs(["7.jpg", "8.jpg"], [*eight, *seven])
    assert found == {"7.jpg": " ".join(seven), "8.jpg": " ".join(eight)}


def test_a_mask_with_a_number_belongs_to_the_image_of_that_name_first():
    assert pairs(["7.png", "7_1.png"], ["7_1.png", "7_0.png"]) == {
        "7.png": "7_0.png",
        "7_1.png": "7_1.png",
    }
    found = pair_masks([Path("7.png")], [Path("7_1.png")], "folder", [Path("7_1.png")])
    assert found == {}


def test_an_image_may_lack_a_mask():
    assert pairs(["0.png", "1.png"], ["1.png"]) == {"1.png": "1.png"}


def test_inner_zeros_count():
    with pytest.raises(UsageError, match=r"1001\.png"):
        pairs(["11.png"], ["1001.png"])


@pytest.mark.parametrize(
    ("images", "masks", "named"),
    [
        (["0.png", "1.png"], ["1_mask.png", "2_mask.png"], r"2_mask\.png"),
        (["0.png"], ["0.png", "0_mask.png"], r"0\.png, 0_mask\.png"),
        (["0.png"], ["0.png", "0_mask_1.png"], r"0\.png, 0_mask_1\.png"),
        (["0.png", "0.jpg"], ["0_mask.png"], r"0\.png, 0\.jpg"),
        (["1.png", "01.png"], ["001.png"], r"001\.png for images 1\.png, 01\.png"),
        (["1.png"], ["01.png", "001.png"], r"01\.png, 001\.png for images 1\.png"),
        (["1.png"], ["1.png", "001.png"], r"1\.png, 001\.png for images 1\.png"),
        ([], ["1.png"], r"1 mask without an image in folder: 1\.png"),
    ],
)
def test_doubt_is_an_error_that_names_the_files(images, masks, named):
    with pytest.raises(UsageError, match=named):
        pairs(images, masks)


@settings(deadline=None)
@given(st.sets(st.integers(0, 999), min_size=1, max_size=12), st.integers(0, 2**16))
def test_order_never_matters(numbers, seed):
    images = [f"{n:03d}.png" for n in numbers]
    masks = [f"{n:03d}_mask.png" for n in numbers]
    random.Random(seed).shuffle(masks)
    assert pairs(images, masks) == {f"{n:03d}.png": f"{n:03d}_mask.png" for n in numbers}


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(1, 5))
def test_shifted_names_are_caught(num, shift):
    images = [f"{n:03d}.png" for n in range(num)]
    masks = [f"{n + shift:03d}_mask.png" for n in range(num)]
    with pytest.raises(UsageError, match=f"{num - 1 + shift:03d}_mask.png|more"):
        pairs(images, masks)
