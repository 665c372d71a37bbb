import numpy as np
import pytest
import torch
from PIL import Image

from crane.errors import UsageError
from crane.pictures.shortlist import RANKS, Shortlist
from crane.types import ANOMALOUS, NORMAL, Sample


@pytest.fixture
def samples(tmp_path):
    made = []
    for number in range(12):
        label, name = number % 2, ("nut", "bolt")[number % 3 == 0]
        path = tmp_path / f"{number:02d}.png"
        Image.new("RGB", (30, 20), (20 * number, 0, 0)).save(path)
        made.append((Sample(path, label, name, "bent" if label else "good"), number / 12))
    return made


def shortlist(choose="best", num_anomalous=1, num_normal=1):
    return Shortlist(choose=choose, num_anomalous=num_anomalous, num_normal=num_normal, tile=15)


def chosen(kept, samples):
    for sample, score in samples:
        kept.add(sample, score, torch.full((4, 6), score))
    return [(s.class_name, s.label, s.image.stem, place) for s, _, place in kept.chosen()]


def test_classes_in_order_of_names_and_normal_samples_first(samples):
    assert chosen(shortlist(), samples) == [
        ("bolt", NORMAL, "00", 0),
        ("bolt", ANOMALOUS, "09", 0),
        ("nut", NORMAL, "02", 0),
        ("nut", ANOMALOUS, "11", 0),
    ]


def test_the_worst_are_the_other_end(samples):
    found = chosen(shortlist("worst", num_anomalous=2), samples)
    assert [stem for name, label, stem, _ in found if (name, label) == ("nut", ANOMALOUS)] == [
        *("01", "05"),
    ]


@pytest.mark.parametrize("choose", RANKS)
def test_the_order_of_the_samples_does_not_matter(samples, choose):
    orders = [
        samples,
        samples[::-1],
        [samples[n] for n in np.random.default_rng(1).permutation(12)],
    ]
    first, *others = [chosen(shortlist(choose, num_anomalous=2), order) for order in orders]
    assert all(other == first for other in others)


def test_equal_scores_go_by_name(samples):
    equal = [(sample, 0.5) for sample, _ in samples]
    assert chosen(shortlist(), equal) == chosen(shortlist(), equal[::-1])


def test_a_random_choice_does_not_look_at_scores(samples):
    others = [(sample, 1 - score) for sample, score in samples]
    assert chosen(shortlist("random"), samples) == chosen(shortlist("random"), others)


def test_what_is_not_kept_is_not_opened(samples):
    kept = shortlist(num_anomalous=0)
    gone = Sample(samples[1][0].image.with_name("gone.png"), ANOMALOUS, "nut", "bent")
    kept.add(gone, 0.9, torch.zeros(2, 2))
    assert kept.chosen() == []


def test_what_is_kept_is_small(samples):
    kept = shortlist()
    mask = torch.zeros(40, 60, dtype=torch.int32)
    kept.add(samples[1][0], 0.5, torch.zeros(40, 60), mask)
    ((_, panel, _),) = kept.chosen()
    assert panel.image.shape == (10, 15, 3)
    assert panel.map.shape == panel.mask.shape == (10, 15)
    kept.clear()
    assert kept.chosen() == []


def test_unknown_choice():
    with pytest.raises(UsageError, match=r"random, best, worst.*overlay\.choose"):
        shortlist("nicest")
