"""`trainer.precision=…` in whole runs."""

import csv

import numpy as np
import pytest


def scores(folder):
    with (folder / "scores.csv").open() as file:
        return np.array([float(row["score"]) for row in csv.DictReader(file)])


@pytest.mark.long
@pytest.mark.parametrize("cache", ["off", "all"])
def test_bfloat16_gives_nearly_the_scores_of_float32(train, results_of, tmp_path, cache):
    typed = (f"cache={cache}", f"cache.folder={tmp_path / 'features'}", "guide=tiny")
    whole = train(*typed, name="whole")
    half = train(*typed, "trainer.precision=bf16-mixed", name="half")
    assert 0 < np.abs(scores(half.folder) - scores(whole.folder)).max() < 0.03
    before, after = (results_of(run.folder)["gamma"]["means"] for run in (whole, half))
    assert {k for k, v in after.items() if v is None} == {k for k, v in before.items() if v is None}
    assert all(0 <= value <= 1 for value in after.values() if value is not None)


def test_64_bits_are_not_cut_to_what_the_cache_keeps(train, results_of, tmp_path):
    run = train("cache=all", f"cache.folder={tmp_path / 'features'}", "trainer.precision=64-true")
    assert not list((tmp_path / "features").glob("entries/*"))
    assert results_of(run.folder)["gamma"]["means"]["image_auroc"] is not None
