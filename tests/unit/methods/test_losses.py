"""The parts of the loss against the slow reference, and what their settings do."""

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crane.errors import UsageError
from crane.methods import Crane, CraneLoss, Losses, dice_loss, focal_loss
from crane.scoring import upsample
from crane.types import VisionTokens
from reference import scoring_slow
from reference.build import composed

QUICKLY = settings(max_examples=20, deadline=None, derandomize=True)
SIZE = 28
SETTINGS = {
    "focal_weight": 2.0,
    "dice_weight": 2.0,
    "image_weight": 0.2,
    "image_temperature": 0.01,
    "focal_gamma": 2.0,
    "local_copies": 1,
    "interpolation": "nearest",
}


@st.composite
def probabilities_and_masks(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """(B, 2, H, W) and (B, H, W) in bool, empty and full masks and certain pixels among them."""
    shape = [draw(st.integers(1, most)) for most in (3, 5, 6)]
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    sharpness = draw(st.sampled_from([0.0, 1.0, 1000.0]))
    logits = sharpness * torch.randn(shape[0], 2, *shape[1:], generator=generator).double()
    share = draw(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    return logits.softmax(1), torch.rand(shape, generator=generator) < share


@QUICKLY
@given(probabilities_and_masks())
def test_focal_and_dice_equal_the_slow_ones(drawn: tuple[Tensor, Tensor]) -> None:
    probabilities, mask = drawn
    focal = focal_loss(probabilities, mask, gamma=2.0)
    torch.testing.assert_close(focal, scoring_slow.focal_loss(probabilities, mask.long()))
    dice = dice_loss(probabilities[:, 1], mask)
    torch.testing.assert_close(dice, scoring_slow.dice_loss(probabilities[:, 1], mask.long()))
    assert torch.isfinite(focal)
    assert 0 <= dice < 1


def test_without_gamma_focal_is_the_cross_entropy() -> None:
    probabilities = torch.full((1, 2, 3, 3), 0.5)
    focal = focal_loss(probabilities, torch.ones(1, 3, 3, dtype=torch.bool), gamma=0.0)
    assert focal.item() == pytest.approx(0.6931, abs=1e-4)


def test_the_published_settings() -> None:
    published = instantiate(composed().loss, _convert_="all")
    assert vars(published) == SETTINGS | {"local_copies": 4}
    assert instantiate(composed("loss=one_tap").loss).local_copies == 1


@pytest.fixture(scope="module")
def seen(crane: Crane) -> tuple[VisionTokens, Tensor, dict[str, Tensor]]:
    """Three images as they are seen, their texts, and the rest of the batch."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.randint(0, 3, (3, SIZE, SIZE), generator=generator, dtype=torch.int32)
    with torch.no_grad():
        tokens = crane.vision(torch.rand(3, 3, SIZE, SIZE, generator=generator))
        text = crane.encode_prompts(tokens, with_context=True)
    has_mask = torch.tensor([True, False, True])
    return tokens, text, {"mask": mask, "has_mask": has_mask, "label": torch.tensor([1, 1, 0])}


def losses(crane: Crane, seen: tuple[VisionTokens, Tensor, dict], **changes: object) -> Losses:
    tokens, text, batch = seen
    return CraneLoss(**(SETTINGS | changes))(crane, tokens, text, **batch)


def test_every_weight_weighs_its_part(
    crane: Crane, seen: tuple[VisionTokens, Tensor, dict]
) -> None:
    base = losses(crane, seen)
    assert base.total.item() == pytest.approx(
        (base.focal + base.dice + 0.2 * base.image).item(), rel=1e-6
    )
    for part, name in [("focal", "focal_weight"), ("dice", "dice_weight")]:
        changed = losses(crane, seen, **{name: 6.0})
        assert getattr(changed, part) == pytest.approx(3 * getattr(base, part).item())
        assert changed.image == base.image
    fourfold = losses(crane, seen, local_copies=4)
    assert fourfold.focal == pytest.approx(4 * base.focal.item())
    assert fourfold.dice == pytest.approx(4 * base.dice.item())
    assert fourfold.image == base.image
    image_only = losses(crane, seen, focal_weight=0.0, dice_weight=0.0, image_weight=1.0)
    assert image_only.total == base.image
    assert losses(crane, seen, image_temperature=1.0).image != base.image


def test_images_without_masks_count_in_the_image_loss_only(
    crane: Crane, seen: tuple[VisionTokens, Tensor, dict]
) -> None:
    tokens, text, batch = seen
    base = losses(crane, seen)
    garbage = batch["mask"].clone()
    garbage[1] = 7 - garbage[1]
    assert losses(crane, (tokens, text, batch | {"mask": garbage})) == base

    kept = batch["has_mask"]
    fewer = VisionTokens(tokens.global_[kept], tokens.patches[:, kept], tokens.grid)
    known = {name: value[kept] for name, value in batch.items()}
    alone = losses(crane, (fewer, text[kept], known))
    torch.testing.assert_close((alone.focal, alone.dice), (base.focal, base.dice))
    assert alone.image != base.image

    none = losses(crane, (tokens, text, batch | {"has_mask": torch.zeros(3, dtype=torch.bool)}))
    assert (none.focal, none.dice, none.image) == (0.0, 0.0, base.image)
    assert none.total == pytest.approx(0.2 * base.image.item())


def test_regions_of_any_number_are_anomalous(
    crane: Crane, seen: tuple[VisionTokens, Tensor, dict]
) -> None:
    tokens, text, batch = seen
    assert batch["mask"].max() == 2
    plain = losses(crane, (tokens, text, batch | {"mask": batch["mask"].clamp(max=1)}))
    assert plain == losses(crane, seen)


def test_patches_reach_pixels_as_told(
    crane: Crane, seen: tuple[VisionTokens, Tensor, dict]
) -> None:
    tokens, text, batch = seen
    kept = batch["has_mask"]
    probabilities = crane.patch_logits(tokens, text)[0, kept].softmax(-1)
    for interpolation in ("nearest", "bilinear"):
        pixels = upsample(probabilities, tokens.grid, (SIZE, SIZE), interpolation)
        wanted = 2.0 * scoring_slow.focal_loss(pixels, (batch["mask"][kept] > 0).long())
        ours = losses(crane, seen, interpolation=interpolation).focal
        assert ours.item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_temperature": 0.0}, r"image_temperature must be a number above 0, not 0\.0"),
        ({"focal_weight": -2.0}, r"focal_weight must be a number of at least 0, not -2\.0"),
        ({"dice_weight": float("nan")}, "dice_weight must be a number of at least 0, not nan"),
        ({"local_copies": 0}, "local_copies must be an integer of at least 1, not 0"),
        ({"interpolation": "cubic"}, "interpolation must be nearest or bilinear, not 'cubic'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CraneLoss(**(SETTINGS | change))
