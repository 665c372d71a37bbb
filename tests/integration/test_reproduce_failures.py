"""Failed and interrupted runs: the others go on, and a training resumes from its last epoch."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file

from crane.reproduce.numbers import read_numbers
from crane.training.callbacks import KeepPrompts
from miniatures import MINIATURES
from reproductions import EXPERIMENTS, SMALL, runs_of

pytestmark = pytest.mark.long

EXPERIMENT = "ablation_temperature"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The recipe of the temperatures with two rows, on two miniature data sets."""
    root = tmp_path_factory.mktemp("world")
    content = yaml.safe_load((EXPERIMENTS / EXPERIMENT / "recipe.yaml").read_text())
    content["targets"], content["rows"] = ["visa"], content["rows"][2:]
    (root / EXPERIMENT).mkdir()
    (root / EXPERIMENT / "recipe.yaml").write_text(yaml.safe_dump(content))
    for name in ("mvtec", "visa"):
        MINIATURES[name].make(root / "datasets" / MINIATURES[name].folder)
    return root


@pytest.fixture
def reproduce(crane, world):
    """Type `crane reproduce` for it with two seeds, and runs in a folder of the test."""

    def run(runs, *more):
        return crane(
            *("reproduce", world / EXPERIMENT, f"datasets_dir={world / 'datasets'}"),
            *(f"overrides={SMALL}", "train=trainer.max_epochs=3", "seeds=[1,2]"),
            *(f"hydra.run.dir={runs}", f"results_store={runs / 'store'}", *more),
        )

    return run


@pytest.fixture
def whole(reproduce, world):
    """Runs in which nothing failed, and the results; made once for all tests."""
    runs = world / "whole"
    if not runs.exists():
        outcome = reproduce(runs)
        assert outcome.code == 0, outcome.err
        shutil.copytree(world / EXPERIMENT, world / "results")
    return runs


@pytest.fixture
def partly(whole, tmp_path):
    """Runs without those of one row and seed, and without a test that comes after them."""
    runs = tmp_path / "runs"
    shutil.copytree(whole / "store", runs / "store")
    for path in (runs / "store").glob("*.parquet"):
        about = pd.read_parquet(path).iloc[0]
        is_first_row = "scoring.temperature=0.07" in about["overrides"]
        if about["seed"] == 2 and (is_first_row or about["command"] == "test"):
            path.unlink()
    assert len(runs_of(runs / "store")) == 2 * 4 - 3
    return runs


def numbers_of(folder):
    return {(n.row, n.metric): n for n in read_numbers(folder / "results.csv")}


def prompts(runs):
    files = (runs / "trainings").glob("*/prompts/epoch_3.safetensors")
    return {
        file.parts[-3]: {name: x.tolist() for name, x in load_file(file).items()} for file in files
    }


def test_seeds_are_an_axis(whole, world):
    numbers = numbers_of(world / "results")
    assert {number.seeds for number in numbers.values()} == {"1 2"}
    assert all(number.spread is not None for number in numbers.values())
    for (row, metric), number in numbers.items():
        if row == "0.2":
            base = numbers["0.07", metric]
            assert number.to_baseline == pytest.approx(number.percent - base.percent, abs=2e-4)
    runs = runs_of(whole / "store")
    assert sorted(runs.loc[runs["command"] == "train", "seed"]) == [1, 1, 2, 2]
    assert " ± " in (world / "results" / "README.md").read_text()


@pytest.fixture
def failing(monkeypatch):
    """A switch: while it is on, trainings of seed 2 fail in their third epoch."""
    keep, switch = KeepPrompts.on_train_epoch_end, {"on": True}

    def fail(self, trainer, pl_module):
        is_seed_2 = Path(trainer.default_root_dir).name.endswith("-2")
        if switch["on"] and is_seed_2 and trainer.current_epoch == 2:
            raise RuntimeError("no memory")
        keep(self, trainer, pl_module)

    monkeypatch.setattr(KeepPrompts, "on_train_epoch_end", fail)
    return switch


def test_a_failed_seed_is_named_and_its_training_resumes_as_if_it_had_not_failed(
    reproduce, whole, world, partly, failing
):
    outcome = reproduce(partly)
    assert outcome.code == 1
    reason = "seed 2 failed: RuntimeError: no memory"
    assert reason in outcome.out
    assert "\n1 run; tests that failed: 1; " in outcome.out  # the test after it
    numbers = numbers_of(world / EXPERIMENT)
    states = {row: number.state for (row, _), number in numbers.items()}
    assert states == {"0.07": "failed", "0.2": "measured"}
    for (row, _), number in numbers.items():
        if row == "0.07":
            assert (number.seeds, number.reason) == ("1", reason)
            assert number.percent is not None
    assert ", a seed failed (1) |" in (world / EXPERIMENT / "README.md").read_text()

    failing["on"] = False
    outcome = reproduce(partly)
    assert outcome.code == 0, outcome.err
    assert "trained, resumed from its last epoch, in" in outcome.out
    assert "\n2 runs; " in outcome.out
    assert numbers_of(world / EXPERIMENT) == numbers_of(world / "results")
    (folder,) = prompts(partly)
    assert prompts(partly)[folder] == prompts(whole)[folder]


def test_a_second_time_nothing_is_run_and_nothing_changes(reproduce, whole, world):
    before = runs_of(whole / "store")
    outcome = reproduce(whole)
    assert "finished before: 4 tests; cannot be run: 0" in outcome.out
    assert "\n0 runs" in outcome.out
    assert len(runs_of(whole / "store")) == len(before)
    files = ("results.csv", "results.provenance.json", "README.md")
    for name in files:
        assert (world / EXPERIMENT / name).read_bytes() == (world / "results" / name).read_bytes()
