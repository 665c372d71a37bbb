"""Learned prompts: their sizes, their rows against the slow reference, and what is refused."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from crane import prompts
from crane.config import compose
from crane.errors import UsageError
from crane.prompts import PromptLearner, pad_suffix
from reference import crane_slow
from reference.build import StubText, stub_learner
from reference.generated import VOCABULARY

WORDS = {"normal": "object.", "anomalous": "damaged object."}


@pytest.fixture(scope="module")
def text() -> StubText:
    """A text tower 8 wide that tells all tokens of the prompts apart."""
    stub = StubText(8)
    weight = torch.zeros(VOCABULARY, 8)
    for ids in map(stub.tokenize, WORDS.values()):
        for token in ids.tolist():
            weight[token] = torch.randn(8, generator=torch.Generator().manual_seed(token))
    stub.token_embedding = torch.nn.Embedding.from_pretrained(weight)
    return stub


def test_the_published_number_of_parameters() -> None:
    learner = stub_learner(StubText(768))
    shapes = {name: tuple(p.shape) for name, p in learner.named_parameters()}
    assert shapes == {
        "words.normal": (12, 768),
        "words.anomalous": (12, 768),
        "deep": (8, 4, 768),
    }
    assert sum(p.numel() for p in learner.parameters()) == 43_008
    assert set(learner.state_dict()) == set(shapes), "checkpoints hold learned tensors only"


def test_prompts_begin_with_the_published_spread() -> None:
    torch.manual_seed(0)
    learner = stub_learner(StubText(768))
    for value in learner.parameters():
        assert value.mean().abs() < 1e-3
        assert value.std().item() == pytest.approx(0.02, rel=0.05)


def rounding(learner: PromptLearner) -> Tensor:
    rows = learner(None)
    return rows.deep[:, 0] - learner.deep


def test_deep_tokens_are_rounded_to_half_unless_told_otherwise(text: StubText) -> None:
    assert compose("train").prompt.round_deep_to_half is True
    torch.manual_seed(0)
    error = rounding(stub_learner(text))
    assert 0 < error.abs().max() < 1e-4
    rounded = stub_learner(text)
    assert torch.equal(rounded(None).deep[:, 1], rounded.deep.half().float())
    assert torch.equal(rounding(stub_learner(text, round_deep_to_half=False)), 0 * error)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.sampled_from(crane_slow.CONTEXT_MODES),
    st.integers(1, 14),
    st.integers(0, 3),
    st.booleans(),
)
def test_rows_equal_the_slow_sentences(
    text: StubText, mode: str, num_words: int, num_images: int, round_deep: bool
) -> None:
    static = mode == "none"
    learner = stub_learner(
        text,
        num_words=num_words,
        num_deep=1,
        context=None if static else getattr(prompts, mode),
        context_in_training=0.0 if static else 1.0,
        round_deep_to_half=round_deep,
    )
    context = None if static or num_images == 0 else torch.randn(num_images, 8)
    rows, ends, deep = learner(context)
    state = {
        "token_embedding.weight": text.token_embedding.weight,
        "positional_embedding": torch.zeros(77, 8),
    }
    words = {"ctx_pos": learner.words["normal"], "ctx_neg": learner.words["anomalous"]}
    images = [None] if context is None else list(context)
    pairs = [(image, which) for image in images for which in ("ctx_pos", "ctx_neg")]
    assert len(rows) == len(ends) == deep.shape[1] == len(pairs)
    for row, end, (image, which) in zip(rows, ends, pairs, strict=True):
        wanted, wanted_end = crane_slow.sentence(state, words, which, image, mode)
        assert int(end) == wanted_end
        assert torch.equal(row[: wanted_end + 1], wanted[: wanted_end + 1])
    assert rows.shape[1] == int(ends.max()) + 1, "cut at the longest row"
    assert deep.shape == (8, len(pairs), 1, 8)


def test_nothing_is_as_long_as_77(text: StubText) -> None:
    learner = stub_learner(text)
    assert learner(None).rows.shape[1] == 17
    assert learner(torch.randn(2, 8)).rows.shape[1] == 18


def test_every_learned_token_gets_a_gradient(text: StubText) -> None:
    learner = stub_learner(text)
    rows, _, deep = learner(torch.randn(3, 8))
    (rows.sum() + deep.sum()).backward()
    for value in learner.parameters():
        assert (value.grad != 0).all()


def test_without_deep_sets_nothing_waits_for_a_gradient(text: StubText) -> None:
    """DistributedDataParallel refuses a trained parameter that no loss depends on."""
    learner = stub_learner(text, depth=1)
    rows, _, deep = learner(torch.randn(3, 8))
    (rows.sum() + deep.sum()).backward()
    assert deep.numel() == 0
    for value in learner.parameters():
        assert not value.requires_grad or (value.grad is not None and (value.grad != 0).all())
    assert [value.requires_grad for value in learner.parameters()].count(True) == 2


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "words of one state": ({"words": {"normal": "object."}}, r"prompt\.words must have.*anomalous"),
    "the same words": (
        {"words": {"normal": "object.", "anomalous": "Object ."}},
        r"prompt\.words must differ for normal and anomalous images, but both are 'object\.'",
    ),
    "no depth": ({"depth": 0}, "depth must be an integer of at least 1, not 0"),
    "deeper than the tower": ({"depth": 13}, r"prompt\.depth must be at most 12, .*, not 13"),
    "no words": ({"num_words": 0}, "num_words must be an integer of at least 1, not 0"),
    "no deep tokens": ({"num_deep": 0}, "num_deep must be an integer of at least 1, not 0"),
    "half a token": ({"num_deep": 1.5}, r"num_deep must be an integer of at least 1, not 1\.5"),
    "too many words": ({"num_words": 80}, r"prompt\.num_words: .* 86 tokens.* reads 77"),
    "deep sets too long": ({"num_deep": 15}, r"prompt\.num_deep must be at most 14, .*, not 15"),
    "no probability": (
        {"context_in_training": 1.5},
        r"context_in_training must .* 0 to 1, not 1\.5",
    ),
    "nor this": ({"context_in_training": -0.1}, r"context_in_training must .* 0 to 1, not -0\.1"),
    "no spread": ({"init_std": -1.0}, r"init_std must be a number of at least 0, not -1\.0"),
    "static in training": ({"context": None}, r"set prompt\.context_in_training=0"),
    "static in testing": (
        {"context": None, "context_in_training": 0.0, "context_in_testing": True},
        r"prompt\.context_in_testing=false, or choose prompt=pad_suffix",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_sizes_that_do_not_fit_are_refused(name: str) -> None:
    changes, message = REFUSED[name]
    with pytest.raises(UsageError, match=message):
        stub_learner(StubText(8), **changes)


def test_the_longest_deep_set_ends_before_the_end_token(text: StubText) -> None:
    learner = stub_learner(text, num_deep=14)
    assert learner(None).ends.min() == 15


def test_an_image_is_no_word_of_another_width() -> None:
    narrow = StubText(8, joint_width=6)
    wanted = "joint width is 6 and its text width 8; choose another backbone, or prompt=none"
    with pytest.raises(UsageError, match=wanted):
        stub_learner(narrow)
    static = stub_learner(narrow, context=None, context_in_training=0.0)
    assert static(None).rows.shape == (2, 17, 8)


def test_static_prompts_take_no_image() -> None:
    static = stub_learner(StubText(8), context=None, context_in_training=0.0)
    with pytest.raises(UsageError, match="static prompts take no image"):
        static(torch.randn(2, 8))


def test_values_are_taken_over(text: StubText) -> None:
    first, second = stub_learner(text), stub_learner(text, context=pad_suffix)
    second.load(first.state_dict())
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name])


@pytest.mark.parametrize("change", [{"num_words": 3}, {"num_deep": 2}, {"depth": 4}])
def test_values_of_other_sizes_are_refused(text: StubText, change: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=r"checkpoint's prompts have the shapes .* backbone and"):
        stub_learner(text).load(stub_learner(text, **change).state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda deep: deep.long(), "the prompts under deep are int64, not real numbers"),
        (lambda deep: deep / 0, "the prompts under deep hold NaN or infinity"),
    ],
)
def test_values_that_are_no_real_numbers_are_refused(text: StubText, change, message) -> None:
    learner = stub_learner(text)
    values = learner.state_dict()
    with pytest.raises(UsageError, match=message):
        learner.load({**values, "deep": change(values["deep"])})
