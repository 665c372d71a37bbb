from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from crane.drawn import drawing
from crane.drawn.drawing import SIZE

CENTRE = (SIZE / 2, SIZE / 2)
inside = st.floats(20.0, SIZE - 20.0)


def generator(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


@settings(max_examples=20, deadline=None)
@given(x=inside, y=inside, angle=st.floats(-4.0, 4.0))
def test_a_posed_frame_is_a_rotation_about_its_centre(x, y, angle):
    u, v = drawing.posed((x, y), angle)
    rows, cols = np.mgrid[0:SIZE, 0:SIZE]
    np.testing.assert_allclose(np.hypot(u, v), np.hypot(cols - x, rows - y), atol=1e-9)
    ahead = drawing.posed((x - np.cos(angle), y - np.sin(angle)), angle)[0]
    np.testing.assert_allclose(ahead - u, 1.0, atol=1e-9)


def test_a_window_is_cut_from_the_whole():
    window = (slice(30, 50), slice(100, 140))
    for whole, part in zip(
        drawing.posed((90.0, 70.0), 0.4), drawing.posed((90.0, 70.0), 0.4, window), strict=True
    ):
        np.testing.assert_array_equal(whole[window], part)


def test_a_covered_box_has_its_area():
    u, v = drawing.posed(CENTRE, 0.3)
    area = drawing.cover(drawing.box(u, v, 40.0, 25.0)).sum()
    assert area == pytest.approx(4 * 40.0 * 25.0, rel=1e-3)
    rounded = drawing.cover(drawing.box(u, v, 40.0, 25.0, corner=10.0)).sum()
    assert rounded == pytest.approx(4 * 40.0 * 25.0 - (4 - np.pi) * 10.0**2, rel=1e-3)


def test_a_covered_hexagon_has_its_area():
    u, v = drawing.posed(CENTRE, 0.3)
    area = drawing.cover(drawing.hexagon(u, v, 60.0)).sum()
    assert area == pytest.approx(2 * np.sqrt(3) * 60.0**2, rel=1e-3)


def test_a_stroke_is_the_distance_to_its_nearest_point():
    points, radii = [(40.0, 60.0), (90.0, 80.0), (110.0, 150.0)], [3.0, 3.0, 3.0]
    plane = drawing.stroke(points, radii)
    dense = np.concatenate([np.linspace(a, b, 400) for a, b in pairwise(points)])
    for x, y in [(45, 60), (90, 88), (100, 120), (36, 52)]:
        expected = np.hypot(dense[:, 0] - x, dense[:, 1] - y).min() - 3.0
        assert plane[y, x] == pytest.approx(expected, abs=0.02)
    assert plane[200, 20] > 12.0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 999), area=st.floats(30.0, 9000.0), stretch=st.floats(1.0, 2.0))
def test_a_blob_has_about_its_area_and_is_one_piece(seed, area, stretch):
    shape = drawing.blob(generator(seed), CENTRE, area, 0.25, stretch)
    assert 0.7 * area < (shape < 0).sum() < 1.5 * area
    assert ndimage.label(shape < 0)[1] == 1


def test_noise_is_centred_smooth_and_bounded():
    coarse, fine = drawing.noise(generator(), 40.0), drawing.noise(generator(), 2.0)
    for plane in (coarse, fine):
        assert plane.shape == (SIZE, SIZE)
        assert np.abs(plane).max() <= 1.8
    assert abs(fine.mean()) < 0.02
    assert np.abs(np.diff(coarse)).max() < 0.1 < np.abs(np.diff(fine)).max()


def test_noise_interpolates_like_a_cubic_spline():
    cell = 7.3
    first, weights = drawing._spline(cell)
    knots = generator().uniform(-1.0, 1.0, first[-1] + 4)
    ours = sum(weights[tap] * knots[first + tap] for tap in range(4))
    positions = np.arange(SIZE) / cell + 1.0
    theirs = ndimage.map_coordinates(knots, positions[None], order=3, prefilter=False)
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_sample_is_bilinear():
    plane = generator().random((50, 70))
    x = generator(1).uniform(0.0, 68.9, (SIZE, SIZE))
    y = generator(2).uniform(0.0, 48.9, (SIZE, SIZE))
    expected = ndimage.map_coordinates(plane, [y, x], order=1)
    np.testing.assert_allclose(drawing.sample(plane, x, y), expected, atol=1e-12)


def test_a_slope_that_faces_the_light_is_brighter():
    u, _ = drawing.posed(CENTRE, 0.0)
    level, _ = drawing.relief(np.zeros((SIZE, SIZE)), (-1.0, 0.0))
    rising_left, _ = drawing.relief(-0.3 * u, (-1.0, 0.0))
    rising_right, _ = drawing.relief(0.3 * u, (-1.0, 0.0))
    np.testing.assert_array_equal(level, 1.0)
    assert rising_right.mean() > 1.0 > rising_left.mean()
