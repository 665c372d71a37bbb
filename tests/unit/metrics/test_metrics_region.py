import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as sklearn

from crane.data.images import label_regions
from crane.errors import UsageError
from crane.metrics import (
    BinnedPixels,
    ExactPixels,
    ScoreScale,
    aupro,
    aupro_steps,
    auroc,
    average_precision,
    f1_max,
    iou_max,
)
from longer import one_by_default
from reference.aupro import exact_aupro, published_aupro

STANDARD = ScoreScale(octave_bits=10, linear_bits=17)
COARSE = ScoreScale(octave_bits=4, linear_bits=2)
GOLDEN = Path(__file__).parents[2] / "data" / "metrics.npz"
MEASURES = {
    "auroc": auroc,
    "ap": average_precision,
    "f1max": f1_max,
    "iou_max": iou_max,
    "aupro": functools.partial(aupro, limit=0.3),
    "aupro_05": functools.partial(aupro, limit=0.05),
    "aupro_full": functools.partial(aupro, limit=1.0),
    "aupro_small": functools.partial(aupro, limit=0.3, size_bin=0),
    "aupro_large": functools.partial(aupro, limit=0.3, size_bin=1),
    "aupro_200": functools.partial(aupro_steps, limit=0.3, num_steps=200),
    "aupro_5": functools.partial(aupro_steps, limit=0.9, num_steps=5),
}

few = settings(deadline=None, max_examples=40)

score = st.one_of(
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.floats(0, 1, width=32),
    st.floats(-3, 300, width=32),
    st.integers(0, 9).map(lambda k: 1 - k * 2.0**-24),
)


