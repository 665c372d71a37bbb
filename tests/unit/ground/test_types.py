import re

import pytest
import torch

from crane.errors import UsageError
from crane.types import check_images

GOOD = torch.rand(2, 3, 56, 56)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_images_that_a_model_was_made_for_pass(dtype):
    check_images(GOOD.to(dtype), size=56)
    check_images(torch.stack([torch.zeros(3, 56, 56), torch.ones(3, 56, 56)]), size=56)
    check_images(GOOD[:0], size=56)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ((GOOD * 255).to(torch.uint8), "not uint8; divide by 255"),
        (GOOD > 0.5, "images must be float RGB from 0 to 1, not bool"),
        (GOOD * 255, "divide by 255"),
        (GOOD * 2 - 1, "do not normalise them"),
        (GOOD * torch.nan, "images must have values from 0 to 1, not nan to nan"),
        (GOOD / 0, "images must have values from 0 to 1, not"),
        (GOOD[:, :1], "images must be RGB of shape (images, 3, 56, 56), not (2, 1, 56, 56)"),
        (GOOD.permute(0, 2, 3, 1), "not (2, 56, 56, 3)"),
        (GOOD[0], "not (3, 56, 56); add the axis of images"),
        (GOOD[0, 0], "not (56, 56)"),
        (torch.rand(2, 3, 112, 112), "images must be 56 x 56 pixels, not 112 x 112"),
        (torch.rand(2, 3, 56, 28), "images must be 56 x 56 pixels, not 56 x 28"),
        (GOOD.numpy(), "images must be a float tensor, not ndarray"),
        ("a.png", "images must be a float tensor, not str"),
    ],
)
def test_others_are_refused_in_one_sentence(images, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        check_images(images, size=56)
