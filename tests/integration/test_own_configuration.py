"""Experiments, optimizers, schedulers and callbacks by name, and folders of one's own."""

import csv
import shutil

import pytest
import torch
from omegaconf import OmegaConf

from crane.config import conf_dir
from crane.methods import read_checkpoint
from longer import one_by_default


@pytest.fixture
def quick(tiny, use):
    data = [*use("source", "alpha"), *use("targets")]
    return ["train", *tiny, *data, "results_store=null", "test=false"]


def column(folder, name):
    (file,) = folder.rglob("metrics.csv")
    with file.open() as rows:
        return [float(row[name]) for row in csv.DictReader(rows) if row.get(name)]


@pytest.mark.long
def test_a_rate_that_is_scheduled_is_logged_each_epoch_like_the_loss(crane, quick, tmp_path):
    typed = [word for word in quick if "max_epochs" not in word]
    typed += ["trainer.max_epochs=3", "optimizer=sgd", "optimizer.lr=0.1", "scheduler=cosine"]
    outcome = crane(*typed, f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.err
    assert column(tmp_path / "run", "epoch/rate") == pytest.approx([0.1, 0.075, 0.025])
    assert len(column(tmp_path / "run", "epoch/loss")) == 3, "three steps, none of them logged"
    half = tmp_path / "half"
    cut = [word.replace("max_epochs=3", "max_epochs=2") for word in typed]
    cut.append("scheduler.T_max=3")
    assert crane(*cut, f"run_dir={half}").code == 0
    resumed = [*typed, "scheduler.T_max=3", f"resume={half / 'checkpoints' / 'last.ckpt'}"]
    outcome = crane(*resumed, f"run_dir={tmp_path / 'on'}")
    assert outcome.code == 0, outcome.err
    assert column(tmp_path / "on", "epoch/rate") == pytest.approx([0.025])
    whole, on = (
        read_checkpoint(tmp_path / name / "prompts" / "epoch_3.safetensors").prompts
        for name in ("run", "on")
    )
    for name, value in whole.items():
        torch.testing.assert_close(on[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "file", one_by_default(sorted((conf_dir() / "optimizer").glob("*.yaml"))), ids=str
)
def test_every_optimizer_trains(crane, quick, tmp_path, file):
    outcome = crane(*quick, f"optimizer={file.stem}", f"run_dir={tmp_path}")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "prompts" / "epoch_1.safetensors").is_file()


@pytest.mark.long
def test_early_stopping_stops(crane, quick, tmp_path):
    typed = [word for word in quick if "max_epochs" not in word]
    typed += ["trainer.max_epochs=9", "data.validation_fraction=0.4", "optimizer.lr=1e-9"]
    typed += ["callbacks=early_stopping", "callbacks.early_stopping.patience=1"]
    typed += ["+callbacks.early_stopping.min_delta=0.01"]
    outcome = crane(*typed, f"run_dir={tmp_path}")
    assert outcome.code == 0, outcome.err
    assert len(list((tmp_path / "prompts").iterdir())) == 2
    outcome = crane(*quick, "callbacks=early_stopping", "callbacks.early_stopping.patince=1")
    assert outcome.code == 2
    assert "patince" in outcome.err


@pytest.mark.parametrize(
    "flag", one_by_default(["--config-dir=mine", "--config-dir mine", "searchpath"])
)
def test_folders_of_ones_own_are_seen_by_checks_help_and_runs(crane, quick, tmp_path, flag):
    mine = tmp_path / "mine"  # the test types in tmp_path
    for group in ("attention", "experiment"):
        (mine / group).mkdir(parents=True)
    shutil.copy(conf_dir() / "attention" / "vv.yaml", mine / "attention" / "own.yaml")
    (mine / "experiment" / "ours.yaml").write_text(
        "# @package _global_\n# Ours.\ndefaults:\n  - override /attention: own\nseed: 7\n"
    )
    flags = ["hydra.searchpath=[file://mine]"] if flag == "searchpath" else flag.split()
    command, *rest = quick
    outcome = crane(command, *flags, *rest, "experiment=ours", f"run_dir={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.err
    text = (tmp_path / "run" / "config.yaml").read_text()
    assert "seed: 7" in text
    wrong = crane(command, *flags, *rest, "attention=onw")
    assert wrong.code == 2
    assert "did you mean own?" in wrong.err
    misspelt = crane(command, *flags, *rest, "attention=own", "attention.num_blcks=3")
    assert "attention.num_blocks" in misspelt.err
    assert "own" in crane(command, *flags, "--help").out


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("ckpt_path=last.ckpt", "resume=…"),
        ("task_name=mine", "hydra.run.dir"),
        ("lr=0.1", "optimizer.lr"),
        ("experiment=paper", "did you mean paper_crane"),
        ("scheduler=cosin", "did you mean cosine"),
    ],
)
def test_words_of_other_frameworks_get_a_hint(crane, typed, said):
    outcome = crane("train", typed)
    assert outcome.code == 2
    assert said in outcome.err


@pytest.mark.long
def test_a_recipe_of_the_package_is_found_by_its_name(crane, monkeypatch, tmp_path):
    """As from a wheel: conf and recipes lie in the package, and results go to the folder here."""
    from crane.cli import reproduce

    outcome = crane("reproduce", "table1_zero_shot", "plan_only=true")
    assert outcome.code == 0, outcome.err
    assert "Plan of table1_zero_shot" in outcome.out
    assert not (tmp_path / "experiments").exists()
    package = tmp_path / "package"
    shutil.copytree(conf_dir().parent / "experiments" / "ablation_seeds", package / "experiments/s")
    monkeypatch.setattr(reproduce, "files", lambda name: package)
    monkeypatch.setattr(reproduce, "recipe_dir", lambda word: package / "experiments" / word)
    read = reproduce.read_recipe(package / "experiments" / "s")
    config = OmegaConf.create({"plan_only": False})
    folder = reproduce._own_folder(read, reproduce.Console(), config)
    assert (folder / "recipe.yaml").is_file()
    assert not folder.is_absolute()
    config.plan_only = True
    assert reproduce._own_folder(read, reproduce.Console(), config) == read.folder