@st.composite
def images(draw, elements=score):
    """A few small maps, and masks that are not all normal nor all anomalous."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(2, 6)), draw(st.integers(2, 6)))
    maps = draw(arrays(np.float32, shape, elements=elements))
    masks = draw(arrays(bool, shape, elements=st.booleans()))
    assume(masks.any() and not masks.all())
    return maps, masks


def labelled(masks):
    regions = [label_regions(mask) for mask in masks]
    return torch.from_numpy(np.array(regions, dtype=np.int32).reshape(masks.shape))


def counts_of(state, maps, masks):
    state.update(torch.from_numpy(maps), labelled(masks))
    return state.compute()[0]


def exact(maps, masks, edges=(4,)):
    return counts_of(ExactPixels(1, edges), maps, masks)


def binned(maps, masks, scale=STANDARD, edges=(4,)):
    return counts_of(BinnedPixels(1, scale, edges), maps, masks)


@few
@given(images())
def test_exact_mode_agrees_with_scikit_learn(data):
    maps, masks = data
    counts, labels, scores = exact(maps, masks), masks.ravel(), maps.ravel()
    precision, recall, _ = sklearn.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert auroc(counts).value == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=1e-12)
    ap = sklearn.average_precision_score(labels, scores)
    assert average_precision(counts).value == pytest.approx(ap, abs=1e-12)
    assert f1_max(counts).value == pytest.approx(f1.max(), abs=1e-12)
    assert iou_max(counts).value == pytest.approx((f1 / (2 - f1)).max(), abs=1e-12)


@few
@given(images(), st.sampled_from([0.05, 0.3, 1.0]))
def test_exact_mode_agrees_with_the_slow_aupro(data, limit):
    maps, masks = data
    value = aupro(exact(maps, masks), limit)
    assert value.value == pytest.approx(exact_aupro(maps, masks, limit), abs=1e-12)
    assert value.error == 0


@few
@given(images())
def test_aupro_by_size_agrees_with_the_slow_aupro(data):
    maps, masks = data
    counts = exact(maps, masks)
    for size_bin, (low, high) in enumerate([(0, 4), (4, np.inf)]):
        value = aupro(counts, 0.3, size_bin)
        if counts.num_regions[size_bin]:
            assert value.value == pytest.approx(exact_aupro(maps, masks, 0.3, low, high), abs=1e-12)
        else:
            assert value.reason == "no region of this size"


@few
@given(images())
def test_published_aupro_agrees_with_the_slow_one(data):
    maps, masks = data
    value = aupro_steps(exact(maps, masks), limit=0.3, num_steps=200)
    with np.errstate(invalid="ignore"):
        try:
            wanted = published_aupro(maps, masks)
        except ValueError:  # no threshold is kept
            wanted = math.nan
    assert value.value == pytest.approx(wanted, abs=1e-12, nan_ok=True)
    assert math.isnan(wanted) == bool(value.reason)


def test_golden_values():
    with np.load(GOLDEN) as golden:
        maps, masks, class_ids = golden["maps"], golden["masks"] > 0, golden["class_ids"]
        values = json.loads(str(golden["values_json"]))
    names = {
        "auroc": "pixel_auroc",
        "ap": "pixel_ap",
        "f1max": "pixel_f1max",
        "aupro": "aupro_exact_8conn",
        "aupro_200": "aupro_official_200step",
    }
    for class_id in np.unique(class_ids):
        own = class_ids == class_id
        counts, in_bins = exact(maps[own], masks[own]), binned(maps[own], masks[own])
        assert counts.num_regions.sum() == values[str(class_id)]["regions"]
        for name, golden_name in names.items():
            wanted = values[str(class_id)][golden_name]
            assert MEASURES[name](counts).value == pytest.approx(wanted, abs=1e-9)
            streamed = MEASURES[name](in_bins)
            assert streamed.low - 1e-9 <= wanted <= streamed.high + 1e-9


@pytest.mark.parametrize("scale", one_by_default([COARSE, ScoreScale(4, 0)]))
@settings(deadline=None, max_examples=150)
@given(data=images())
@example(data=(np.float32([[[0.1, 0.11], [0.12, 0.13]]]), np.array([[[0, 1], [1, 0]]]) > 0))
def test_bounds_hold(scale, data):
    maps, masks = data
    true, coarse = exact(maps, masks), binned(maps, masks, scale)
    for name, measure in MEASURES.items():
        value, wanted = measure(coarse), measure(true).value
        if math.isnan(wanted) or value.reason:
            continue
        assert value.low - 1e-12 <= wanted <= value.high + 1e-12, name
        assert abs(value.value - wanted) <= value.error + 1e-12, name
        assert value.low <= value.value <= value.high, name


@pytest.mark.parametrize("limit", [0.3, 0.6])
def test_published_bounds_cover_thresholds_that_may_or_may_not_be_kept(limit):
    uncertain = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        maps, masks = rng.random((1, 5, 5), dtype=np.float32), rng.random((1, 5, 5)) > 0.6
        true, coarse = exact(maps, masks), binned(maps, masks, COARSE)
        wanted, value = (aupro_steps(counts, limit, num_steps=9) for counts in (true, coarse))
        if wanted.reason or value.reason:
            continue
        assert value.low - 1e-12 <= wanted.value <= value.high + 1e-12
        uncertain += value.low == 0
    assert uncertain < 75  # the bounds say something


@few
@given(images())
def test_thresholds_give_the_values_reported(data):
    maps, masks = data
    for counts in (exact(maps, masks), binned(maps, masks, COARSE)):
        predicted = maps >= f1_max(counts).threshold
        f1 = sklearn.f1_score(masks.ravel(), predicted.ravel())
        assert f1_max(counts).value == pytest.approx(f1, abs=1e-12)
        iou = (masks & (maps >= iou_max(counts).threshold)).sum() / (
            masks | (maps >= iou_max(counts).threshold)
        ).sum()
        assert iou_max(counts).value == pytest.approx(iou, abs=1e-12)


@few
@given(images(), st.randoms(use_true_random=False))
def test_values_do_not_depend_on_order_or_batches(data, random):
    maps, masks = data
    order = random.sample(range(len(maps)), len(maps))
    state = BinnedPixels(1, COARSE, (4,))
    for i in order:
        state.update(torch.from_numpy(maps[[i]]), labelled(masks[[i]]))
    for at_once, one_by_one in zip(binned(maps, masks, COARSE), state.compute()[0], strict=True):
        if isinstance(at_once, np.ndarray):
            np.testing.assert_allclose(at_once, one_by_one, rtol=1e-12)


def realistic(num_images, size, sharpness):
    """Smooth noise with blobs, some of them on defects; sharpness 1 soft, 6 saturated."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size]
    maps, masks = [], []
    for _ in range(num_images):
        coarse = torch.from_numpy(rng.normal(size=(1, 1, 12, 12)))
        noise = torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")[0, 0].numpy()
        mask, logit = np.zeros((size, size), dtype=bool), noise - 3
        for _ in range(3):
            centre, radius = rng.uniform(0, size, 2), rng.uniform(4, size / 6)
            distance = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / radius**2
            mask |= distance < 1
            logit += rng.uniform(0, 6) * np.exp(-distance / 2)
        maps.append(1 / (1 + np.exp(-sharpness * logit)))
        masks.append(mask)
    return np.stack(maps).astype(np.float32), np.stack(masks)


