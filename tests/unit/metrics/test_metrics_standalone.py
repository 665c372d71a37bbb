"""Metrics to import: scores and masks as they come, beside torchmetrics' own, against others."""

import copy
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sklearn
from torchmetrics import MetricCollection
from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision

from crane.errors import UsageError
from crane.metrics import (
    AUPRO,
    AUROC,
    AveragePrecision,
    BinnedPixels,
    F1Max,
    ImageScores,
    IoUMax,
    ScoreScale,
    functional,
    region_numbers,
    state,
)
from crane.samples import label_regions
from reference.aupro import exact_aupro

ALL = (AUPRO, AUROC, AveragePrecision, F1Max, IoUMax)


def batch(num_images=6, size=16, seed=0):
    rng = np.random.default_rng(seed)
    masks = rng.random((num_images, size, size)) > 0.85
    masks[::3] = False
    maps = rng.normal(masks, 1).astype(np.float32)
    return torch.from_numpy(maps), torch.from_numpy(masks)


def reference(maps, masks, limit=0.3):
    regions = [label_regions(mask) for mask in masks.numpy()]
    return exact_aupro(maps.numpy(), np.stack(regions), limit)


def test_aupro_is_the_reference_over_several_updates():
    maps, masks = batch()
    metric = AUPRO()
    for part in range(0, 6, 2):
        metric.update(maps[part : part + 2], masks[part : part + 2])
    wanted = pytest.approx(reference(maps, masks), abs=1e-6)
    assert metric.compute().item() == wanted
    assert AUPRO()(maps, masks).item() == wanted
    assert functional.aupro(maps, masks).item() == wanted
    assert functional.aupro(maps.numpy(), masks.numpy()).item() == wanted
    assert functional.aupro(preds=maps, target=masks).item() == wanted
    strict = pytest.approx(reference(maps, masks, 0.05), abs=1e-6)
    assert AUPRO(limit=0.05)(maps, masks).item() == strict
    assert functional.aupro(maps, masks, limit=0.05).item() == strict


@pytest.mark.parametrize(
    "form",
    [
        lambda m: m.long(),
        lambda m: m.to(torch.uint8) * 255,
        lambda m: m.double(),
        lambda m: m.to(torch.bfloat16),
        lambda m: m.unsqueeze(1),
        lambda m: torch.from_numpy(np.stack([label_regions(one) for one in m.numpy()])),
    ],
)
def test_masks_of_any_form_give_the_same(form):
    maps, masks = batch()
    given = form(masks)
    assert AUPRO()(maps.reshape(given.shape), given) == AUPRO()(maps, masks)
    one = torch.stack([functional.aupro(a, b) for a, b in zip(maps[1:3], given[1:3], strict=True)])
    two = torch.stack([functional.aupro(a, b) for a, b in zip(maps[1:3], masks[1:3], strict=True)])
    assert torch.equal(one, two)


@settings(deadline=None, max_examples=60)
@given(arrays(np.uint8, (5, 6), elements=st.integers(0, 3)))
def test_numbers_are_regions_or_are_refused(mask):
    """Each value is one connected region, or all nonzero values are equal."""
    values = [value for value in np.unique(mask) if value]
    torn = [v for v in values if label_regions(mask == v).max() > 1]
    if len(values) > 1 and torn:
        with pytest.raises(UsageError, match=rf"^the mask of image 0 .* of which {torn[0]} lies"):
            region_numbers(torch.from_numpy(mask[None]))
        return
    (found,) = region_numbers(torch.from_numpy(mask[None])).numpy()
    assert ((found > 0) == (mask > 0)).all()
    if len(values) > 1:
        assert all(len(np.unique(found[mask == value])) == 1 for value in values)
        assert found.max() == len(values)
    else:
        assert (found == label_regions(mask > 0)).all()


def test_touching_regions_of_their_own_numbers_stay_apart():
    mask = torch.arange(1, 5).reshape(1, 2, 2)
    maps = torch.cat([torch.rand(1, 2, 2), torch.zeros(1, 2, 2)])
    masks = torch.cat([mask, torch.zeros_like(mask)])
    counts = BinnedPixels(1, ScoreScale(10, 17))
    counts.update(maps, masks)
    assert counts.compute()[0].num_regions.tolist() == [4]
    assert AUPRO()(maps, masks).isfinite()


