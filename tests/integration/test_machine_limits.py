"""Limits of the machine, and stopping, end in one line; what was written before is kept."""

import errno
import io
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crane import training
from crane.config import compose
from crane.errors import DISK
from crane.training.module import CraneModule
from longer import one_by_default


@pytest.fixture(scope="module")
def base(tiny, use, tmp_path_factory) -> Path:
    """A training, and photographs."""
    folder = tmp_path_factory.mktemp("base")
    data = [*use("source", "gamma"), *use("targets")]
    training.train(compose("train", [*tiny, *data, f"run_dir={folder / 'run'}"]))
    for number in range(4):
        path = folder / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((90, 90, 3), 60 * number, np.uint8)).save(path)
    return folder


@pytest.fixture
def predict(base) -> tuple[str, ...]:
    return (
        *("predict", f"checkpoint={base / 'run/prompts/epoch_1.safetensors'}", "output=out"),
        *(f"input={base / 'photos'}", "image_size=56", "accelerator=cpu", "batch_size=1"),
        *("overlays=none", "part_size=1"),
    )


@pytest.fixture
def tested(base, use) -> tuple[str, ...]:
    return (
        *("test", f"checkpoint={base / 'run/prompts/epoch_1.safetensors'}", "trainer=cpu"),
        *("data.num_workers=0", "image_size=56", "overlay.tile=60", "run_dir=run"),
        *use("targets", "gamma"),
    )


def stopped(outcome, code: int, *said: str) -> None:
    """The command ends with this code and says so in one line."""
    assert outcome.code == code, outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith("crane: ")]
    assert len(lines) == 1, outcome.err
    for one in said:
        assert one in lines[0]
    assert "Traceback" not in outcome.err


PLACES = ("run_dir=", "hydra.run.dir=", "results_store=", "cache=all cache.folder=")


@pytest.mark.parametrize("place", [*PLACES, "output="])
@pytest.mark.parametrize(
    ("name", "reason"),
    [("afile", "File exists"), ("afile/x", "Not a directory"), ("x" * 300, "name too long")],
)
def test_a_place_that_cannot_be_written(crane, tested, predict, tmp_path, place, name, reason):
    (tmp_path / "afile").touch()
    *more, key = place.split()
    typed = predict if place == "output=" else tested
    kept = [word for word in typed if not word.startswith(("run_dir=", key))]
    outcome = crane(*kept, *more, key + name)
    if name == "afile" and "cache" in place:
        reason = "Not a directory"  # of its subfolders
    stopped(outcome, 2, reason.capitalize() if reason[0].isupper() else reason, name)
    assert (tmp_path / "afile").read_bytes() == b""


@pytest.mark.parametrize("number", one_by_default(n for n in DISK if n is not None))
def test_a_disk_that_fails_costs_no_results(crane, tested, monkeypatch, number):
    """Results are on the disk before the first picture is drawn."""

    def fail(*args, **kwargs):
        raise OSError(number, os.strerror(number), "curves.json")

    monkeypatch.setattr("crane.training.callbacks.write_curves", fail)
    stopped(crane(*tested, "results_store=null"), 2, "curves.json: ", DISK[number])
    assert Path("run/results.csv").read_text().count("\n") == 3
    assert Path("run/results.json").is_file()


