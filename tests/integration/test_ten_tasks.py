"""A new user's ten tasks, with only the wheel installed (`pytest -m slow -s` prints seconds)."""

import csv
import os
import shutil
import site
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

EMBED = """
import crane, glob
detector = crane.load("mini", device="cpu")
detector.calibrate(sorted(glob.glob("photos/brick/train/good/*.png")), false_alarm_rate=0.1)
results = list(detector.predict("photos/brick/test"))
worst = max(results, key=lambda result: result.score)
worst.save("worst")
detector.save("mine.safetensors")
assert crane.load("mine.safetensors", device="cpu").threshold == detector.threshold
print(len(results), worst.is_anomalous)
"""
MEASURE = """
import numpy as np
from crane.metrics import AUPRO
truth = np.zeros((3, 32, 32), bool)
truth[:, 4:12, 6:20] = True
print(float(AUPRO()(truth.astype(np.float32), truth)))
"""
OWN_CODE = """
from torch.nn import functional as F

def sharpened(q, k, v, sharpness):
    return F.scaled_dot_product_attention(v, v, v, scale=sharpness / v.shape[-1] ** 0.5)
"""
OWN_OPTION = """# Value-value attention with a sharper softmax.
defaults: [/base/attention@_here_]
correlation:
  _target_: own.sharpened
  _partial_: true
  sharpness: 2.0
"""
OWN_EXPERIMENT = """# @package _global_
# A quick look with our attention.
defaults:
  - override /attention: ours
seed: 7
"""
PHOTOGRAPHS = ("data", "prepare", "embedded_photos", "write_images=photos")
QUICK = (
    *("backbone=tiny", "source=[embedded_parts]", "targets=[]", "data.k_shot=2", "trainer=cpu"),
    *("image_size=56", "results_store=null"),
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A virtual environment of the wheel; what the wheel depends on is linked, not downloaded."""
    place = tmp_path_factory.mktemp("user")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", place, ROOT]
    subprocess.run(build, check=True)
    (wheel,) = place.glob("*.whl")
    venv.create(place / "venv", with_pip=False, symlinks=True)
    (packages,) = (place / "venv" / "lib").glob("python3*/site-packages")
    for path in map(Path, site.getsitepackages()):
        for entry in path.iterdir():
            if "crane" not in entry.name and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    python = place / "venv" / "bin" / "python"
    shutil.unpack_archive(wheel, packages, "zip")
    (place / "work").mkdir()
    return python, place / "work"


@pytest.mark.slow
def test_ten_tasks(installed):
    python, work = installed
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "CRANE_DATASETS")}
    environment["XDG_CACHE_HOME"] = str(work / "cache")

    def timed(task, *arguments):
        start = time.monotonic()
        done = subprocess.run(
            [python, *arguments], cwd=work, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{task}: {done.stderr[-800:]}"
        print(f"{task:<36} {time.monotonic() - start:5.1f} s")
        return done.stdout

    crane = ("-m", "crane")
    assert timed("1 see that it is installed", *crane, "--version").startswith("crane ")
    timed("  (photographs to score)", *crane, *PHOTOGRAPHS)

    predict = (*crane, "predict", "checkpoint=mini", "input=photos/brick/test", "output=scored")
    timed("2 score a folder", *predict)
    with (work / "scored/scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    worst = max(rows, key=lambda row: float(row["score"]))
    assert (work / "photos/brick/test" / worst["image"]).is_file(), "3 read the worst image"
    assert worst["image"] in (work / "scored/predictions.html").read_text()

    good = "calibration.input=photos/brick/train/good"
    said = timed("4 calibrate", *predict[:-1], "output=calibrated", good)
    assert "threshold" in said
    timed("5 choose another threshold", *predict, f"threshold={worst['score']}")
    with (work / "scored/scores.csv").open() as file:
        assert [row["image"] for row in csv.DictReader(file) if row["anomalous"] == "1"] == [
            worst["image"]
        ]

    told = timed("6 embed in ten lines", "-c", EMBED).split()
    assert told[0] == str(len(rows))
    assert (work / "mine.safetensors").is_file()
    assert len(list((work / "worst").iterdir())) == 3

    assert float(timed("7 AUPRO of own arrays", "-c", MEASURE)) == pytest.approx(1.0)

    (work / "own.py").write_text(OWN_CODE)
    for group, name, text in (
        ("attention", "ours", OWN_OPTION),
        ("experiment", "look", OWN_EXPERIMENT),
    ):
        (work / "conf" / group).mkdir(parents=True)
        (work / "conf" / group / f"{name}.yaml").write_text(text)
    environment["PYTHONPATH"] = str(work)
    train = (*crane, "train", "--config-dir", "conf", *QUICK)
    one = ("trainer.max_epochs=1", "run_dir=first")
    timed("8 an attention of one's own", *train, "attention=ours", *one)
    timed("9 an experiment file", *train, "experiment=look", "run_dir=second")
    assert "seed: 7" in (work / "second/config.yaml").read_text()
    on = ("resume=first/checkpoints/last.ckpt", "trainer.max_epochs=2", "run_dir=third")
    timed("10 resume", *train, "attention=ours", *on)
    assert (work / "third/prompts/epoch_2.safetensors").is_file()
