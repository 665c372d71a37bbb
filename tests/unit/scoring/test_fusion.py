"""Local-to-global fusion, written out once more in NumPy, and what it does."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from crane.scoring import fuse, similarity_logits
from reference import scoring_slow


def in_numpy(g: np.ndarray, p: np.ndarray, logits: np.ndarray, weight: float) -> np.ndarray:
    """g⁺ of one image: g (E,), p (M, N, E), logits (M, N, 2)."""
    mean = logits.mean(0)
    anomalous = 1 / (1 + np.exp(mean[:, 0] - mean[:, 1]))
    evidence = (anomalous[:, None] * p.mean(0)).sum(0)
    mixed = weight * evidence / np.linalg.norm(evidence) + (1 - weight) * g
    return mixed / np.linalg.norm(mixed)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.tuples(*(st.integers(1, most) for most in (3, 3, 9))),
    st.floats(0.0, 1.0),
    st.integers(0, 10_000),
)
def test_fusion_of_any_weight(shape: tuple[int, int, int], weight: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    double = {"generator": generator, "dtype": torch.float64}
    patches = F.normalize(torch.randn(*shape, 8, **double), dim=-1)
    global_ = F.normalize(torch.randn(shape[1], 8, **double), dim=-1)
    logits = 5 * torch.randn(*shape, 2, **double)
    ours = fuse(global_, patches, logits, weight)
    for image, one in enumerate(ours):
        wanted = in_numpy(
            global_[image].numpy(), patches[:, image].numpy(), logits[:, image].numpy(), weight
        )
        np.testing.assert_allclose(one.numpy(), wanted, atol=1e-9)
    if weight == 0.5:
        torch.testing.assert_close(ours, scoring_slow.fuse(global_, patches, logits))


def test_half_is_the_papers_formula() -> None:
    torch.manual_seed(0)
    patches = F.normalize(torch.randn(2, 3, 7, 8, dtype=torch.float64), dim=-1)
    global_ = F.normalize(torch.randn(3, 8, dtype=torch.float64), dim=-1)
    logits = torch.randn(2, 3, 7, 2, dtype=torch.float64)
    slow = scoring_slow.fuse(global_, patches, logits)
    torch.testing.assert_close(fuse(global_, patches, logits, 0.5), slow)


def test_no_fusion_is_the_global_embedding_itself() -> None:
    global_ = F.normalize(torch.randn(2, 8), dim=-1)
    patches = F.normalize(torch.randn(1, 2, 5, 8), dim=-1)
    assert torch.equal(fuse(global_, patches, torch.zeros(1, 2, 5, 2), 0.0), global_)


def test_the_fused_embedding_moves_towards_the_anomalous_patch() -> None:
    patches = torch.eye(4).reshape(1, 1, 4, 4)
    logits = torch.tensor([[-9.0, -9.0, -9.0, 9.0]]).reshape(1, 1, 4, 1)
    logits = torch.cat([-logits, logits], dim=-1)
    fused = fuse(torch.eye(4)[:1], patches, logits, 0.5)
    half = 0.5**0.5
    torch.testing.assert_close(fused, torch.tensor([[half, 0, 0, half]]), atol=1e-4, rtol=0)


def test_logits_are_similarities_over_the_temperature() -> None:
    torch.manual_seed(0)
    patches, text = torch.randn(2, 3, 5, 8).double(), torch.randn(3, 2, 8).double()
    ours = similarity_logits(patches, text, 0.07)
    torch.testing.assert_close(ours, scoring_slow.patch_logits(patches, text))
    one_pair = similarity_logits(patches, text[:1], 0.07)
    torch.testing.assert_close(one_pair, scoring_slow.patch_logits(patches, text[:1]))
    images = similarity_logits(patches[0], text, 0.01)
    torch.testing.assert_close(images, scoring_slow.patch_logits(patches[:1], text, 0.01)[0])
