import pytest
import torch
from torch import nn
from torch.nn import functional as F

from crane.errors import UsageError
from crane.guides import FITS, Guide

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class Seen(Guide):
    """A guide that gives what its model would be shown."""

    def __init__(self, patch_size=4, image_size=None, fit="resize", mean=MEAN, std=STD):
        super().__init__(
            nn.Dropout(),
            patch_size=patch_size,
            image_size=image_size,
            fit=fit,
            mean=mean,
            std=std,
        )

    def _features(self, images):
        return images


def test_images_are_clamped_then_normalised():
    images = torch.rand(2, 3, 8, 8) * 3 - 1
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(Seen()(images), (images.clip(0, 1) - mean) / std)


def plain(**options):
    return Seen(mean=[0.0] * 3, std=[1.0] * 3, **options)


@pytest.mark.parametrize(
    ("size", "grid"), [((8, 12), (8, 12)), ((9, 7), (8, 8)), ((1, 11), (4, 12)), ((6, 10), (8, 8))]
)
def test_resize_goes_to_the_nearest_whole_number_of_patches(size, grid):
    images = torch.rand(1, 3, *size)
    expected = F.interpolate(images, grid, mode="bilinear", align_corners=False)
    torch.testing.assert_close(plain()(images), expected)


def test_crop_drops_the_remainder_at_the_bottom_and_on_the_right():
    images = torch.rand(1, 3, 11, 9)
    assert torch.equal(plain(fit="crop")(images), images[:, :, :8, :8])


def test_a_whole_number_of_patches_is_left_alone():
    images = torch.rand(1, 3, 8, 12)
    for fit in FITS:
        assert torch.equal(plain(fit=fit)(images), images)


def test_image_size_comes_before_fit():
    images = torch.rand(1, 3, 30, 20)
    assert plain(image_size=17)(images).shape == (1, 3, 16, 16)
    expected = F.interpolate(images, (17, 17), mode="bilinear", align_corners=False)[..., :16, :16]
    torch.testing.assert_close(plain(image_size=17, fit="crop")(images), expected)


def test_results_do_not_depend_on_batch_mates():
    images = torch.rand(3, 3, 9, 9)
    torch.testing.assert_close(plain()(images)[1:2], plain()(images[1:2]))


def test_guides_stay_frozen_in_evaluation_mode_and_out_of_checkpoints():
    guide = Seen()
    guide.train()
    parent = nn.Sequential(guide)
    parent.train()
    assert not any(module.training for module in guide.modules())
    assert guide.state_dict() == {}
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    assert not guide(images).requires_grad


def test_an_image_below_one_patch_cannot_be_cropped():
    with pytest.raises(UsageError, match=r"one patch of the guide \(4 px\)"):
        plain(fit="crop")(torch.rand(1, 3, 3, 8))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fit": "pad"}, "fit must be resize or crop, not 'pad'"),
        ({"image_size": 3}, r"guide\.features\.image_size must .* one patch of 4 px, not 3"),
        ({"image_size": 0}, "image_size must be an integer of at least 1, or null, not 0"),
        ({"mean": [0.5]}, "mean must be .* for red, green and blue"),
        ({"mean": [0.5, float("nan"), 0.5]}, "mean must be .* for red, green and blue"),
        ({"std": [1.0, 0.0, 1.0]}, r"std must be .* above 0 .*, not \[1\.0, 0\.0, 1\.0\]"),
    ],
)
def test_mistakes_are_said(options, said):
    with pytest.raises(UsageError, match=said):
        Seen(**options)