@pytest.mark.parametrize("sharpness", [0.3, 1, 6])
def test_bounds_are_small_on_realistic_maps(sharpness):
    maps, masks = realistic(10, 256, sharpness)
    true, streamed = exact(maps, masks, (200,)), binned(maps, masks, edges=(200,))
    for name, measure in MEASURES.items():
        value = measure(streamed)
        assert abs(value.value - measure(true).value) <= value.error + 1e-12, name
        assert value.error < 1e-4 or name == "aupro_5", (name, value)


def test_constant_maps():
    maps, masks = np.full((2, 4, 4), 0.7, dtype=np.float32), np.zeros((2, 4, 4), dtype=bool)
    masks[0, 0, 0] = True
    for counts in (exact(maps, masks), binned(maps, masks)):
        assert MEASURES["auroc"](counts).value == pytest.approx(0.5)
        # The one segment from (0, 0) to (1, 1), cut at 0.3: half of 0.3 * 0.3, divided by 0.3.
        assert MEASURES["aupro"](counts).value == pytest.approx(0.15)
        assert MEASURES["aupro"](counts).error == 0
        assert MEASURES["aupro_200"](counts).reason == "all scores are equal"


def test_each_region_counts_the_same_whatever_its_size():
    masks = np.zeros((1, 8, 8), dtype=bool)
    masks[0, 0, 0], masks[0, 4:, 4:] = True, True
    maps = np.where(masks, 0.2, 0.1).astype(np.float32)
    maps[0, 0, 0] = 0.9
    maps[0, 4:, 4:] = 0.0
    assert aupro(exact(maps, masks), 1.0).value == pytest.approx(0.5)


def test_published_aupro_without_two_thresholds_says_so():
    masks = np.zeros((1, 4, 4), dtype=bool)
    masks[0, 0, 0] = True
    maps = np.ones((1, 4, 4), dtype=np.float32)
    maps[0, 3, 3] = 0.0
    value = aupro_steps(exact(maps, masks), limit=0.3, num_steps=200)
    assert value.reason == "fewer than two of the 200 thresholds have an FPR below 0.3"


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        (np.zeros((0, 3, 3), dtype=bool), "no image with a mask"),
        (np.zeros((1, 3, 3), dtype=bool), "no region"),
        (np.ones((1, 3, 3), dtype=bool), "no normal pixel"),
    ],
)
@pytest.mark.parametrize("mode", [exact, binned])
def test_undefined_region_metrics_give_the_reason(masks, reason, mode):
    maps = np.linspace(0, 1, masks.size).reshape(masks.shape).astype(np.float32)
    counts = mode(maps, masks)
    for name in ("aupro", "aupro_200"):
        assert math.isnan(MEASURES[name](counts).value)
        assert MEASURES[name](counts).reason == reason


@pytest.mark.parametrize(
    ("measure", "wrong", "message"),
    [
        (aupro, {"limit": 0.0}, "limit must be a number above 0 and of at most 1, not 0.0"),
        (aupro, {"limit": 1.1}, "limit must be a number above 0 and of at most 1, not 1.1"),
        (aupro, {"limit": math.nan}, "limit must be a number above 0 and of at most 1, not nan"),
        (aupro, {"limit": 0.3, "size_bin": -1}, "size_bin must be an integer of at least 0"),
        (aupro, {"limit": 0.3, "size_bin": 2}, "size_bin must be below 2, .* not 2; metrics"),
        (aupro_steps, {"limit": 2, "num_steps": 200}, "limit must be a number above 0"),
        (aupro_steps, {"limit": 0.3, "num_steps": 1}, "num_steps must be .* of at least 2, not 1"),
    ],
)
def test_settings_out_of_range_are_refused(measure, wrong, message):
    counts = exact(*realistic(1, 32, 1))
    with pytest.raises(UsageError, match=message):
        measure(counts, **wrong)