def test_pictures_that_cannot_be_written_are_warned_of(crane, tested, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("PIL.Image.Image.save", fail)
    outcome = crane(*tested, "results_store=null")
    assert outcome.code == 0
    assert "cannot write the picture" in outcome.out + outcome.err
    assert Path("run/results.csv").is_file()


def test_a_limit_on_the_size_of_files_ends_a_prediction_and_lifting_it_resumes(crane, predict):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:  # maps of 90 x 90 floats take 32,528 bytes
        outcome = crane(*predict, "maps=npy", "num_workers=0")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    stopped(outcome, 2, "cannot write to out", "the same command resumes")
    assert crane(*predict, "maps=npy", "num_workers=0").code == 0
    assert len(list(Path("out/maps").rglob("*.npy"))) == 4


def test_a_killed_worker_is_told_and_the_same_command_resumes(crane, predict, monkeypatch):
    def killed(path, **how):
        if path.endswith("2.png"):
            os.kill(os.getpid(), signal.SIGKILL)
        return read(path, **how)

    from crane.prediction import image_scoring

    read = image_scoring.read_rgb
    with monkeypatch.context() as patch:
        patch.setattr(image_scoring, "read_rgb", killed)
        outcome = crane(*predict, "maps=none", "num_workers=1")
    stopped(outcome, 2, "a process that loads images was killed", "num_workers=0")
    assert crane(*predict, "maps=none", "num_workers=0").code == 0
    assert Path("out/scores.csv").read_text().count("\n") == 5


@pytest.mark.parametrize(
    ("stop", "code", "said"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 143, "stopped by SIGTERM"),
        (lambda: os.kill(os.getpid(), signal.SIGINT), 130, "stopped by Ctrl-C"),
    ],
)
def test_a_prediction_that_is_stopped_says_how_it_resumes(
    crane, predict, monkeypatch, stop, code, said
):
    from crane.prediction import table

    write, seen = table.ScoreTable.write, []

    def writing(self, number, rows):
        seen.append(number)
        if number == 2:
            stop()
        write(self, number, rows)

    with monkeypatch.context() as patch:
        patch.setattr(table.ScoreTable, "write", writing)
        outcome = crane(*predict, "maps=none", "num_workers=0")
    stopped(outcome, code, said, "the same command with output=out resumes")
    assert seen == [0, 1, 2]
    again = crane(*predict, "maps=none", "num_workers=0")
    assert again.code == 0
    assert "2 of 4 parts" in again.out + again.err


def test_ctrl_c_in_a_training_says_how_it_continues(crane, tiny, use, monkeypatch):
    longer = [word.replace("max_epochs=1", "max_epochs=3") for word in tiny]
    typed = ["train", *longer, *use("source", "gamma"), *use("targets"), "run_dir=run"]
    end = CraneModule.on_train_epoch_start

    def stop(self):
        if self.trainer.current_epoch == 2:
            raise KeyboardInterrupt
        end(self)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(CraneModule, "on_train_epoch_start", stop)
        outcome = crane(*typed, "results_store=null")
    stopped(outcome, 130, "stopped by Ctrl-C", "resume=run/checkpoints/last.ckpt continues")
    assert signal.getsignal(signal.SIGINT) is handler
    assert crane(*typed, "results_store=null", "resume=run/checkpoints/last.ckpt").code == 0
    assert Path("run/prompts/epoch_3.safetensors").is_file()


@pytest.mark.long
@pytest.mark.parametrize("encoding", ["gbk", "cp949", "cp932", "ascii"])
def test_no_encoding_of_the_terminal_ends_a_run(crane, tested, monkeypatch, encoding):
    screen = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", screen)
    outcome = crane(*tested, "results_store=null", "trainer.enable_progress_bar=true")
    assert outcome.code == 0
    screen.flush()
    assert "image AUROC" in screen.buffer.getvalue().decode(encoding)
    assert Path("run/results.csv").is_file()


@pytest.mark.parametrize("width", one_by_default([20, 40, 60, 80, 200]))
def test_no_width_of_the_terminal_cuts_a_number(crane, tested, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    outcome = crane(*tested, "results_store=null", "trainer.enable_progress_bar=false")
    header, *_, mean = Path("run/results.csv").read_text().splitlines()
    row = dict(zip(header.split(","), mean.split(","), strict=True))
    shown = outcome.out.split("prompts ")[0]
    for metric in ("image_auroc", "pixel_auroc", "aupro"):
        assert f"{100 * float(row[metric]):.1f}" in shown
    assert "…" not in shown


def test_a_changed_folder_changes_no_path(crane, tested):
    assert crane(*tested, "results_store=null", "hydra.job.chdir=true").code == 0
    assert Path("run/results.csv").is_file()


def test_a_closed_pipe_ends_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    typed = [sys.executable, "-m", "crane", "data", "list"]
    done = subprocess.run(typed, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writing)
    assert done.returncode in (1, 141)  # rich's code, or the shells'
    assert done.stderr == ""
