"""Failed and interrupted runs: the others go on, and a training goes on from its last epoch."""

import shutil

import pytest
import yaml
from safetensors.torch import load_file

from crane.reproduce.numbers import read_numbers
from crane.training.callbacks import KeepPrompts
from miniatures import MINIATURES
from reproductions import EXPERIMENTS, SMALL, runs_of


@pytest.fixture
def reproduce(crane, tmp_path):
    """Type `crane reproduce` for the temperatures' recipe on two miniature data sets."""
    folder = tmp_path / "ablation_temperature"
    folder.mkdir()
    content = yaml.safe_load((EXPERIMENTS / "ablation_temperature" / "recipe.yaml").read_text())
    content["targets"], content["rows"] = ["visa"], content["rows"][2:]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    for name in ("mvtec", "visa"):
        MINIATURES[name].make(tmp_path / "datasets" / MINIATURES[name].folder)

    def run(*more, runs="runs"):
        return crane(
            *("reproduce", folder, f"datasets_dir={tmp_path / 'datasets'}", f"overrides={SMALL}"),
            *("train=trainer.max_epochs=3", f"hydra.run.dir={tmp_path / runs}"),
            *(f"results_store={tmp_path / runs / 'store'}", *more),
        )

    return run


def states(folder):
    return {number.row: number.state for number in read_numbers(folder / "results.csv")}


def test_an_interrupted_training_goes_on_and_ends_as_if_it_had_not(
    reproduce, tmp_path, monkeypatch
):
    keep, folder = KeepPrompts.on_train_epoch_end, tmp_path / "ablation_temperature"

    def fail(self, trainer, pl_module):
        if trainer.current_epoch == 2 and pl_module.model.scoring.temperature == 0.07:
            raise RuntimeError("the power is gone")
        keep(self, trainer, pl_module)

    with monkeypatch.context() as patch:
        patch.setattr(KeepPrompts, "on_train_epoch_end", fail)
        outcome = reproduce()
    assert outcome.code == 1
    assert states(folder) == {"0.07": "failed", "0.2": "measured"}
    (reason,) = {n.reason for n in read_numbers(folder / "results.csv") if n.row == "0.07"}
    assert reason == "RuntimeError: the power is gone"

    outcome = reproduce()
    assert outcome.code == 0, outcome.err
    assert "trained, from where it was interrupted in" in outcome.out
    assert states(folder) == {"0.07": "measured", "0.2": "measured"}
    shutil.copy(folder / "results.csv", tmp_path / "resumed.csv")
    assert reproduce(runs="others").code == 0
    assert "interrupted" not in outcome.out.split("Ablation")[1]
    assert values(tmp_path / "resumed.csv") == values(folder / "results.csv")
    assert prompts(tmp_path / "runs") == prompts(tmp_path / "others")


def test_a_seed_whose_training_fails_is_not_passed_over(reproduce, tmp_path, monkeypatch):
    keep, folder = KeepPrompts.on_train_epoch_end, tmp_path / "ablation_temperature"

    def fail(self, trainer, pl_module):
        if pl_module.model.scoring.temperature == 0.2 and "-2" in str(trainer.default_root_dir):
            raise RuntimeError("no memory")
        keep(self, trainer, pl_module)

    monkeypatch.setattr(KeepPrompts, "on_train_epoch_end", fail)
    outcome = reproduce("seeds=[1,2]")
    assert outcome.code == 1
    assert "seed 2 failed: RuntimeError: no memory" in outcome.out
    assert "\n6 runs; tests that failed: 1; " in outcome.out
    assert states(folder) == {"0.07": "measured", "0.2": "failed"}
    for number in read_numbers(folder / "results.csv"):
        if number.row == "0.2":
            assert (number.seeds, number.reason) == ("1", "seed 2 failed: RuntimeError: no memory")
            assert number.percent is not None
    assert ", a seed failed (1) |" in (folder / "README.md").read_text()


def values(path):
    return [(n.row, n.dataset, n.metric, n.percent) for n in read_numbers(path)]


def prompts(runs):
    files = (runs / "trainings").glob("*/prompts/epoch_3.safetensors")
    return {
        file.parts[-3]: {name: x.tolist() for name, x in load_file(file).items()} for file in files
    }


def test_seeds_are_an_axis(reproduce, tmp_path):
    assert reproduce("seeds=[1,2]").code == 0
    numbers = read_numbers(tmp_path / "ablation_temperature" / "results.csv")
    assert {number.seeds for number in numbers} == {"1 2"}
    assert all(number.spread is not None for number in numbers)
    other = [n for n in numbers if n.row == "0.2"]
    assert all(n.to_baseline is not None for n in other)
    for number in other:
        (base,) = (n for n in numbers if (n.row, n.metric) == ("0.07", number.metric))
        assert number.to_baseline == pytest.approx(number.percent - base.percent, abs=2e-4)
    runs = runs_of(tmp_path / "runs" / "store")
    assert sorted(runs.loc[runs["command"] == "train", "seed"]) == [1, 1, 2, 2]
    page = (tmp_path / "ablation_temperature" / "README.md").read_text()
    assert " ± " in page
