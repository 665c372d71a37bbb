import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from crane.config import compose
from crane.errors import UsageError
from crane.methods import build_model
from crane.metrics import AUROC, ImageScores, auroc
from crane.metrics.counts import ROUNDING, with_ties


def batch(num_images, num_classes=1, seed=0):
    rng = np.random.default_rng(seed)
    return (
        torch.from_numpy(rng.random(num_images, dtype=np.float32)),
        torch.from_numpy(rng.integers(0, 2, num_images)),
        torch.from_numpy(rng.permutation(num_images)),
        torch.from_numpy(rng.integers(0, num_classes, num_images)),
    )


def test_each_class_is_scored_on_its_own_images_exactly():
    state = ImageScores(num_classes=3, max_images=200)
    score, label, index, class_id = batch(200, num_classes=3)
    for part in range(0, 200, 7):
        chosen = slice(part, part + 7)
        state.update(score[chosen], label[chosen], index[chosen], class_id[chosen])
    for number, counts in enumerate(state.compute()):
        own = class_id == number
        wanted = sklearn.roc_auc_score(label[own].numpy(), score[own].numpy())
        assert auroc(counts).value == pytest.approx(wanted, abs=1e-12)
        assert auroc(counts).error == 0


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_images():
    counts = ImageScores(num_classes=1, max_images=3).compute()
    assert auroc(counts[0]).reason == "no image"


def test_more_images_than_there_is_room_for_are_refused_beforehand():
    with pytest.raises(UsageError, match=r"images\.max_images must be at least 4, .* not 3$"):
        ImageScores(1, 3, names=list("abcd"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_not_finite_scores_name_the_image(value):
    state = ImageScores(1, 10, names=[f"{i}.png" for i in range(10)])
    with pytest.raises(UsageError, match=r"score of image 7 \(7.png\)"):
        state.update(torch.tensor([0.1, value]), torch.tensor([0, 1]), torch.tensor([2, 7]))


@pytest.mark.parametrize("earlier", [[], [4], [3, 4]])
def test_a_repeated_image_is_named(earlier):
    state = ImageScores(1, 10)
    score, label = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0, 1, 1])
    state.update(score[: len(earlier)], label[: len(earlier)], torch.tensor(earlier).long())
    repeated = torch.tensor([1, 2, 4] if earlier else [1, 4, 4])
    with pytest.raises(UsageError, match=r"^image 4 was evaluated more than once"):
        state.update(score, label, repeated)


@pytest.mark.parametrize(
    ("label", "index", "class_id", "message"),
    [
        (2, 0, 0, r"labels must be 0 \(normal\) or 1 \(anomalous\), not \[2\]"),
        (1, 10, 0, r"indices must be from 0 to 9, not \[10\]; metrics.images.max_images sets"),
        (1, -1, 0, r"indices must be from 0 to 9, not \[-1\]"),
        (1, 0, 2, r"class ids must be from 0 to 1, not \[2\]"),
        (1, 0, -1, r"class ids must be from 0 to 1, not \[-1\]"),
    ],
)
def test_values_out_of_range_are_refused(label, index, class_id, message):
    state = ImageScores(2, 10)
    values = (torch.tensor([0.5]), *(torch.tensor([v]) for v in (label, index, class_id)))
    with pytest.raises(UsageError, match=message):
        state.update(*values)


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_reset_forgets():
    state = ImageScores(1, 20)
    score, label, index, _ = batch(20)
    for _ in range(2):
        state.update(score, label, index)
        state.reset()
    assert auroc(state.compute()[0]).reason == "no image"


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(-3, 3, width=32).map(lambda x: round(x, 2)), min_size=2, max_size=8),
    st.integers(0, 2**31),
)
def test_scores_within_rounding_are_ties_and_others_keep_their_order(clean, seed):
    """Noise of up to half of `ROUNDING` on copies changes nothing; a step of 0.01 does."""
    rng = np.random.default_rng(seed)
    copies = np.repeat(np.array(clean), 5)
    noisy = copies * (1 + rng.uniform(-0.5, 0.5, len(copies)) * ROUNDING / 2)
    _, wanted = np.unique(copies, return_inverse=True)
    _, found = np.unique(with_ties(noisy.astype(np.float32)), return_inverse=True)
    assert found.tolist() == wanted.tolist()


def test_crowded_scores_are_not_chained_into_one():
    scores = np.linspace(0.9999, 1, 5000, dtype=np.float32)
    levels = with_ties(scores)
    assert len(np.unique(levels)) > 30
    assert np.abs(levels - scores).max() <= ROUNDING
    assert (np.diff(levels) >= 0).all()


@pytest.mark.parametrize("size", [1, 5, 8, 12])
def test_copies_of_one_image_have_an_auroc_of_one_half(size, mini_scores):
    labels = torch.arange(12) % 2
    state = ImageScores(1, 12)
    state.update(mini_scores(size), labels, torch.arange(12))
    (counts,) = state.compute()
    assert auroc(counts).value == 0.5
    assert auroc(counts).error == 0
    assert AUROC()(mini_scores(size), labels) == 0.5


@pytest.fixture(scope="module")
def mini_scores():
    """Scores of 12 copies of an image by the embedded model, by batch size."""
    model = build_model(compose("train", ["method=crane", "backbone=mini"])).eval()
    noise = torch.rand(1, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    copies = torch.nn.functional.avg_pool2d(noise, 7, 1, 3).expand(12, -1, -1, -1)

    @functools.cache
    def scores(size):
        with torch.inference_mode():
            return torch.cat([model(batch).score for batch in copies.split(size)])

    return scores
