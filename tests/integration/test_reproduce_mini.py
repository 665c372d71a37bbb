"""`suite=mini`: recipes end to end on the embedded domains with the package's own weights."""

import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from crane.reproduce.numbers import LEFT_OUT, MEASURED, read_numbers
from crane.runs import read_results_json
from reproductions import EXPERIMENTS, runs_of

pytestmark = pytest.mark.long

ALL = sorted(["table1_zero_shot", *(path.name for path in EXPERIMENTS.glob("ablation_*"))])
SHORT = ("train=trainer.max_epochs=1 data.k_shot=2", "suite.targets=[embedded_boards]")
"""One small epoch, one of three targets."""
SMALL = " image_size=112"
"""A quarter of the patches: an eighth of the time."""


def reproduce(crane, tmp_path, names, *more, overrides=""):
    folders = [
        shutil.copytree(EXPERIMENTS / name, tmp_path / "experiments" / name) for name in names
    ]
    for file in (file for folder in folders for file in folder.glob("results*.csv")):
        file.unlink()
    outcome = crane(
        *("reproduce", *folders, "suite=mini", f"datasets_dir={tmp_path}"),
        *(f"overrides=cache.folder={tmp_path / 'cache'}{overrides}", *more),
    )
    assert outcome.code == 0, outcome.out + outcome.err
    return {folder.name: read_numbers(folder / "results_mini.csv") for folder in folders}


def check(found, tmp_path):
    for name, numbers in found.items():
        assert {number.state for number in numbers} <= {MEASURED, LEFT_OUT}, name
        assert any(number.state == MEASURED for number in numbers), name
        for number in numbers:
            assert (number.percent is None) == bool(number.reason), number
        page = (tmp_path / "experiments" / name / "README.md").read_text()
        assert "## At small scale, on the embedded domains" in page
        assert not (tmp_path / "experiments" / name / "results.csv").exists()  # of another suite


def test_recipes_run_in_small_and_share_what_they_can(crane, tmp_path):
    names = ["ablation_prompts", "ablation_region_size", "table1_zero_shot"]
    found = reproduce(crane, tmp_path, names, *SHORT, "seeds=[111]", overrides=SMALL)
    check(found, tmp_path)
    runs = runs_of(tmp_path / "runs" / "store")
    # Five prompt modes of Crane, one of them table 1's, and Crane+; three methods that train and
    # three that do not; each test once.
    expected = {"test": 9 + 1 + 3 + 3, "train": 5 + 1 + 3}
    assert runs["command"].value_counts().to_dict() == expected
    assert not runs.duplicated(["setting", "seed"]).any()
    passed = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    # Vision settings: Crane's, Crane+'s and those of the six methods; a source and a target each.
    assert 0 < len(passed) <= (2 + 6) * 2 * 2
    by_row = {n.row: n for n in found["table1_zero_shot"] if n.metric == "aupro_200"}
    assert "ViT-L/14 only" in by_row["Crane+, official checkpoints"].reason
    assert 0 < by_row["Crane+, trained here"].percent < 100


SAME = 2.0
"""Points by which trained rows may differ on another machine (docs/reproduce.md)."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_committed_row_is_measured_again(crane, tmp_path):
    numbers = read_numbers(EXPERIMENTS / "table1_zero_shot" / "results_mini.csv")
    place = ("Crane, trained here", "embedded_boards")
    committed = {n.metric: n for n in numbers if (n.row, n.dataset) == place}
    found = defaultdict(list)
    seeds = committed["image_auroc"].seeds.split()
    for seed in seeds:
        outcome = crane(
            *("train", "method=crane", "backbone=mini", "trainer=cpu", "trainer.max_epochs=3"),
            *("source=[embedded_parts]", "targets=[embedded_boards]", "data.num_workers=0"),
            *(f"seed={seed}", f"run_dir={seed}", "results_store=null", "cache=off"),
        )
        assert outcome.code == 0, outcome.err
        (result,) = read_results_json(Path(seed) / "results.json")
        for metric, value in result.means.items():
            found[metric].append(100 * value)
    for metric, number in committed.items():
        assert sum(found[metric]) / len(seeds) == pytest.approx(number.percent, abs=SAME), metric


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_whole_suite_runs(crane, tmp_path):
    found = reproduce(crane, tmp_path, ALL)
    assert len(found) == 14
    check(found, tmp_path)
