import functools
import importlib
import inspect
import json
import math
import pkgutil
import re
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from sklearn import metrics as sklearn
from torchmetrics import MetricCollection

from crane.data.images import label_regions
from crane.errors import UsageError
from crane.gate import build
from crane.metrics import BinnedPixels, Evaluation, ImageScores, ScoreScale, auroc, f1_max

ROOT = Path(__file__).parents[3]
CLASSES = ("nut", "bolt", "washer")


def configured(option):
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return hydra.compose(overrides=[f"+metrics={option}"]).metrics


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


OPTIONS = sorted(path.stem for path in (ROOT / "conf" / "metrics").glob("*.yaml"))


@pytest.mark.parametrize("option", OPTIONS)
def test_configured_metrics_reproduce_the_golden_values(option):
    data, values = golden()
    config = configured(option)
    evaluation = hydra.utils.instantiate(config)(class_names=CLASSES)
    for batch in batches(data):
        evaluation.update(**batch)
    result = evaluation.compute()
    assert list(result.means) == list(result.values) == list(result.bounds)
    named = [name for name in result.means if not name.endswith("_threshold")]
    assert named == [*config.image_measures, *config.pixel_measures]
    theirs = {"aupro": "aupro_exact_8conn", "aupro_200": "aupro_official_200step"}
    golden_names = {name: theirs.get(name, name) for name in named}
    golden_names = {ours: name for ours, name in golden_names.items() if name in values["0"]}
    assert len(golden_names) >= 8
    for ours, name in golden_names.items():
        for class_id in range(3):
            error = result.bounds[ours][class_id]
            assert error < (1e-12 if option == "exact" else 0.01)
            wanted = values[str(class_id)][name]
            assert abs(result.values[ours][class_id] - wanted) <= error + 1e-9, ours
        assert result.means[ours] == pytest.approx(np.mean(result.values[ours]))
    # The golden maps are 64 x 64: every region is small, and the other sizes say so.
    assert result.reasons == {
        (name, class_name): "no region of this size"
        for name in ("aupro_medium", "aupro_large")
        for class_name in CLASSES
    }
    labels, owner = data["label"], data["class_id"]
    for class_id in range(3):
        own = labels[owner == class_id]
        counts = result.num_normal[class_id], result.num_anomalous[class_id]
        assert counts == ((own == 0).sum(), (own == 1).sum())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("pixel_measures.aupro.limit", 1.5, "must be a number above 0 and of at most 1, not 1.5"),
        ("pixel_measures.aupro_small.size_bin", -1, "must be an integer of at least 0, or null"),
        ("pixel_measures.aupro_200.num_steps", 1, "must be an integer of at least 2, not 1"),
        ("pixels.scale.octave_bits", 10.5, "must be an integer from 4 to 16, not 10.5"),
        ("pixels.scale.linear_bits", True, "must be an integer from 0 to 22, not true"),
        ("pixels.size_edges", [0, 5], "must be a list, each entry an integer of at least 1"),
        ("images.max_images", "many", "must be an integer of at least 1, not 'many'"),
    ],
)
def test_wrong_settings_are_refused_by_their_key(key, value, message):
    config = configured("default")
    OmegaConf.update(config, key, value)
    with pytest.raises(UsageError, match=re.escape(f"metrics.{key} {message}")):
        build(config, "metrics")


def test_the_scale_is_the_default_of_python_too():
    assert BinnedPixels().scale == build(configured("default").pixels.scale, "scale")


def test_every_metrics_option_shares_its_size_bins():
    assert len({str(configured(option).pixels.size_edges) for option in OPTIONS}) == 1


def small(**changed):
    parts = {
        "images": functools.partial(ImageScores, max_images=100),
        "pixels": functools.partial(BinnedPixels, scale=ScoreScale(10, 12)),
        "image_measures": {"image_auroc": auroc, "image_f1max": f1_max},
        "pixel_measures": {"pixel_auroc": auroc, "pixel_f1max": f1_max},
    }
    return Evaluation(**{"class_names": CLASSES, **parts, **changed})


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
        values = results.values[name]
        assert [math.isnan(value) for value in values] == [False, True, True]
        assert results.means[name] == values[0]
        assert results.mean_bounds[name] == results.bounds[name][0]
    assert results.reasons["image_auroc", "bolt"] == "no anomalous image"
    assert results.reasons["image_auroc", "washer"] == "no normal image"
    assert results.reasons["pixel_auroc", "bolt"] == "no anomalous pixel"
    assert results.reasons["pixel_auroc", "washer"] == "no image with a mask"
    assert not any(class_name == "nut" for _, class_name in results.reasons)
    assert (results.num_normal[1:], results.num_anomalous[1:]) == ((8, 0), (0, 8))


