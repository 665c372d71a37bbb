import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from skimage.color import rgb2lab

from crane.config import compose
from crane.errors import UsageError
from crane.gate import build
from crane.pictures.overlays import (
    OUTLINE,
    ColourScale,
    colour_bar,
    fitted,
    font,
    heat_map,
    outlined,
    overlay,
)

SCALE = ColourScale(vmin=0.0, vmax=1.0, colormap="inferno")


@settings(max_examples=30, deadline=None)
@given(
    map=npst.arrays(np.float32, (4, 5), elements=st.floats(-0.5, 1.5, width=32)),
    other=npst.arrays(np.float32, (3, 4), elements=st.floats(-0.5, 1.5, width=32)),
)
def test_a_value_has_one_colour_whatever_else_is_in_the_map(
    map: np.ndarray, other: np.ndarray
) -> None:
    value = map[1, 2]
    other[2, 2] = value
    assert np.array_equal(heat_map(map, SCALE)[1, 2], heat_map(other, SCALE)[2, 2])


def test_flat_maps_keep_their_value_in_the_colour() -> None:
    low, high = (heat_map(np.full((2, 2), v, np.float32), SCALE) for v in (0.1, 0.9))
    assert len(np.unique(low.reshape(-1, 3), axis=0)) == 1
    assert np.abs(low[0, 0].astype(int) - high[0, 0]).max() > 100


def test_values_outside_the_scale_have_the_colours_of_its_ends() -> None:
    scale = ColourScale(vmin=0.2, vmax=0.6, colormap="inferno")
    colours = heat_map(np.float32([[0.0, 0.2, 0.6, 1.0]]), scale)
    assert np.array_equal(colours[0, 0], colours[0, 1])
    assert np.array_equal(colours[0, 2], colours[0, 3])
    assert not np.array_equal(colours[0, 0], colours[0, 3])


def test_colours_get_lighter_all_along_so_that_grey_prints_and_any_eye_can_order_them() -> None:
    ramp = np.linspace(0, 1, 256, dtype=np.float32)[None]
    lightness = rgb2lab(heat_map(ramp, SCALE))[0, :, 0]
    assert (np.diff(lightness[::8]) > 0).all()


def test_overlay_shows_the_image_where_normal_and_the_colour_where_anomalous() -> None:
    image = np.full((4, 4, 3), 90, dtype=np.uint8)
    map = np.zeros((4, 4), dtype=np.float32)
    map[0, 0] = 1
    shown = overlay(image, map, scale=SCALE, alpha=1.0)
    assert np.array_equal(shown[1:], image[1:])
    assert np.array_equal(shown[0, 0], heat_map(map, SCALE)[0, 0])
    half = overlay(image, map, scale=SCALE, alpha=0.5).astype(int)
    assert np.abs(half[0, 0] - (90 + shown[0, 0].astype(int)) / 2).max() <= 1


def test_the_same_pixel_and_value_look_the_same_in_every_overlay() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    maps = rng.random((2, 6, 6), dtype=np.float32) * np.float32([1, 0.3])[:, None, None]
    images[:, 3, 3], maps[:, 3, 3] = (10, 200, 30), 0.25
    one, two = (
        overlay(image, map, scale=SCALE, alpha=0.7) for image, map in zip(images, maps, strict=True)
    )
    assert np.array_equal(one[3, 3], two[3, 3])


def test_outline_surrounds_the_region_and_leaves_it_visible() -> None:
    image = np.zeros((60, 60, 3), dtype=np.uint8)
    mask = np.zeros((60, 60), dtype=bool)
    mask[30, 30] = True
    drawn = outlined(image, mask)
    line = (drawn == OUTLINE).all(-1)
    assert line.any()
    assert not line[mask].any()
    assert np.hypot(*(np.argwhere(line) - 30).T).max() <= 3
    assert np.array_equal(outlined(image, np.zeros_like(mask)), image)
    assert np.array_equal(outlined(image, None), image)


def test_colour_bar_runs_from_the_first_colour_to_the_last() -> None:
    scale = ColourScale(vmin=0.2, vmax=0.8, colormap="inferno")
    bar = np.asarray(colour_bar(scale, width=300))
    ends = heat_map(np.float32([[0.2, 0.8]]), scale)[0]
    row = bar[bar.shape[0] // 2 - 2]
    assert np.array_equal(row[0], ends[0])
    assert np.array_equal(row[-1], ends[1])


@pytest.mark.parametrize(("vmin", "vmax"), [(0.5, 0.5), (0.6, 0.5)])
def test_an_empty_scale_is_refused(vmin: float, vmax: float) -> None:
    with pytest.raises(
        UsageError, match=r"overlay\.scale\.vmin must be below overlay\.scale\.vmax"
    ):
        ColourScale(vmin=vmin, vmax=vmax, colormap="inferno")


def test_an_unknown_colour_map_is_refused() -> None:
    with pytest.raises(UsageError, match=r"overlay\.scale\.colormap: unknown .* 'infern'; choose"):
        ColourScale(vmin=0.0, vmax=1.0, colormap="infern")


@pytest.mark.parametrize("alpha", [1.5, -0.1, np.nan])
def test_an_opacity_is_from_0_to_1(alpha: float) -> None:
    map = np.zeros((2, 2), dtype=np.float32)
    with pytest.raises(UsageError, match="alpha must be a number from 0 to 1"):
        overlay(np.zeros((2, 2, 3), np.uint8), map, scale=SCALE, alpha=alpha)


def test_a_map_that_is_not_finite_is_refused() -> None:
    map = np.zeros((2, 2), dtype=np.float32)
    map[0, 0] = np.nan
    with pytest.raises(UsageError, match="holds 1 values of NaN or infinity"):
        heat_map(map, SCALE)


def test_a_long_text_is_cut_to_fit() -> None:
    face = font(20)
    assert fitted("nut", face, 200) == "nut"
    short = fitted("n" * 200, face, 200)
    assert short.endswith("n…")
    assert 180 < face.getlength(short) <= 200


KEYS = (
    *("alpha=nan", "alpha=1.5", "num_anomalous=-1", "num_normal=-1", "num_normal=1.5", "tile=0"),
    *("tile=true", "num_columns=0", "choose=nicest", "gallery.num_normal=-1", "scale.vmin=inf"),
)


@pytest.mark.parametrize("override", KEYS)
@pytest.mark.parametrize("command", ["train", "predict"])
def test_values_of_the_configuration_are_checked_under_their_keys(
    command: str, override: str
) -> None:
    given = ["checkpoint=a.ckpt", "input=photos"] if command == "predict" else []
    config = compose(command, [*given, f"overlay.{override}"])
    key = re.escape(f"overlay.{override.partition('=')[0]}")
    with pytest.raises(UsageError, match=f"^{key} must be "):
        build(config.overlay, "overlay")
