import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch

from crane.errors import UsageError
from crane.metrics import Evaluation, ExactPixels, ImageScores, auroc, f1_max
from crane.runs.results import (
    DatasetResult,
    read_results_json,
    write_results_csv,
    write_results_json,
)

WHY = "no anomalous image"
MakeResult = Callable[..., DatasetResult]


def test_json_gives_back_every_bit(tmp_path: Path, make_result: MakeResult) -> None:
    results = (make_result(), make_result("other", 1e-17))
    back = read_results_json(write_results_json(results, tmp_path / "results.json"))
    for one, two in zip(results, back, strict=True):
        assert repr(one) == repr(two)


def test_json_says_why_and_never_nan(tmp_path: Path, make_result: MakeResult) -> None:
    text = write_results_json([make_result()], tmp_path / "r.json").read_text()
    assert "NaN" not in text
    bad = json.loads(text)["datasets"][0]["classes"]["bad, name"]
    assert bad["values"] == {"image_auroc": None, "aupro": 0.125}
    assert bad["reasons"] == {"image_auroc": WHY}


def test_csv_has_full_precision_a_mean_row_and_no_blanks(
    tmp_path: Path, make_result: MakeResult
) -> None:
    path = write_results_csv([make_result(), make_result("other")], tmp_path / "r.csv")
    frame = pd.read_csv(path, keep_default_na=False)
    assert not (frame == "").any(axis=None)
    assert list(frame["class"]) == ["nut", "bolt", "bad, name", "mean"] * 2
    assert float(frame["image_auroc"][0]) == 1 / 3
    assert frame["image_auroc"][2] == "nan"
    assert float(frame["aupro"][3]) == 0.875 / 3
    assert frame["num_anomalous"][7] == 15


def test_data_sets_may_have_different_metrics(tmp_path: Path, make_result: MakeResult) -> None:
    image_only = DatasetResult("ct", ("head",), {"image_ap": (0.5,)}, {"image_ap": 0.5}, (1,), (1,))
    frame = pd.read_csv(write_results_csv([make_result(), image_only], tmp_path / "r.csv"))
    assert frame["image_ap"].isna().tolist() == [True] * 4 + [False] * 2


def test_incomplete_results_are_refused() -> None:
    with pytest.raises(UsageError, match="2 classes, but 1 values of aupro"):
        DatasetResult("d", ("a", "b"), {"aupro": (0.1,)}, {"aupro": 0.1}, (1, 1), (1, 1))
    with pytest.raises(UsageError, match="aupro of a is NaN without a reason"):
        DatasetResult("d", ("a",), {"aupro": (math.nan,)}, {"aupro": math.nan}, (1,), (1,))
    with pytest.raises(UsageError, match="needs values and a mean; one is missing for aupro"):
        DatasetResult("d", ("a",), {"aupro": (0.1,)}, {}, (1,), (1,))


def test_other_json_is_not_taken_for_results(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for content in ('{"a": 1}', "[1]", '{"datasets": [1]}', '{"datasets": {"a": 1}}', "{"):
        path.write_text(content)
        with pytest.raises(UsageError, match=r"x\.json is not the results\.json of a test"):
            read_results_json(path)
    with pytest.raises(UsageError, match="FileNotFoundError"):
        read_results_json(tmp_path / "none.json")


def test_an_evaluation_becomes_a_result_and_its_files(tmp_path: Path) -> None:
    evaluation = Evaluation(
        class_names=["nut", "bolt"],
        dataset="mini",
        images=partial(ImageScores, max_images=8),
        pixels=ExactPixels,
        image_measures={"image_auroc": auroc, "image_f1max": f1_max},
        pixel_measures={"pixel_auroc": auroc},
    )
    evaluation.update(
        score=torch.tensor([0.1, 0.9, 0.4]),
        map=torch.rand(3, 8, 8),
        label=torch.tensor([0, 1, 0]),
        mask=torch.tensor([0, 1, 0], dtype=torch.int32)[:, None, None].repeat(1, 8, 8),
        has_mask=torch.ones(3, dtype=torch.bool),
        class_id=torch.tensor([0, 0, 1]),
        index=torch.arange(3),
    )
    result = evaluation.compute()
    assert (result.dataset, result.class_names) == ("mini", ("nut", "bolt"))
    assert (result.num_normal, result.num_anomalous) == ((1, 1), (1, 0))
    assert result.values["image_auroc"][0] == result.means["image_auroc"] == 1.0
    assert math.isnan(result.values["image_auroc"][1])
    assert result.reasons["image_auroc", "bolt"]
    (back,) = read_results_json(write_results_json([result], tmp_path / "r.json"))
    assert repr(back) == repr(result)