def test_images_without_masks_count_in_the_image_metrics():
    evaluation, data = small(), golden()[0]
    data["has_mask"] = torch.arange(24) % 2 == 0
    evaluation.update(**data)
    results = evaluation.compute()
    own = data["class_id"] == 0
    wanted = sklearn.roc_auc_score(data["label"][own], data["score"][own])
    assert results.values["image_auroc"][0] == pytest.approx(wanted)
    own &= data["has_mask"]
    wanted = sklearn.roc_auc_score(data["mask"][own].ravel() > 0, data["map"][own].ravel())
    assert results.values["pixel_auroc"][0] == pytest.approx(wanted, abs=1e-3)


def test_a_data_set_without_masks_has_nan_means_with_reasons():
    evaluation, data = small(), golden()[0]
    data["has_mask"][:] = False
    evaluation.update(**data)
    results = evaluation.compute()
    assert math.isnan(results.means["pixel_auroc"])
    assert {results.reasons["pixel_auroc", name] for name in CLASSES} == {"no image with a mask"}
    assert "pixel_f1max_threshold" not in results.means
    assert not math.isnan(results.means["image_auroc"])


def test_broken_maps_and_repeated_images_are_named():
    names = [f"{i}.png" for i in range(24)]
    data, _ = golden()
    evaluation = small(names=names)
    evaluation.update(**data)
    with pytest.raises(UsageError, match=r"image 0 \(0.png\) was evaluated more than once"):
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


def test_curves_are_those_of_the_metrics():
    evaluation, data = small(), golden()[0]
    evaluation.update(**data)
    curves = evaluation.curves()
    assert set(curves) == {"image_roc", "image_pr", "pixel_roc", "pixel_pr", "pro"}
    area = sklearn.auc(curves["pixel_roc"][1].x, curves["pixel_roc"][1].y)
    assert area == pytest.approx(evaluation.compute().values["pixel_auroc"][1])


def test_one_name_for_two_metrics_is_refused():
    with pytest.raises(UsageError, match="image metric and a pixel metric are both named auroc"):
        small(image_measures={"auroc": auroc}, pixel_measures={"auroc": auroc})


def test_a_result_names_its_data_set_and_classes():
    evaluation, data = small(dataset="mvtec"), golden()[0]
    evaluation.update(**data)
    result = evaluation.compute()
    assert (result.dataset, result.class_names) == ("mvtec", CLASSES)


def test_only_images_that_were_evaluated_are_counted():
    evaluation, data = small(), golden()[0]
    evaluation.update(**{name: values[:3] for name, values in data.items()})
    result = evaluation.compute()
    assert sum(result.num_normal) + sum(result.num_anomalous) == 3


def test_everything_public_is_documented():
    import crane.metrics
    import crane.runs

    for package in (crane.metrics, crane.runs):
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            content = vars(importlib.import_module(module.name))
            for name, value in content.items():
                is_ours = getattr(value, "__module__", "") == module.name
                if is_ours and not name.startswith("_") and callable(value):
                    assert inspect.getdoc(value), f"{module.name}.{name}"
                    members = vars(value).items() if inspect.isclass(value) else ()
                    for own, member in members:
                        if not own.startswith("_") and inspect.isfunction(member):
                            assert inspect.getdoc(member), f"{module.name}.{name}.{own}"


def test_the_examples_of_the_page_run():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    names = {}
    for example in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(example, names)
    for temperature, found in names["saturated"].items():
        shown = " | ".join(f"{100 * value:.1f}" for value in found)
        assert f"| {temperature} | {shown} |" in page
    exact = float(names["aupro"](names["maps"], names["masks"]))
    assert 0 < exact < 1
    assert abs(names["value"].value - exact) <= names["value"].error + 1e-7
    streaming = MetricCollection({"aupro": names["StreamingAUPRO"](scale=ScoreScale(10, 17))})
    assert float(streaming(names["maps"], names["masks"])["aupro"]) == pytest.approx(
        exact, abs=1e-4
    )
