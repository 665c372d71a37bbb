"""Maps and their blur against the slow reference and SciPy."""

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch.nn import functional as F

from crane.scoring import (
    fuse,
    gaussian_blur,
    mean_of_softmax_maps,
    similarity_logits,
    softmax_of_mean_logits,
    upsample,
)
from reference import scoring_slow
from reference.crane_slow import bilinear_matrix, resize

QUICKLY = settings(max_examples=25, deadline=None, derandomize=True)


@st.composite
def logits(draw: st.DrawFn) -> tuple[Tensor, tuple[int, int], tuple[int, int]]:
    """Patch logits (M, B, N, 2), their grid and an image size."""
    num_local, batch = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    grid = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    size = draw(st.integers(1, 23)), draw(st.integers(1, 23))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    shape = (num_local, batch, grid[0] * grid[1], 2)
    return 5 * torch.randn(shape, generator=generator, dtype=torch.float64), grid, size


@QUICKLY
@given(logits())
def test_both_aggregations_equal_the_slow_ones(
    drawn: tuple[Tensor, tuple[int, int], tuple[int, int]],
) -> None:
    for ours, name in [
        (mean_of_softmax_maps, "mean of softmax maps"),
        (softmax_of_mean_logits, "softmax of mean logits"),
    ]:
        anomaly_map = ours(*drawn)
        torch.testing.assert_close(anomaly_map, scoring_slow.anomaly_map(*drawn, aggregate=name))
        assert anomaly_map.min() >= 0
        assert anomaly_map.max() <= 1


def test_half_precision_towers_are_scored_in_full() -> None:
    """In bfloat16 similarities come in steps of 1/256, and images tie that are not alike."""
    generator = torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, generator=generator)
    patches, global_ = F.normalize(draw(2, 9, 16, 8), dim=-1), F.normalize(draw(9, 8), dim=-1)
    text = F.normalize(draw(1, 2, 8), dim=-1)
    tower, text = [t.bfloat16() for t in (patches, global_)], text.bfloat16()

    def scored(patches: Tensor, global_: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        logits = similarity_logits(patches, text, 0.07)
        fused = fuse(global_, patches, logits, 0.5)
        score = similarity_logits(fused.unsqueeze(1), text, 0.07)
        return gaussian_blur(mean_of_softmax_maps(logits, (4, 4), (20, 20)), 1.0), score

    wanted = scored(*(t.float() for t in (*tower, text)))
    with torch.autocast("cpu", torch.bfloat16):
        came = scored(*tower, text)
    for ours, theirs in zip(came, wanted, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


@QUICKLY
@given(st.floats(0.3, 6), st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.3, 1.0]))
def test_the_blur_stays_between_the_ends_of_each_map(
    sigma: float, height: int, width: int, value: float
) -> None:
    """Rounded, the kernel's weights may add up to more than 1."""
    maps = torch.full((2, height, width), value)
    maps[1, 0, 0] = 1.0
    blurred = gaussian_blur(maps, sigma)
    assert (blurred[0] == value).all()
    assert blurred[1].min() >= value
    assert blurred[1].max() <= 1.0


def test_the_aggregations_differ_where_local_embeddings_do() -> None:
    certain, unsure = torch.tensor([[0.0, 9.0]]), torch.tensor([[0.0, -1.0]])
    both = torch.stack([certain, unsure]).unsqueeze(1)
    assert mean_of_softmax_maps(both, (1, 1), (1, 1)) < 0.7
    assert softmax_of_mean_logits(both, (1, 1), (1, 1)) > 0.9


@QUICKLY
@given(logits())
def test_upsampling_equals_explicit_matrices(
    drawn: tuple[Tensor, tuple[int, int], tuple[int, int]],
) -> None:
    values, grid, size = drawn[0][0], *drawn[1:]
    for mode, matrix in [("bilinear", bilinear_matrix), ("nearest", scoring_slow.nearest_matrix)]:
        ours = upsample(values, grid, size, mode)
        for image, one in zip(ours, values, strict=True):
            slow = resize(one, grid, size, matrix).T.reshape(2, *size)
            torch.testing.assert_close(image, slow)


@QUICKLY
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40)),
    st.floats(0.05, 12.0),
    st.integers(0, 10_000),
)
def test_the_blur_is_scipys(shape: tuple[int, int, int], sigma: float, seed: int) -> None:
    maps = np.random.default_rng(seed).random(shape)
    ours = gaussian_blur(torch.from_numpy(maps), sigma)
    wanted = np.stack([gaussian_filter(one, sigma) for one in maps])
    np.testing.assert_allclose(ours.numpy(), wanted, atol=1e-12)


def test_the_published_blur_in_float32() -> None:
    maps = torch.rand(2, 70, 98, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gaussian_blur(maps, 4.0), scoring_slow.blur(maps), atol=1e-6, rtol=0)


def test_no_blur_leaves_maps_alone() -> None:
    maps = torch.rand(1, 3, 4)
    assert torch.equal(gaussian_blur(maps, 0.0), maps)


def test_a_constant_map_stays_constant() -> None:
    torch.testing.assert_close(
        gaussian_blur(torch.full((1, 9, 5), 0.3), 4.0), torch.full((1, 9, 5), 0.3)
    )


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_a_grid_of_the_images_size_is_not_resized(mode: str) -> None:
    values = torch.rand(1, 12, 1)
    assert torch.equal(upsample(values, (3, 4), (3, 4), mode)[0, 0], values.view(3, 4))
