"""D-Attn against the slow reference; and that no features whatsoever give anything but numbers."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from crane.attention import GuidedAttention
from crane.errors import UsageError
from reference.crane_slow import guide_attention, guide_similarity, resize

QUICKLY = settings(max_examples=25, deadline=None, derandomize=True)
MARGIN = 1e-5
"""A similarity as near as this to the threshold may fall on either side of it in float32."""


def guided(
    beta: float = 1.2, gamma: float = 3.0, mean: str = "image", value_input: str = "block_input"
) -> GuidedAttention:
    return GuidedAttention(beta=beta, gamma=gamma, mean=mean, value_input=value_input)


@st.composite
def features(draw: st.DrawFn, num_images: int | None = None) -> Tensor:
    """Guide features (B, C, h, w), patches more or less alike."""
    batch = draw(st.integers(1, 3)) if num_images is None else num_images
    shape = (batch, *(draw(st.integers(1, most)) for most in (6, 4, 5)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    alike = draw(st.sampled_from([0.0, 0.5, 3.0]))
    return torch.randn(shape, generator=generator) + alike


@QUICKLY
@given(
    features(),
    st.floats(0.1, 2.0),
    st.floats(0.5, 10.0),
    st.sampled_from(["image", "batch"]),
)
def test_correlations_equal_the_slow_ones(f: Tensor, beta: float, gamma: float, mean: str) -> None:
    assume(guide_similarity(f.double(), beta, mean).abs().min() > MARGIN)
    ours = guided(beta, gamma, mean).correlations(f)
    slow = guide_attention(f.double(), beta, gamma, mean)
    torch.testing.assert_close(ours.double(), slow, atol=1e-5, rtol=0)


@QUICKLY
@given(st.data())
def test_values_reach_any_grid_of_a_guide(data: st.DataObject) -> None:
    f = data.draw(features())
    assume(guide_similarity(f.double()).abs().min() > MARGIN)
    heads, *own, d = (data.draw(st.integers(1, most)) for most in (3, 5, 4, 8))
    v = torch.randn(len(f), heads, *own, d)
    ours = guided()(f, v)
    grid = (f.shape[2], f.shape[3])
    attention = guide_attention(f.double())
    for image in range(len(f)):
        for head in range(heads):
            values = resize(v[image, head].double().flatten(0, 1), tuple(own), grid)
            slow = attention[image] @ values
            torch.testing.assert_close(ours[image, head].double(), slow, atol=1e-5, rtol=0)


@QUICKLY
@given(features(), st.floats(0.0, 3.0), st.floats(0.01, 100.0), st.sampled_from(["image", "batch"]))
def test_rows_are_distributions_that_keep_their_diagonal(
    f: Tensor, beta: float, gamma: float, mean: str
) -> None:
    rows = guided(beta, gamma, mean).correlations(f)
    assert torch.isfinite(rows).all()
    assert (rows >= 0).all()
    torch.testing.assert_close(rows.sum(-1), torch.ones(rows.shape[:2]))
    assert (rows.diagonal(dim1=1, dim2=2) > 0).all()


@pytest.mark.parametrize("noise", [0.0, 1e-6, 0.01])
def test_near_uniform_features_leave_every_row_its_diagonal(noise: float) -> None:
    torch.manual_seed(0)
    f = 1.0 + noise * torch.randn(2, 5, 3, 4)
    similarities = guide_similarity(f.double())
    assert (similarities < 0).all(), "the official code gives NaN here"
    attention = guided()
    torch.testing.assert_close(attention.correlations(f), torch.eye(12).expand(2, -1, -1))
    v = torch.randn(2, 2, 3, 4, 8)
    torch.testing.assert_close(attention(f, v), v.flatten(2, 3))


def test_features_of_nothing_are_no_harm() -> None:
    assert torch.isfinite(guided().correlations(torch.zeros(1, 5, 3, 4))).all()


def test_the_image_mean_ignores_batch_mates_and_the_batch_mean_does_not() -> None:
    torch.manual_seed(0)
    f = torch.cat([torch.randn(1, 6, 4, 4), 2 + torch.randn(1, 6, 4, 4)])
    for mean, invariant in [("image", True), ("batch", False)]:
        attention = guided(mean=mean)
        alone, together = attention.correlations(f[:1]), attention.correlations(f)[:1]
        assert torch.allclose(alone, together, atol=1e-6) == invariant


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"mean": "class"}, "mean must be image or batch, not 'class'"),
        ({"value_input": "u"}, "value_input must be after_attention or block_input, not 'u'"),
        ({"gamma": 0.0}, r"gamma must be a number above 0, not 0\.0"),
        ({"gamma": -3.0}, r"gamma must be a number above 0, not -3\.0"),
        ({"beta": float("nan")}, "beta must be a number, not nan"),
    ],
)
def test_settings_that_make_no_sense_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        guided(**setting)


def test_correlations_keep_their_precision_under_autocast() -> None:
    f = torch.randn(1, 6, 4, 4, generator=torch.Generator().manual_seed(0))
    plain = guided().correlations(f)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(guided().correlations(f), plain)
    assert guided()(f, torch.randn(1, 2, 4, 4, 8).bfloat16()).dtype == torch.bfloat16
