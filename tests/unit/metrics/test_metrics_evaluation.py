import dataclasses
import functools
import json
import math
from pathlib import Path

import hydra
import matplotlib as mpl
import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn

from crane.data.regions import label_regions
from crane.errors import UsageError
from crane.metrics import BinnedPixels, Evaluation, ImageScores, ScoreScale, auroc, f1_max

mpl.use("Agg")
ROOT = Path(__file__).parents[3]
NAMES = [
    "image_auroc",
    "image_ap",
    "image_f1max",
    "image_f1max_threshold",
    "pixel_auroc",
    "pixel_ap",
    "pixel_f1max",
    "pixel_f1max_threshold",
    "pixel_iou_max",
    "pixel_iou_max_threshold",
    "aupro",
    "aupro_05",
    "aupro_200",
    "aupro_small",
    "aupro_medium",
    "aupro_large",
]


def configured(option, num_classes, **given):
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose(overrides=[f"+metrics={option}"])
    return hydra.utils.instantiate(config.metrics)(num_classes=num_classes, **given)


def golden():
    with np.load(ROOT / "tests" / "data" / "metrics.npz") as stored:
        regions = [label_regions(mask > 0) for mask in stored["masks"]]
        data = {
            "score": torch.from_numpy(stored["image_scores"]),
            "map": torch.from_numpy(stored["maps"]),
            "label": torch.from_numpy(stored["image_labels"].astype(np.int64)),
            "mask": torch.from_numpy(np.stack(regions)),
            "has_mask": torch.ones(len(regions), dtype=torch.bool),
            "class_id": torch.from_numpy(stored["class_ids"]),
            "index": torch.arange(len(regions)),
        }
        return data, json.loads(str(stored["values_json"]))


def batches(data, size=5):
    for start in range(0, len(data["index"]), size):
        yield {name: values[start : start + size] for name, values in data.items()}


@pytest.mark.parametrize("option", ["default", "exact"])
def test_configured_metrics_reproduce_the_golden_values(option):
    data, values = golden()
    evaluation = configured(option, 3)
    for batch in batches(data):
        evaluation.update(**batch)
    results = evaluation.compute()
    assert list(results.mean) == list(results.per_class) == list(results.error) == NAMES
    theirs = {"aupro": "aupro_exact_8conn", "aupro_200": "aupro_official_200step"}
    for name in (*NAMES[:3], "pixel_auroc", "pixel_ap", "pixel_f1max", *theirs):
        for class_id in range(3):
            wanted = values[str(class_id)][theirs.get(name, name)]
            error = results.error[name][class_id]
            assert error < (1e-12 if option == "exact" else 0.01)
            assert abs(results.per_class[name][class_id] - wanted) <= error + 1e-9, name
        assert results.mean[name] == pytest.approx(np.mean(results.per_class[name]))
    # The golden maps are 64 x 64: every region is small, and the other sizes say so.
    assert results.reasons == {
        name: dict.fromkeys(range(3), "no region of this size")
        for name in ("aupro_medium", "aupro_large")
    }
    json.dumps(dataclasses.asdict(results))


def small(**changed):
    parts = {
        "images": functools.partial(ImageScores, max_images=100),
        "pixels": functools.partial(BinnedPixels, scale=ScoreScale(10, 12)),
        "image_measures": {"image_auroc": auroc, "image_f1max": f1_max},
        "pixel_measures": {"pixel_auroc": auroc, "pixel_f1max": f1_max},
    }
    return Evaluation(**{"num_classes": 3, **parts, **changed})


def one_label_data():
    """Class 0 has both labels, class 1 only normal images, class 2 anomalies without masks."""
    data, _ = golden()
    data["label"][data["class_id"] == 1] = 0
    data["mask"][data["class_id"] == 1] = 0
    data["label"][data["class_id"] == 2] = 1
    data["has_mask"][data["class_id"] == 2] = False
    return data


def test_classes_with_one_label_are_nan_left_out_and_explained():
    evaluation, data = small(), one_label_data()
    evaluation.update(**data)
    results = evaluation.compute()
    for name in ("image_auroc", "image_f1max", "image_f1max_threshold", "pixel_auroc"):
        values = results.per_class[name]
        assert [math.isnan(value) for value in values] == [False, True, True]
        assert results.mean[name] == values[0]
        assert results.mean_error[name] == results.error[name][0]
    assert results.reasons["image_auroc"] == {1: "no anomalous image", 2: "no normal image"}
    assert results.reasons["pixel_auroc"] == {1: "no anomalous pixel", 2: "no image with a mask"}


def test_images_without_masks_count_in_the_image_metrics():
    evaluation, data = small(), golden()[0]
    data["has_mask"] = torch.arange(24) % 2 == 0
    evaluation.update(**data)
    results = evaluation.compute()
    own = data["class_id"] == 0
    wanted = sklearn.roc_auc_score(data["label"][own], data["score"][own])
    assert results.per_class["image_auroc"][0] == pytest.approx(wanted)
    own &= data["has_mask"]
    wanted = sklearn.roc_auc_score(data["mask"][own].ravel() > 0, data["map"][own].ravel())
    assert results.per_class["pixel_auroc"][0] == pytest.approx(wanted, abs=1e-3)


def test_a_data_set_without_masks_has_nan_means_with_reasons():
    evaluation, data = small(), golden()[0]
    data["has_mask"][:] = False
    evaluation.update(**data)
    results = evaluation.compute()
    assert math.isnan(results.mean["pixel_auroc"])
    assert results.reasons["pixel_auroc"] == dict.fromkeys(range(3), "no image with a mask")
    assert "pixel_f1max_threshold" not in results.mean
    assert not math.isnan(results.mean["image_auroc"])


def test_broken_maps_and_repeated_images_are_named():
    names = [f"{i}.png" for i in range(24)]
    data, _ = golden()
    evaluation = small(names=names)
    evaluation.update(**data)
    with pytest.raises(UsageError, match=r"image 0 \(0.png\) more than once"):
        evaluation.update(**data)
    data["map"][9, 0, 0] = torch.nan
    with pytest.raises(UsageError, match=r"map of image 9 \(9.png\)"):
        small(names=names).update(**data)


def test_reset_starts_anew():
    evaluation, data = small(), golden()[0]
    evaluation.update(**data)
    first = evaluation.compute()
    evaluation.reset()
    evaluation.update(**data)
    assert evaluation.compute() == first
    assert not evaluation.state_dict()


def test_curves_and_plot():
    evaluation, data = small(), golden()[0]
    evaluation.update(**data)
    curves = evaluation.curves()
    assert set(curves) == {"image_roc", "image_pr", "pixel_roc", "pixel_pr", "pro"}
    area = sklearn.auc(curves["pixel_roc"][1].x, curves["pixel_roc"][1].y)
    assert area == pytest.approx(evaluation.compute().per_class["pixel_auroc"][1])
    figure, axes = evaluation.plot("pro", class_names=["a", "b", "c"])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "c"]
    assert evaluation.plot("image_pr", axes) == (figure, axes)
    with pytest.raises(UsageError, match="one of image_roc"):
        evaluation.plot("roc")


def test_one_name_for_two_metrics_is_refused():
    with pytest.raises(UsageError, match="a name of its own"):
        small(image_measures={"auroc": auroc}, pixel_measures={"auroc": auroc})
