import inspect

import matplotlib as mpl
import numpy as np
import pytest
import torch
from torchmetrics import Metric, MetricCollection

from crane import metrics
from crane.data.regions import label_regions

mpl.use("Agg")
SCALE = metrics.ScoreScale(octave_bits=6, linear_bits=8)
IMAGE = {
    "auroc": (metrics.ImageAUROC, metrics.auroc),
    "ap": (metrics.ImageAP, metrics.average_precision),
    "f1max": (metrics.ImageF1Max, metrics.f1_max),
}
PIXEL = {
    "auroc": (metrics.PixelAUROC, {}, metrics.auroc),
    "ap": (metrics.PixelAP, {}, metrics.average_precision),
    "f1max": (metrics.PixelF1Max, {}, metrics.f1_max),
    "iou_max": (metrics.PixelIoUMax, {}, metrics.iou_max),
    "aupro": (metrics.AUPRO, {"limit": 0.3}, metrics.aupro),
    "aupro_200": (metrics.PublishedAUPRO, {"limit": 0.3, "num_steps": 200}, metrics.aupro_steps),
}


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    masks = rng.random((8, 12, 12)) > 0.8
    labelled = np.stack([label_regions(mask) for mask in masks])
    scores = rng.random(masks.shape, dtype=np.float32) + 0.3 * masks
    return torch.from_numpy(scores.astype(np.float32)), torch.from_numpy(labelled)


CLASS_ID = torch.arange(8) % 2


@pytest.mark.parametrize("name", PIXEL)
def test_pixel_metrics_give_their_measure_per_class(name, maps):
    build, settings, measure = PIXEL[name]
    metric = build(num_classes=3, scale=SCALE, **settings)
    state = metrics.BinnedPixels(3, SCALE)
    for each in (metric, state):
        each.update(*maps, CLASS_ID)
    wanted = [measure(counts, **settings) for counts in state.compute()]
    assert metric.compute().tolist() == pytest.approx([v.value for v in wanted], nan_ok=True)
    assert [value.error for value in metric.values[:2]] == [value.error for value in wanted[:2]]
    assert metric.values[2].reason == "no image with a mask"
    assert isinstance(metric, Metric)


@pytest.mark.parametrize("name", IMAGE)
def test_image_metrics_give_their_measure_per_class(name):
    build, measure = IMAGE[name]
    metric, state = build(num_classes=2, max_images=9), metrics.ImageScores(2, 9)
    label = torch.tensor([0, 1, 1, 0, 0, 0, 1, 1])
    score = torch.tensor([0.5, 0.1, 0.6, 0.2, 0.9, 0.5, 0.7, 0.7])
    for each in (metric, state):
        each.update(score, label, torch.arange(8), CLASS_ID)
    wanted = [measure(counts).value for counts in state.compute()]
    assert metric.compute().tolist() == pytest.approx(wanted)


def test_they_work_in_a_collection_and_plot(maps):
    settings = {name: {"num_classes": 2, "scale": SCALE, **PIXEL[name][1]} for name in PIXEL}
    built = MetricCollection({name: PIXEL[name][0](**settings[name]) for name in PIXEL})
    built.update(*maps, CLASS_ID)
    values = built.compute()
    assert set(values) == set(PIXEL)
    figure, axes = built["auroc"].plot()
    assert figure is axes.figure


def test_everything_public_is_documented_and_exported():
    for name in metrics.__all__:
        assert inspect.getdoc(getattr(metrics, name)) or name == "Measure"
