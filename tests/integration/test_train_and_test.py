"""`crane train` and `crane test`, typed."""

import csv
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from crane.methods import read_checkpoint


def test_a_run_leaves_everything_and_its_prompts_give_the_same_numbers(
    crane, tiny, use, train, results_of, tmp_path
):
    run = train(
        "method=crane_plus",
        "guide=tiny",
        "attention=vv",
        "prompt=pad_prefix",
        "overlay.num_anomalous=1",
        source=("alpha", "beta"),
        targets=("gamma", "plain"),
    )
    results = results_of(run.folder)
    assert list(results) == ["gamma", "plain"]
    record = json.loads((run.folder / "record.json").read_text())
    assert record["ended"] is not None
    assert record["seed"] == 111
    assert {"source.alpha", "source.beta", "targets.gamma", "targets.plain"} == {*record["data"]}
    assert {"python", "torch", "lightning"} <= {*record["versions"]}
    assert record["command"].startswith("crane train ")
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config["guide"]["features"]["architecture"] == "vit_tiny_patch16_224"
    assert config["image_size"] == 56
    assert (run.folder / "logs" / "metrics.csv").is_file()
    for target in ("gamma", "plain"):
        with Image.open(run.folder / "overlays" / target / "gallery.png") as gallery:
            assert np.asarray(gallery).std() > 0
        assert f"overlays/{target}/gallery.png" in run.out
    for shown in ("tile", "bracket", "mean", "Means", "epoch_1.safetensors", "results.csv"):
        assert shown in run.out
    assert "][root]" not in run.out, "open_clip's own remarks are held back"

    for checkpoint in (run.prompts, run.folder / "checkpoints" / "last.ckpt"):
        folder = tmp_path / checkpoint.suffix[1:]
        targets = use("targets", "gamma", "plain")
        # image_size and guide come with the checkpoint; tiny says the former again
        options = [o for o in tiny if not o.startswith(("trainer.max", "backbone", "image_size"))]
        outcome = crane("test", *options, *targets, f"checkpoint={checkpoint}", f"run_dir={folder}")
        assert outcome.code == 0, outcome.err
        assert results_of(folder) == results
        assert (folder / "results.csv").read_bytes() == (run.folder / "results.csv").read_bytes()
        again = yaml.safe_load((folder / "config.yaml").read_text())
        assert again["guide"] == config["guide"]
        assert again["prompt"] == config["prompt"]


