from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image

from crane.errors import UsageError
from crane.pictures.maps import LEVELS, read_map, resize_map, save_map

UNIT_MAPS = npst.arrays(
    np.float32,
    npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9),
    elements=st.floats(0, 1, width=32),
)
SHARED_FOLDER = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@SHARED_FOLDER
@given(map=UNIT_MAPS)
def test_png_is_exact_to_half_a_level(map: np.ndarray, tmp_path: Path) -> None:
    back = read_map(save_map(map, tmp_path / "m.png"))
    assert back.dtype == np.float32
    assert back.shape == map.shape
    assert np.abs(back.astype(np.float64) - map).max() <= 0.5 / LEVELS + 1e-7


@SHARED_FOLDER
@given(map=UNIT_MAPS)
def test_npy_is_exact(map: np.ndarray, tmp_path: Path) -> None:
    assert np.array_equal(read_map(save_map(map, tmp_path / "m.npy")), map)


def test_suffixes_may_be_in_capitals(tmp_path: Path) -> None:
    map = np.zeros((2, 3), dtype=np.float32)
    for name in ("M.NPY", "M.PNG"):
        assert np.array_equal(read_map(save_map(map, tmp_path / name)), map)
    assert {path.name for path in tmp_path.iterdir()} == {"M.NPY", "M.PNG"}


def test_png_has_sixteen_bits_that_any_reader_sees(tmp_path: Path) -> None:
    levels = np.array([[0, 1, 32768], [65534, 65535, 257]])
    path = save_map((levels / LEVELS).astype(np.float32), tmp_path / "m.png")
    with Image.open(path) as image:
        assert image.size == (3, 2)
        assert np.array_equal(np.asarray(image), levels)


def test_a_written_png_survives_being_read_and_written(tmp_path: Path) -> None:
    map = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    once = read_map(save_map(map, tmp_path / "a.png"))
    assert np.array_equal(read_map(save_map(once, tmp_path / "b.png")), once)


@pytest.mark.parametrize("bad", [np.nan, -0.01, 1.01, np.inf])
def test_values_that_are_no_probability_are_refused(bad: float, tmp_path: Path) -> None:
    map = np.full((2, 2), 0.5, dtype=np.float32)
    map[1, 0] = bad
    with pytest.raises(UsageError, match="must lie from 0 to 1, not from"):
        save_map(map, tmp_path / "m.png")
    assert not list(tmp_path.iterdir())


def test_other_formats_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown map format m\.tif; maps end in \.png or \.npy"):
        save_map(np.zeros((2, 2), dtype=np.float32), tmp_path / "m.tif")
    Image.new("RGB", (3, 3)).save(tmp_path / "photo.png")
    with pytest.raises(UsageError, match="its mode is RGB, not 16-bit grey"):
        read_map(tmp_path / "photo.png")
    with pytest.raises(UsageError, match="unknown map format"):
        read_map(tmp_path / "m.tif")
    np.save(tmp_path / "double.npy", np.zeros((2, 2)))
    with pytest.raises(UsageError, match=r"it holds float64 of shape .* not a float32 image"):
        read_map(tmp_path / "double.npy")


def test_enlarging_is_plain_bilinear() -> None:
    map = np.random.default_rng(1).random((5, 7), dtype=np.float32)
    resized = resize_map(map, 11, 20)
    # Pixel centres of the large grid, in the small grid's pixels; borders repeat.
    y = np.clip((np.arange(11) + 0.5) * 5 / 11 - 0.5, 0, 4)
    x = np.clip((np.arange(20) + 0.5) * 7 / 20 - 0.5, 0, 6)
    rows = np.stack([np.interp(y, np.arange(5), column) for column in map.T], axis=1)
    wanted = np.stack([np.interp(x, np.arange(7), row) for row in rows])
    np.testing.assert_allclose(resized, wanted, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(map=UNIT_MAPS, height=st.integers(1, 30), width=st.integers(1, 30))
def test_resizing_invents_no_values(map: np.ndarray, height: int, width: int) -> None:
    resized = resize_map(map, height, width)
    assert resized.shape == (height, width)
    assert resized.min() >= map.min()
    assert resized.max() <= map.max()


def test_shrinking_averages_instead_of_skipping_pixels() -> None:
    map = np.zeros((64, 64), dtype=np.float32)
    map[:, ::2] = 1
    np.testing.assert_allclose(resize_map(map, 8, 8)[1:-1, 1:-1], 0.5, atol=0.02)
