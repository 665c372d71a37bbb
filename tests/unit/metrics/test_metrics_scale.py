import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crane.errors import UsageError
from crane.metrics import ScoreScale

STANDARD = ScoreScale(octave_bits=10, linear_bits=17)
SCALES = [STANDARD, ScoreScale(4, 0), ScoreScale(7, 12), ScoreScale(12, 3)]
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
crowded = st.one_of(
    finite,
    st.floats(0, 1, width=32),
    st.integers(0, 40).map(lambda k: float(np.float32(1) - np.float32(k * 2.0**-24))),
    st.integers(0, 40).map(lambda k: k * 2.0**-149),
)


@pytest.mark.parametrize("scale", SCALES)
@settings(deadline=None)
@given(scores=st.lists(crowded, min_size=2, max_size=30))
def test_bins_keep_the_order(scale, scores):
    scores = torch.tensor(scores, dtype=torch.float32).sort().values
    bins = scale.bins(scores)
    assert (bins.diff() >= 0).all()
    assert bins.min() >= 0
    assert bins.max() < scale.num_bins
    assert (bins.diff()[scores.diff() == 0] == 0).all()


@pytest.mark.parametrize("scale", SCALES)
def test_edges_are_the_first_and_last_scores_of_their_bins(scale):
    lower, upper = scale.edges()
    used = lower <= upper
    numbers = np.arange(scale.num_bins)[used]
    assert np.array_equal(scale.bins(torch.from_numpy(lower[used])).numpy(), numbers)
    assert np.array_equal(scale.bins(torch.from_numpy(upper[used])).numpy(), numbers)
    lower, upper = lower[used], upper[used]
    assert np.array_equal(lower[1:], np.nextafter(upper[:-1], np.float32(np.inf)))
    assert lower[0] == np.finfo(np.float32).min
    assert upper[-1] == np.finfo(np.float32).max


def test_zero_and_one_and_the_scores_near_one_have_bins_of_their_own():
    lower, upper = STANDARD.edges()
    near_one = 1 - np.arange(2**10, dtype=np.float32) * np.float32(2.0**-24)
    scores = torch.from_numpy(np.concatenate([np.float32([0.0]), near_one]))
    bins = STANDARD.bins(scores).numpy()
    assert np.array_equal(lower[bins], scores.numpy())
    assert np.array_equal(upper[bins], scores.numpy())


def test_minus_zero_is_zero_and_other_float_types_are_their_float32():
    scores = torch.tensor([-0.0, 0.0, 0.5, -3.25])
    bins = STANDARD.bins(scores)
    assert bins[0] == bins[1]
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(STANDARD.bins(scores.to(dtype)), bins)


def test_not_finite_scores_get_a_valid_bin():
    bins = STANDARD.bins(torch.tensor([np.nan, -np.nan, np.inf, -np.inf]))
    assert bins.min() >= 0
    assert bins.max() < STANDARD.num_bins


@pytest.mark.parametrize(
    ("octave_bits", "linear_bits", "message"),
    [
        (3, 17, "octave_bits must be an integer from 4 to 16, not 3"),
        (17, 17, "octave_bits must be an integer from 4 to 16, not 17"),
        (10, -1, "linear_bits must be an integer from 0 to 22, not -1"),
        (10, 23, "linear_bits must be an integer from 0 to 22, not 23"),
    ],
)
def test_bits_out_of_range_are_refused(octave_bits, linear_bits, message):
    with pytest.raises(UsageError, match=message):
        ScoreScale(octave_bits, linear_bits)
