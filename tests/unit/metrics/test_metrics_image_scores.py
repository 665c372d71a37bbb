import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from crane.errors import UsageError
from crane.metrics import ImageScores, auroc


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
