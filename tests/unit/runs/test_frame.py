"""The long frame and the statistics over seeds."""

import math
import statistics

import numpy as np
import pytest

from crane.runs.frame import (
    Measurement,
    Quantity,
    Spread,
    by_seed,
    differences,
    latest,
    measurements,
    paired,
    spreads,
)
from crane.runs.results import MEAN, DatasetResult


def number(setting, seed, value, metric="aupro", dataset="d", class_name=MEAN, run_id=None):
    own = f"{setting}-{seed}" if run_id is None else run_id
    return Measurement(setting, seed, dataset, class_name, metric, value, 0.0, "", own)


def test_mean_and_deviation_are_numpys():
    values = (0.1, 0.35, 0.9)
    assert Spread(values).mean == pytest.approx(np.mean(values))
    assert Spread(values).deviation == pytest.approx(np.std(values, ddof=1))
    assert Spread((0.5,)).deviation is None
    assert math.isnan(Spread(()).mean)


def test_undefined_values_count_in_no_mean():
    frame = [number("vv", 1, 0.5), number("vv", 2, math.nan), number("vv", 3, 0.7)]
    spread = spreads(frame)[Quantity("vv", "d", MEAN, "aupro")]
    assert spread.values == (0.5, 0.7)
    assert spread.deviation == statistics.stdev([0.5, 0.7])
    assert math.isnan(by_seed(frame)[Quantity("vv", "d", MEAN, "aupro")][2])


def test_a_cell_without_any_value_is_still_there():
    spread = spreads([number("vv", 1, math.nan)])[Quantity("vv", "d", MEAN, "aupro")]
    assert spread.values == ()
    assert spread.percent() == "-"


def test_a_setting_run_twice_with_one_seed_counts_once():
    frame = [
        number("vv", 1, 0.1, run_id="old"),
        number("vv", 1, 0.2, "image_auroc", run_id="old"),
        number("vv", 2, 0.5),
        number("vv", 1, 0.9, run_id="new"),
    ]
    assert [(row.seed, row.value) for row in latest(frame)] == [(1, 0.9), (2, 0.5)]
    assert latest(latest(frame)) == latest(frame)


def test_a_run_named_by_two_jobs_counts_once():
    frame = [number("vv", 1, 0.4), number("vv", 1, 0.4)]
    assert latest(frame) == frame[:1]


def test_runs_on_other_data_sets_do_not_replace_each_other():
    frame = [number("vv", 1, 0.4, run_id="a"), number("vv", 1, 0.5, dataset="e", run_id="b")]
    assert latest(frame) == frame


def test_seeds_may_be_several_numbers():
    frame = [number("vv", (1, 7), 0.4), number("vv", (1, 8), 0.6), number("vv", (None, 1), 0.8)]
    assert spreads(frame)[Quantity("vv", "d", MEAN, "aupro")].values == (0.4, 0.6, 0.8)


def test_differences_are_paired_by_seed_data_set_class_and_metric():
    frame = [
        number("clip", 1, 0.5),
        number("clip", 2, 0.25),
        number("vv", 1, 0.75),
        number("vv", 2, 0.75),
        number("vv", 3, 0.9),
        number("vv", 1, 0.9, "image_auroc"),
        number("vv", 1, 0.9, dataset="e"),
    ]
    found = differences(frame, "clip")
    assert {row.setting for row in found} == {"vv"}
    values = {(row.seed, row.dataset, row.metric): row.value for row in found}
    assert values[1, "d", "aupro"] == 0.25
    assert values[2, "d", "aupro"] == 0.5
    for alone in ((3, "d", "aupro"), (1, "d", "image_auroc"), (1, "e", "aupro")):
        assert math.isnan(values[alone])
    lost = next(row for row in found if row.seed == 3)
    assert lost.reason == "clip has no number for seed 3"
    assert spreads(found)[Quantity("vv", "d", MEAN, "aupro")].values == (0.25, 0.5)


def test_a_difference_from_an_undefined_value_is_undefined_and_says_why():
    base = Measurement("clip", 1, "d", MEAN, "aupro", math.nan, reason="no region")
    found = differences([base, number("vv", 1, 0.5)], "clip")
    assert math.isnan(found[0].value)
    assert found[0].reason == "no region"


def test_bounds_of_a_difference_add_up():
    rows = [
        Measurement("clip", 1, "d", MEAN, "aupro", 0.5, 0.25),
        Measurement("vv", 1, "d", MEAN, "aupro", 0.75, 0.125),
    ]
    assert differences(rows, "clip")[0].bound == 0.375


def test_pairs_are_of_the_seeds_that_both_have():
    assert paired({1: 0.75, 2: 0.5}, {3: 0.5, 1: 0.5}) == {1: 0.25}


def test_a_result_becomes_rows_with_its_reasons():
    result = DatasetResult(
        dataset="d",
        class_names=("nut", "bolt"),
        values={"aupro": (0.5, math.nan), "aupro_small": (math.nan, math.nan)},
        means={"aupro": 0.5, "aupro_small": math.nan},
        num_normal=(1, 1),
        num_anomalous=(2, 0),
        reasons={
            ("aupro", "bolt"): "no region",
            ("aupro_small", "nut"): "no region of this size",
            ("aupro_small", "bolt"): "no region",
        },
        bounds={"aupro": (0.01, math.nan)},
        mean_bounds={"aupro": 0.01},
    )
    rows = {
        (row.metric, row.class_name): row for row in measurements(result, "vv", 1, run_id="abc")
    }
    assert len(rows) == 6
    assert rows["aupro", "nut"] == Measurement("vv", 1, "d", "nut", "aupro", 0.5, 0.01, "", "abc")
    assert rows["aupro", "bolt"].reason == "no region"
    assert rows["aupro", MEAN][5:] == (0.5, 0.01, "", "abc")
    assert rows["aupro_small", MEAN].reason == "no region; no region of this size"