def test_results_are_per_class_and_their_mean(train, results_of):
    run = train(targets=("beta",))
    (result,) = results_of(run.folder).values()
    assert list(result["classes"]) == ["candle", "dice"]
    for name, mean in result["means"].items():
        values = [result["classes"][c]["values"][name] for c in ("candle", "dice")]
        known = [value for value in values if value is not None]
        assert mean == (pytest.approx(sum(known) / len(known)) if known else None)
    with (run.folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["candle", "dice", "mean"]
    assert float(rows[2]["aupro"]) == result["means"]["aupro"]


def test_without_masks_pixel_metrics_are_unknown_with_a_reason(train, results_of):
    run = train(targets=("plain",))
    (result,) = results_of(run.folder).values()
    entry = result["classes"]["bracket"]
    image = [name for name in entry["values"] if name.startswith("image_")]
    pixel = [name for name in entry["values"] if not name.startswith("image_")]
    assert len(image) >= 3
    assert len(pixel) >= 6
    assert all(entry["values"][name] is not None for name in image)
    assert all(entry["values"][name] is None for name in pixel)
    assert all("mask" in entry["reasons"][name] for name in pixel)
    assert "no image with a mask" in run.out


def test_training_without_masks_warns(train, caplog, tmp_path):
    run = train("test=false", source=("plain",))
    log = next((tmp_path / "runs").rglob("train.log")).read_text()
    assert "the focal and Dice losses are off" in log
    assert "results.csv" not in run.out
    assert not (run.folder / "results.csv").exists()


def test_testing_on_the_source_is_said_to_be_no_zero_shot_test(train, tmp_path):
    train(source=("alpha",), targets=("alpha",))
    log = next((tmp_path / "runs").rglob("train.log")).read_text()
    assert "12 of 12 images of target alpha are also in the source" in log


@pytest.mark.long
def test_the_same_seed_gives_the_same_prompts_and_numbers(train, results_of):
    one, other = train(name="one"), train(name="other")
    prompts = [read_checkpoint(run.prompts).prompts for run in (one, other)]
    assert all(torch.equal(prompts[0][name], prompts[1][name]) for name in prompts[0])
    assert results_of(one.folder) == results_of(other.folder)


@pytest.mark.long
def test_test_batches_do_not_change_results(crane, use, train, results_of, tmp_path):
    run = train("guide=tiny")
    for size in (1, 3):
        outcome = crane(
            "test",
            *use("targets", "gamma"),
            f"checkpoint={run.prompts}",
            f"data.test_batch_size={size}",
            "trainer=cpu",
            "data.num_workers=0",
            f"run_dir={tmp_path / str(size)}",
        )
        assert outcome.code == 0, outcome.err
        again = results_of(tmp_path / str(size))["gamma"]["means"]
        for name, value in results_of(run.folder)["gamma"]["means"].items():
            assert again[name] == (value if value is None else pytest.approx(value, abs=1e-5))


@pytest.mark.long
def test_bfloat16_and_exact_metrics(train, results_of):
    run = train("trainer.precision=bf16-mixed", "metrics=exact", targets=("gamma",))
    means = results_of(run.folder)["gamma"]["means"]
    assert means["pixel_auroc"] > 0.5


@pytest.mark.long
def test_loggers(train):
    train("logger=tensorboard", name="tensorboard")
    run = train("logger=none", name="none")
    assert not (run.folder / "logs").exists()
    events = (run.folder.parent / "tensorboard" / "tensorboard").glob("events.out.tfevents.*")
    assert sum(file.stat().st_size for file in events) > 500


@pytest.mark.long
def test_each_job_of_a_multirun_is_a_run_of_its_own_in_wandb(crane, tiny, use, tmp_path):
    sweep = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    data = [*use("source", "alpha"), *use("targets", "gamma")]
    outcome = crane("train", *tiny, *data, "-m", "seed=1,2", "logger=wandb", sweep)
    assert outcome.code == 0, outcome.err
    for job in ("0_seed=1", "1_seed=2"):
        runs = list((tmp_path / "sweep" / job / "wandb").glob("offline-run-*"))
        assert len(runs) == 1
        (written,) = runs[0].glob("*.wandb")
        assert written.stat().st_size > 1000
        assert (tmp_path / "sweep" / job / "results.json").is_file()


def typed(*arguments, cwd, timeout=300):
    done = subprocess.run(
        [sys.executable, "-m", "crane", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def lone(data_sets, tmp_path):
    """The folder of a data set `lone` of one image, for `use`."""
    good = tmp_path / "few" / "lone" / "tile" / "test" / "good"
    good.mkdir(parents=True)
    shutil.copy(next((data_sets / "gamma" / "tile" / "test" / "good").glob("*.png")), good)
    return tmp_path / "few"


@pytest.mark.long
def test_two_processes_give_the_results_of_one(crane, tiny, use, lone, results_of, tmp_path):
    """Also in a multirun, where each job starts, and ends, a second process of its own.

    Of the third target one of the processes sees nothing.
    """
    data = [*use("source", "alpha"), *use("targets", "gamma", "plain")]
    data += use("targets", "lone", folder=lone)[1:]
    two = ["trainer.devices=2", "trainer.strategy=ddp", "data.validation_fraction=0.34"]
    sweep = f"hydra.sweep.dir={tmp_path / 'sweep'}"
    done = typed("train", "-m", *tiny, *data, *two, "attention=vv,clip", sweep, cwd=tmp_path)
    assert done.stdout.count("epoch_1.safetensors") == 2, "one process talks"
    found = []
    for job in ("0_attention=vv", "1_attention=clip"):
        folder = tmp_path / "sweep" / job
        config = yaml.safe_load((folder / "config.yaml").read_text())
        assert config["attention"]["num_blocks"] == (6 if job.endswith("vv") else 0)
        prompts = folder / "prompts" / "epoch_1.safetensors"
        assert read_checkpoint(prompts).info["step"] == 1  # 8 images, 2 processes of 4
        alone = tmp_path / f"alone_{job}"
        outcome = crane(
            "test", "trainer=cpu", "data.num_workers=0", *use("targets", "gamma", "plain"),
            f"checkpoint={prompts}", f"run_dir={alone}",
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        for target in ("gamma", "plain"):
            one, both = (results_of(f)[target]["means"] for f in (alone, folder))
            for name, value in one.items():
                assert both[name] == (value if value is None else pytest.approx(value, abs=1e-5))
        assert results_of(folder)["lone"]["classes"]["tile"]["num_normal"] == 1
        found.append(results_of(folder)["gamma"]["means"]["pixel_ap"])
    assert found[0] != found[1]
    record = json.loads((tmp_path / "sweep" / "1_attention=clip" / "record.json").read_text())
    assert record["device"] == "1 x 2 cpu"
    assert re.search(r"attention=clip .*run_dir=", record["command"])