def test_beside_torchmetrics_in_a_collection():
    maps, masks = batch()
    collection = MetricCollection(
        {"aupro": AUPRO(), "strict": AUPRO(limit=0.05), "auroc": AUROC(), "f1": F1Max()}
        | {"theirs": BinaryAUROC(), "ap": AveragePrecision(), "their_ap": BinaryAveragePrecision()}
    )
    # First normal images only: the states of AUPRO and AUROC are equal, and must not be shared.
    for part in (slice(0, 1), slice(1, 3), slice(3, 6)):
        collection.update(preds=maps[part], target=masks[part].long())
    found = collection.compute()
    assert found["aupro"].item() == pytest.approx(reference(maps, masks), abs=1e-6)
    assert found["strict"].item() == pytest.approx(reference(maps, masks, 0.05), abs=1e-6)
    assert found["auroc"].item() == pytest.approx(found["theirs"].item(), abs=1e-6)
    assert found["ap"].item() == pytest.approx(found["their_ap"].item(), abs=1e-6)
    collection.reset()
    assert set(collection(maps, masks.long())) == set(found)


def test_images_against_scikit_learn():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 60)
    scores = np.round(rng.normal(labels, 1), 1)
    wanted = sklearn.roc_auc_score(labels, scores)
    for value in (
        AUROC()(torch.from_numpy(scores), torch.from_numpy(labels)),
        functional.image_auroc(scores, labels > 0),
        functional.auroc(list(scores), list(labels)),
    ):
        assert value.item() == pytest.approx(wanted, abs=1e-6)
    precision, recall, _ = sklearn.precision_recall_curve(labels, scores)
    best = np.nanmax(2 * precision * recall / (precision + recall))
    assert functional.f1_max(scores, labels).item() == pytest.approx(best, abs=1e-6)
    maps, masks = batch()
    wanted = sklearn.roc_auc_score(masks.flatten().numpy(), maps.flatten().numpy())
    assert functional.pixel_auroc(maps, masks).item() == pytest.approx(wanted, abs=1e-6)
    assert functional.auroc(maps, masks).item() == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("metric", [*ALL, lambda: BinnedPixels(1, ScoreScale(10, 17))])
def test_other_types_lose_nothing(metric):
    maps, masks = batch()
    one, two = metric(), metric()
    one.update(maps, masks)
    two.to(torch.float16).half().update(maps, masks)
    two.to(torch.bfloat16).double()
    for name in one._defaults:
        ours, theirs = getattr(one, name), getattr(two, name)
        for a, b in zip([ours], [theirs], strict=True) if torch.is_tensor(ours) else ():
            assert a.dtype == b.dtype
            assert torch.equal(a, b)
    if metric is AUPRO:
        assert one.compute() == two.compute()
        assert metric()(maps.half(), masks).item() == pytest.approx(one.compute().item(), abs=2e-3)


@pytest.mark.parametrize("metric", [AUPRO, AUROC, lambda: BinnedPixels(1, ScoreScale(10, 17))])
def test_a_device_without_float64_is_counted_on_the_host(metric, monkeypatch):
    """`meta` stands in for `mps`: a state that moved there would have lost its numbers."""
    monkeypatch.setattr(state, "WITHOUT_FLOAT64", frozenset({"meta"}))
    maps, masks = batch()
    counted, stayed = metric(), metric()
    counted.update(maps, masks)
    stayed.update(maps, masks)
    stayed.to("meta")
    stayed.reset()
    stayed.update(maps, masks)
    assert stayed.device.type == "cpu"
    for name in counted._defaults:
        for a, b in (
            zip(*(list(getattr(m, name)) for m in (counted, stayed)), strict=True)
            if (isinstance(getattr(counted, name), list))
            else [(getattr(counted, name), getattr(stayed, name))]
        ):
            assert torch.equal(a, b)


