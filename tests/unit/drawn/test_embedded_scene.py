import hashlib
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from crane.drawn import embedded_domain, embedded_domains
from crane.drawn.drawing import SIZE
from crane.drawn.scene import Defect, Painted, PictureId, Rendered, render

LARGEST = SIZE * SIZE // 4
FOLDERS = [
    (name, class_name, kind)
    for name in embedded_domains()
    for class_name, kinds in embedded_domain(name).kinds.items()
    for kind in kinds
]
PINNED = {
    ("parts", "washer", "rust", 6): "1110b4701066e2ab7986e8715329ef1b",
    ("parts", "tablet", "crack", 5): "80804d1e5008f796dbf67ab388f32ad6",
    ("parts", "button", "good", 3): "c414362dc8f667af7d44caa138f1fc2e",
    ("fabrics", "denim", "hole", 4): "006b4e2d5ed41b4a99a15a6dff753e18",
    ("fabrics", "knit", "snag", 3): "4d209c46362fce20018521da896f47b4",
    ("fabrics", "tartan", "fade", 2): "6fa7ec679451ba7de1522efc9cbb76c5",
    ("boards", "driver", "skewed", 1): "c00dfe941e055c171c4d8913ce178602",
    ("boards", "matrix", "bridge", 4): "9055543975bbddc1c1d39ed780da2ec4",
    ("photos", "brick", "gouge", 3): "05c0882978c3719ed46dbf17feeabd26",
    ("photos", "grass", "litter", 5): "86b5c1e6754fc4929a327518ded83570",
    ("photos", "tissue", "bubble", 4): "01391b2b7006b1c7a6207f441a87cee8",
}


def pictures_of(name, class_name, kind):
    return [
        picture
        for picture in embedded_domain(name).pictures()
        if (picture.class_name, picture.kind, picture.split) == (class_name, kind, "test")
    ]


@pytest.mark.parametrize(("name", "class_name", "kind"), FOLDERS)
def test_masks_are_exact(name, class_name, kind):
    pictures = pictures_of(name, class_name, kind)
    for picture in (pictures[0], pictures[-1]):
        image, mask, clean = render(embedded_domain(name), picture)
        difference = np.abs(image.astype(int) - clean).max(axis=-1)
        assert not difference[~mask].any()
        # What was painted may by chance be as dark as what it hides: a chip moved over its place.
        assert (difference[mask] > 0).mean() > 0.8
        assert difference[mask].mean() > 15
        regions, num_regions = ndimage.label(mask, structure=np.ones((3, 3)))
        assert 1 <= num_regions <= 8
        assert np.bincount(regions.ravel())[1:].min() >= 10
        assert mask.sum() <= LARGEST


@pytest.mark.parametrize("name", embedded_domains())
def test_normal_images_have_no_mask_and_all_differ(name):
    domain = embedded_domain(name)
    for class_name in domain.classes:
        images = []
        for picture in pictures_of(name, class_name, "good")[:3]:
            image, mask, clean = render(domain, picture)
            assert not mask.any()
            np.testing.assert_array_equal(image, clean)
            assert 20 < image.mean() < 235
            assert image.std() > 8
            images.append(image)
        assert len({image.tobytes() for image in images}) == len(images)


def test_areas_spread_from_a_few_pixels_to_a_fifth_of_the_image():
    domain = embedded_domain("parts")
    pictures = [p for kind in domain.kinds["nut"] for p in pictures_of("parts", "nut", kind)]
    areas = np.array([render(domain, picture).mask.sum() for picture in pictures])
    assert areas.min() < 30
    assert areas.max() > 4000
    # Log-uniform: neither half of the logarithmic range is empty or nearly so.
    middle = np.sqrt(10.0 * LARGEST)
    assert 0.25 < (areas < middle).mean() < 0.85


@pytest.mark.parametrize("name", embedded_domains())
def test_some_images_have_several_defects(name):
    domain = embedded_domain(name)
    counts = [
        ndimage.label(render(domain, picture).mask, structure=np.ones((3, 3)))[1]
        for picture in domain.pictures()
        if picture.kind != "good" and picture.number == picture.num_siblings - 1
    ]
    assert max(counts) > 1


def test_the_train_and_test_images_differ():
    domain = embedded_domain("photos")
    train = render(domain, PictureId("brick", "train", "good", 0, 4))
    test = render(domain, PictureId("brick", "test", "good", 0, 16))
    assert (train.image != test.image).any()


@pytest.mark.parametrize(("place", "expected"), PINNED.items(), ids=str)
def test_pixels_are_the_same_everywhere(place, expected):
    """If this fails on purpose, raise EMBEDDED_VERSION and pin the new hashes."""
    name, class_name, kind, number = place
    rendered: Rendered = render(embedded_domain(name), pictures_of(name, class_name, kind)[number])
    pixels = rendered.image.tobytes() + rendered.mask.tobytes()
    assert hashlib.sha256(pixels).hexdigest()[:32] == expected


def test_a_defect_that_never_shows_is_an_error_not_a_clean_image():
    def invisible(scene, rng, area):
        return Painted(scene, np.zeros((SIZE, SIZE)))

    domain = replace(embedded_domain("parts"), defects={"chip": Defect(invisible)})
    with pytest.raises(RuntimeError, match=r"no PictureId.*area within bounds"):
        render(domain, PictureId("nut", "test", "chip", 0, 8))


def test_crumbs_are_dropped_from_mask_and_image():
    def crumbs(scene, rng, area):
        alpha = np.zeros((SIZE, SIZE))
        alpha[100:110, 100:110] = 1.0
        alpha[105, 105] = 0.0
        alpha[20:22, 20:22] = 1.0
        return Painted(replace(scene, rgb=np.ones_like(scene.rgb)), alpha)

    domain = replace(embedded_domain("parts"), defects={"chip": Defect(crumbs, 100, 120)})
    image, mask, clean = render(domain, PictureId("nut", "test", "chip", 0, 1))
    assert mask.sum() == 100
    assert mask[100:110, 100:110].all()
    np.testing.assert_array_equal(image[~mask], clean[~mask])
