"""Views: crops that cover an image, weights that sum to 1, and one score and map from them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import crane
from crane.config import compose
from crane.errors import UsageError
from crane.types import Prediction
from crane.views import OverlappingTiles, Scales, Whole, axis_weights, build_view, resized, starts

SIZE = 16
LENGTHS = st.integers(1, 90)
SIDES = st.integers(1, 40)
OVERLAPS = st.floats(0, 0.9)


def tiles(**changes):
    return OverlappingTiles(
        **{"resolution": "own", "tile": None, "overlap": 0.5, "share": 0.5, **changes}
    )


@settings(max_examples=50, deadline=None)
@given(LENGTHS, SIDES, OVERLAPS)
def test_tiles_cover_an_axis_and_weigh_1_at_every_pixel(length, side, overlap):
    places, weights = starts(length, side, overlap), axis_weights(length, side, overlap)
    side = min(side, length)
    assert places[0] == 0
    assert places[-1] + side == length
    steps = np.diff(places)
    assert (steps > 0).all()
    assert (steps <= max(1, side * (1 - overlap)) + 1).all()
    total = np.zeros(length)
    for place, own in zip(places, weights, strict=True):
        assert (own > 0).all()
        total[place : place + side] += own
    np.testing.assert_allclose(total, 1, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(LENGTHS, LENGTHS, SIDES, OVERLAPS, st.floats(0, 1), st.floats(0, 1))
def test_a_constant_map_stays_constant(height, width, tile, overlap, share, value):
    def score(crops, size):
        return Prediction(torch.full((len(crops),), value), torch.full((len(crops), *size), value))

    view = tiles(tile=tile, overlap=overlap, share=share)
    found = view.predict(height, width, SIZE, 3, score)
    assert found.map.shape == (1, height, width)
    torch.testing.assert_close(found.map, torch.full_like(found.map, value), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.score, torch.tensor([value]).float(), atol=1e-6, rtol=0)


def patterned(crops, size):
    """A score and a map that follow from the crop's place alone."""
    maps, scores = [], []
    for left, top, right, bottom in (crop.box for crop in crops):
        y = torch.linspace(top, bottom, size[0])[:, None]
        maps.append(torch.sin(y / 9 + torch.linspace(left, right, size[1]) / 7) / 2 + 0.5)
        scores.append((left * 31 + top * 17 + right) % 11 / 11)
    return Prediction(torch.tensor(scores), torch.stack(maps))


@settings(max_examples=20, deadline=None)
@given(LENGTHS, LENGTHS, st.integers(1, 9))
def test_batches_of_crops_change_nothing_and_fusion_is_as_documented(height, width, batch_size):
    view, numbers = tiles(share=0.25), []

    def counted(crops, size):
        numbers.append(len(crops))
        return patterned(crops, size)

    found = view.predict(height, width, SIZE, batch_size, counted)
    again = view.predict(height, width, SIZE, 1, patterned)
    assert torch.equal(found.map, again.map)
    assert torch.equal(found.score, again.score)
    crops = view.crops(height, width, SIZE)
    assert sum(numbers) == len(crops)
    assert max(numbers) <= batch_size
    scores = patterned(crops, (SIZE, SIZE)).score
    wanted = 0.75 * scores[0] + 0.25 * scores[1:].max() if len(crops) > 1 else scores[0]
    assert found.score.item() == pytest.approx(wanted.item(), abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_an_image_that_fits_into_one_tile_is_scored_as_a_whole(height, width):
    wanted = patterned(Whole("own").crops(height, width, SIZE), (SIZE, SIZE))
    found = tiles(tile=40).predict(height, width, SIZE, 4, patterned)
    assert torch.equal(found.map, resized(wanted.map, height, width))
    assert torch.equal(found.score, wanted.score)


def test_scales_are_averaged():
    view = Scales("model", [1, 2.5])
    found = view.predict(30, 20, SIZE, 4, lambda crops, size: patterned(crops, size))
    assert [crop.side for crop in view.crops(30, 20, SIZE)] == [16, 40]
    torch.testing.assert_close(found, patterned(view.crops(30, 20, SIZE)[:1], (SIZE, SIZE)))
    by_side = Scales("model", [1, 3]).predict(
        *(9, 9, SIZE, 1),
        lambda crops, size: Prediction(
            torch.tensor([crops[0].side / 100]), torch.full((1, *size), crops[0].side / 50)
        ),
    )
    assert by_side.score.item() == pytest.approx(0.32)
    assert by_side.map.unique().item() == pytest.approx(0.64)


@pytest.fixture(scope="module")
def load():
    return lambda *overrides: crane.load("mini", device="cpu", overrides=overrides)


@pytest.fixture(scope="module")
def whole(load):
    return load()


@pytest.fixture(scope="module")
def tiled(load):
    return load("views=tiles")


def picture(height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_one_tile_equals_the_whole_bit_by_bit(whole, tiled):
    square = picture(112, 112)
    one, other = whole.predict(square), tiled.predict(square)
    assert one.score == other.score
    np.testing.assert_array_equal(one.map, other.map)


def test_the_number_of_tiles_in_a_batch_changes_nothing(tiled):
    image = picture(150, 240)
    one, many = tiled.predict(image, batch_size=1), tiled.predict([image], batch_size=5)[0]
    assert one.score == pytest.approx(many.score, abs=1e-6)
    np.testing.assert_allclose(one.map, many.map, atol=1e-6)
    assert one.map.shape == (150, 240)


def test_a_constant_image_has_no_seams(load):
    grey = Image.new("RGB", (280, 230), (120, 130, 125))
    alone = load("views.share=1", "views=tiles").predict(grey).map
    within = load().predict(grey.resize((112, 112))).map
    for axis in (0, 1):  # no step is higher than those within one tile
        assert np.abs(np.diff(alone, axis=axis)).max() <= 1.5 * max(
            np.abs(np.diff(within, axis=a)).max() for a in (0, 1)
        )


def test_a_saved_model_keeps_its_view(tiled, tmp_path):
    saved = tiled.save(tmp_path / "tiled.safetensors")
    assert crane.load(saved, device="cpu").view == tiled.view
    assert crane.load(saved, device="cpu", overrides=["views=whole"]).view == Whole("model")


def test_an_export_holds_the_whole_view_only(tiled, tmp_path):
    with pytest.raises(UsageError, match="views=whole"):
        tiled.export(tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["image_size=9000"], "max_megapixels"),
        (["views=scales", "views.factors=[1,80]"], "max_megapixels"),
        (["views=scales", "views.factors=[1,1.52]"], "views.factors"),
        (["views=tiles", "views.overlap=1"], "views.overlap"),
        (["views=tiles", "views.tile=0"], "views.tile"),
        (["max_megapixels=-1"], "max_megapixels"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_by_key(load, overrides, key):
    with pytest.raises(UsageError, match=key.replace(".", r"\.")):
        load(*overrides)


def test_the_limit_can_be_lifted_by_the_key_it_names(load):
    assert load("image_size=2008", "max_megapixels=5").image_size == 2008


def test_a_guide_that_mixes_a_batch_needs_the_whole_view():
    chosen = ["method=crane_plus", "guide=tiny", "backbone=tiny", "guide.attention.mean=batch"]
    build_view(compose("test", [*chosen, "checkpoint=none"]))
    with pytest.raises(UsageError, match=r"guide\.attention\.mean"):
        build_view(compose("test", [*chosen, "checkpoint=none", "views=tiles"]))