def test_the_index_of_images_is_optional():
    scores, labels = torch.tensor([0.1, 0.9, 0.4]), torch.tensor([0, 1, 1])
    one, two = ImageScores(1, 10), ImageScores(1, 10)
    one.update(scores, labels, torch.arange(3))
    for part in (slice(0, 2), slice(2, 3)):
        two(scores[part], labels[part])
    assert two.compute()[0].lower.tolist() == one.compute()[0].lower.tolist()
    for _ in range(5):
        two.reset()
        two.update(scores, labels)
    assert two.compute()[0].positives.sum() == 2
    with pytest.raises(UsageError, match="evaluated more than once"):
        two.update(torch.rand(8), torch.ones(8).long())


MAPS = torch.rand(2, 4, 4)


@pytest.mark.parametrize(
    ("maps", "masks", "said"),
    [
        (MAPS, torch.zeros(2, 4, 5), "same shape, not (2, 4, 4) and (2, 4, 5)"),
        (MAPS.flatten(), MAPS.flatten() > 1, "maps must have the shape (images, height, width), "),
        (torch.rand(2, 3, 4, 4), torch.zeros(2, 3, 4, 4), "or (height, width), not (2, 3, 4, 4)"),
        (torch.rand(2, 0, 4), torch.zeros(2, 0, 4), "not (2, 0, 4)"),
        (MAPS, MAPS, "masks must hold true and false, 0 and 1, or the numbers of regions, not 0."),
        (MAPS, torch.full((2, 4, 4), torch.nan), "regions, not nan (image 0)"),
        (MAPS, -torch.ones(2, 4, 4).int(), "regions, not -1 (image 0)"),
        (MAPS, MAPS.to(torch.complex64), "regions, not complex64"),
        (MAPS > 1, MAPS > 1, "scores must be real numbers, not bool"),
        (MAPS.log().clamp(max=0) / 0, MAPS > 1, "in the scores of image 0"),
        ("maps.npy", MAPS > 1, "scores must be a tensor or an array of numbers, not str"),
        (MAPS, [["a"]], "masks must be a tensor or an array of numbers, not list"),
    ],
)
@pytest.mark.parametrize("compute", [lambda *a: AUPRO()(*a), functional.aupro])
def test_what_is_no_map_or_mask_is_refused_in_one_sentence(compute, maps, masks, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        compute(maps, masks)


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        ([0.1, 0.2], [0, 2], "targets must be 0 (normal) or 1 (anomalous), not 2"),
        ([0.1, 0.2], [0.0, 0.5], "not 0.5"),
        ([0.1, 0.2], [1], "same shape, with at least one axis, not (2,) and (1,)"),
        (0.1, 1, "at least one axis, not () and ()"),
        ([0.1, float("nan")], [0, 1], "NaN or infinity in the scores of image 1"),
    ],
)
@pytest.mark.parametrize("compute", [lambda *a: AUROC()(*a), functional.auroc])
def test_what_is_no_score_or_label_is_refused_in_one_sentence(compute, scores, labels, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        compute(np.array(scores), np.array(labels))


def test_image_scores_have_one_axis_and_limits_are_checked():
    with pytest.raises(UsageError, match=r"one axis, not the shape \(2, 4, 4\); see pixel_auroc"):
        functional.image_auroc(MAPS, MAPS > 1)
    with pytest.raises(UsageError, match="limit must be a number above 0 and of at most 1, not 30"):
        AUPRO(limit=30)


@pytest.mark.parametrize("metric", ALL)
def test_an_undefined_metric_is_nan_and_says_why(metric):
    with pytest.warns(UserWarning, match=f"{metric.__name__} is undefined and therefore NaN: no"):
        assert metric()(MAPS, MAPS > 1).isnan()


def test_targets_are_needed():
    with pytest.raises(UsageError, match=r"^aupro takes scores and targets, or counts$"):
        functional.aupro(MAPS)


def test_copies_are_independent():
    maps, masks = batch()
    one = AUPRO()
    one.update(maps, masks)
    two = copy.deepcopy(one)
    two.update(maps[:1] * 0 + 5, masks[:1])
    assert one.compute().item() == pytest.approx(reference(maps, masks), abs=1e-6)
    assert two.compute() < one.compute()
