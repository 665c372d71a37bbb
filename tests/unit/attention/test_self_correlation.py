"""E-Attn's correlations against the slow reference, one head and one image at a time."""

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crane.attention import JointSelfCorrelation, SecondStream, SumOfSelfCorrelations
from crane.config import compose
from crane.errors import UsageError
from reference.build import ATTENTION_OPTION
from reference.crane_slow import VARIANTS, e_attn_weights


def correlation(variant: str) -> SumOfSelfCorrelations | JointSelfCorrelation:
    """The correlation of an option of the attention group."""
    option = ATTENTION_OPTION.get(variant, variant)
    stream = instantiate(compose("train", [f"attention={option}"]).attention, _convert_="all")
    assert isinstance(stream, SecondStream)
    return stream.correlation


def slowly(variant: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = torch.empty_like(v)
    for image in range(v.shape[0]):
        for head in range(v.shape[1]):
            one = (image, head)
            out[one] = e_attn_weights(variant, q[one], k[one], v[one]) @ v[one]
    return out


CORRELATIONS = {variant: correlation(variant) for variant in VARIANTS}


@pytest.mark.parametrize("variant", VARIANTS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.data())
def test_every_variant_equals_the_slow_one(variant: str, data: st.DataObject) -> None:
    shape = [data.draw(st.integers(1, most)) for most in (3, 3, 12, 70)]
    torch.manual_seed(data.draw(st.integers(0, 10_000)))
    scale = data.draw(st.sampled_from([0.01, 1.0, 30.0]))
    q, k, v = (scale * torch.randn(shape, dtype=torch.float64) for _ in range(3))
    torch.testing.assert_close(CORRELATIONS[variant](q, k, v), slowly(variant, q, k, v))


def test_variants_are_sums_not_means() -> None:
    t = torch.randn(1, 1, 6, 4, dtype=torch.float64)
    ones = torch.ones_like(t)  # rows of one A(t) sum to 1
    for variant, num_terms in [("qq", 1), ("qq+kk", 2), ("qq+kk+vv", 3), ("(q+k+v)^2", 1)]:
        torch.testing.assert_close(CORRELATIONS[variant](t, t, ones), num_terms * ones)


def test_every_variant_is_another() -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 2, 6, 4).unbind()
    results = [CORRELATIONS[variant](q, k, v) for variant in VARIANTS]
    for i, one in enumerate(results):
        for other in results[i + 1 :]:
            assert not torch.allclose(one, other, atol=1e-3)


def test_plain_clip_has_no_second_stream() -> None:
    stream = instantiate(compose("train", ["attention=clip"]).attention, _convert_="all")
    assert stream == SecondStream(None, 0)


@pytest.mark.parametrize("of", [[], ["x"], ["q", "q"], ["q", "kv"]])
def test_terms_that_make_no_sense_are_refused(of: list[str]) -> None:
    with pytest.raises(UsageError, match=r"of must .* q, k (and|or) v.* not \["):
        SumOfSelfCorrelations(of)


@pytest.mark.parametrize(
    ("correlation", "num_blocks", "message"),
    [
        (SumOfSelfCorrelations(["q"]), -1, "num_blocks must be an integer of at least 0, not -1"),
        (SumOfSelfCorrelations(["q"]), 1.0, r"num_blocks must be an integer .*, not 1\.0"),
        (SumOfSelfCorrelations(["q"]), 0, "one of 0 blocks takes none"),
        (None, 2, "1 block or more needs a correlation"),
    ],
)
def test_streams_that_make_no_sense_are_refused(correlation, num_blocks, message) -> None:
    with pytest.raises(UsageError, match=message):
        SecondStream(correlation, num_blocks)
