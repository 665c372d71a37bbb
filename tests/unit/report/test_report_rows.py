import math

import numpy as np
import pytest

from crane.errors import UsageError
from crane.report import find_runs, summarise
from crane.report.rows import Spread


@pytest.fixture
def rows(make_run, tmp_path):
    make_run("a1", 0.5, seed=1, started="1", findings=False)
    make_run("a2", 0.7, seed=2, started="2", findings=False)
    make_run("b", 0.3, seed=1, dataset="beta", started="3", findings=False)
    runs, _ = find_runs([tmp_path / "runs"])
    return {
        (row.setting, row.dataset, row.class_name): row for row in summarise(runs, ["x", "x", "y"])
    }


def test_seeds_of_a_setting_come_together(rows):
    assert set(rows) == {
        *(("x", "alpha", name) for name in ("mean", "bolt", "nut")),
        *(("y", "beta", name) for name in ("mean", "bolt", "nut")),
    }
    assert rows["x", "alpha", "bolt"].metrics["aupro"].values == (0.5, 0.7)
    assert rows["x", "alpha", "mean"].metrics["aupro"].values == pytest.approx((0.55, 0.75))
    assert rows["x", "alpha", "mean"].num_seeds == 2
    assert rows["y", "beta", "mean"].num_seeds == 1


def test_what_is_not_defined_is_left_out(rows):
    assert rows["x", "alpha", "mean"].metrics["aupro_large"].values == ()


def test_of_a_setting_run_twice_with_one_seed_the_last_counts(make_run, tmp_path):
    make_run("new", 0.9, started="2", findings=False)
    make_run("old", 0.1, started="1", findings=False)
    runs, _ = find_runs([tmp_path / "runs"])
    rows = summarise(runs, ["x", "x"])
    assert rows[1].metrics["aupro"].values == (0.9,)
    assert rows[1].num_seeds == 1


def test_results_with_a_class_called_mean_are_refused(make_run):
    folder = make_run("a", findings=False)
    file = folder / "results.json"
    file.write_text(file.read_text().replace('"nut": {', '"mean": {'))
    runs, _ = find_runs([folder])
    with pytest.raises(UsageError, match="no class is called mean"):
        summarise(runs, ["x"])


def test_mean_and_deviation_are_numpys():
    values = (0.1, 0.35, 0.9)
    assert Spread(values).mean == pytest.approx(np.mean(values))
    assert Spread(values).deviation == pytest.approx(np.std(values, ddof=1))
    assert Spread((0.5,)).deviation is None
    assert math.isnan(Spread(()).mean)
