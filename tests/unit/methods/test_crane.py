"""What must hold of the whole method: nothing but prompts learns, and images do not meet."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from torch import Tensor
from torch.nn import functional as F

from crane.errors import UsageError
from crane.methods import Crane, CraneLoss, Scoring, build_model
from crane.scoring import mean_of_softmax_maps
from reference.build import composed, furthest

SIZE = 56
CLOSE = 1e-5


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Five images of which no two have a mean in common, so that a batch mean would show."""
    noise = torch.rand(5, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return noise * torch.linspace(0.2, 1.0, 5).view(-1, 1, 1, 1)


@contextmanager
def context_in_testing(model: Crane, on: bool) -> Iterator[None]:
    before, model.prompts.context_in_testing = model.prompts.context_in_testing, on
    yield
    model.prompts.context_in_testing = before


def test_static_prompts_are_encoded_in_full_precision(model: Crane) -> None:
    """Once a test, so that it costs nothing; testing and predicting then agree."""
    with torch.autocast("cpu", torch.bfloat16):
        half = model.encode_classes(["object"])
    whole = model.encode_classes(["object"])
    assert half is not None
    assert whole is not None
    assert torch.equal(half, whole)


@pytest.mark.parametrize("with_context", [False, True])
@torch.no_grad()
def test_predictions_do_not_depend_on_batch_mates(
    model: Crane, images: Tensor, with_context: bool
) -> None:
    with context_in_testing(model, with_context):
        together = model(images)
        assert together.map.shape == (5, SIZE, SIZE)
        assert together.score.std() > 1e-5, "the images are told apart"
        for batch in ([0], [3], [4, 1], [2, 0, 3], [1, 1]):
            apart = model(images[batch])
            assert furthest(apart.score, together.score[batch]) < CLOSE
            assert furthest(apart.map, together.map[batch]) < CLOSE


@torch.no_grad()
def test_the_published_batch_mean_does_depend_on_them(images: Tensor) -> None:
    """The same comparison, where it has to fail."""
    overrides = ["backbone=tiny", "method=crane_plus", "guide=tiny", "guide.attention.mean=batch"]
    model = build_model(composed(*overrides))
    assert furthest(model(images[:1]).map, model(images).map[:1]) > CLOSE


@torch.no_grad()
def test_scores_and_maps_are_probabilities(model: Crane, images: Tensor) -> None:
    prediction = model(images)
    for values in prediction:
        assert torch.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() <= 1


@torch.no_grad()
def test_images_need_not_be_square(model: Crane) -> None:
    assert model(torch.rand(2, 3, 28, 70)).map.shape == (2, 28, 70)


@torch.no_grad()
def test_images_without_any_content_give_numbers(model: Crane) -> None:
    for values in model(torch.full((2, 3, SIZE, SIZE), 0.5)):
        assert torch.isfinite(values).all()


def test_nothing_but_prompts_learns(model: Crane, images: Tensor) -> None:
    model.train()
    assert model.training
    assert model.prompts.training
    for frozen in (model.vision, model.text):
        assert not any(module.training for module in frozen.modules())
    learned = {n for n, parameter in model.named_parameters() if parameter.requires_grad}
    assert learned == {"prompts.words.normal", "prompts.words.anomalous", "prompts.deep"}

    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss: CraneLoss = instantiate(composed().loss, _convert_="all")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    tokens = model.vision(images)
    assert not tokens.patches.requires_grad
    losses = loss(
        model,
        tokens,
        model.encode_prompts(tokens, with_context=True),
        mask=torch.ones(5, SIZE, SIZE, dtype=torch.int32),
        has_mask=torch.ones(5, dtype=torch.bool),
        label=torch.ones(5, dtype=torch.long),
    )
    losses.total.backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in learned), name
        assert torch.equal(parameter, before[name]) == (name not in learned), name
    with torch.no_grad():
        model.load_state_dict(before)
    model.zero_grad()
    model.eval()


def test_a_guide_stays_as_it_is_too(model: Crane) -> None:
    guide = model.train().vision.guide
    if guide is not None:
        assert not any(module.training for module in guide.modules())
        assert not any(parameter.requires_grad for parameter in guide.parameters())
    model.eval()


@pytest.mark.parametrize(("with_context", "length"), [(False, 17), (True, 18)])
@torch.no_grad()
def test_text_is_never_run_at_77(
    crane: Crane, images: Tensor, with_context: bool, length: int
) -> None:
    lengths = []
    hook = crane.text.blocks[0].register_forward_pre_hook(
        lambda _, given: lengths.append(given[0].shape[1])
    )
    with hook:
        tokens = crane.vision(images)
        cut = crane.encode_prompts(tokens, with_context=with_context)
        assert lengths == [length]
        rows, ends, deep = crane.prompts(tokens.global_ if with_context else None)
        padded = F.pad(rows, (0, 0, 0, 77 - rows.shape[1]), value=0.1)
        whole = F.normalize(crane.text(padded, ends, deep), dim=-1).unflatten(0, (-1, 2))
    assert lengths == [length, 77]
    assert furthest(cut, whole) < 1e-6


@torch.no_grad()
def test_static_prompts_are_encoded_once_for_all_images(crane: Crane, images: Tensor) -> None:
    tokens = crane.vision(images)
    assert crane.encode_prompts(tokens, with_context=False).shape == (1, 2, 128)
    with_context = crane.encode_prompts(tokens, with_context=True)
    assert with_context.shape == (5, 2, 128)
    assert furthest(with_context[0], with_context[4]) > 1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"temperature": 0.0}, r"temperature must be a number above 0, not 0\.0"),
        ({"temperature": -0.07}, "temperature must be a number above 0"),
        ({"temperature": float("inf")}, "temperature must be a number above 0, not inf"),
        ({"fusion_weight": 1.5}, r"fusion_weight must be a number from 0 to 1, not 1\.5"),
        ({"fusion_weight": -0.5}, "fusion_weight must be a number from 0 to 1"),
        ({"blur_sigma": -1.0}, r"blur_sigma must be a number from 0 to 1000, not -1\.0"),
        ({"blur_sigma": float("nan")}, "blur_sigma must be a number from 0 to 1000, not nan"),
        ({"blur_sigma": 1e6}, "blur_sigma must be a number from 0 to 1000, not 1000000"),
        ({"blur_sigma": "4"}, "blur_sigma must be a number from 0 to 1000, not '4'"),
    ],
)
def test_scoring_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(Scoring(0.07, mean_of_softmax_maps, 0.5, 4.0), **change)
