"""Processes: those of a failed run end with it, strangers are refused, SIGTERM ends a run."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from lightning import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from crane.errors import UsageError
from crane.training import processes
from crane.training.processes import StopWhenTold, check_processes, ending_together


class Started(Trainer):
    """What counts of a trainer here: how many processes it knows of, and those it started."""

    world_size, strategy = 1, None

    def __init__(self, world_size=1, procs=None):
        launcher = None if procs is None else SimpleNamespace(procs=procs)
        self.world_size, self.strategy = world_size, SimpleNamespace(launcher=launcher)


@pytest.mark.parametrize(("num_started", "world_size"), [(None, 1), (None, 2), ("1", 4), ("2", 2)])
def test_processes_that_know_of_each_other_may_run(monkeypatch, num_started, world_size):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if num_started is not None:
        monkeypatch.setenv("WORLD_SIZE", num_started)
    check_processes(Started(world_size))


def test_processes_that_would_each_do_the_whole_run_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"the 2 processes that were started.*one of 1.*ddp"):
        check_processes(Started(world_size=1))


def start(code):
    return subprocess.Popen([sys.executable, "-c", code])


def test_the_processes_of_a_failed_run_end_and_are_watched_no_more(monkeypatch):
    """One ends by itself and may say why, the other waits for ever."""
    monkeypatch.setattr(processes, "PATIENCE", 2)
    watched = started = [start("raise SystemExit(3)"), start("import time; time.sleep(600)")]
    first, second = started
    with pytest.raises(ValueError, match="the run's own"), ending_together(Started(procs=watched)):
        raise ValueError("the run's own")
    assert watched == []
    assert first.returncode == 3
    assert second.returncode == -9


def test_a_run_that_ends_well_leaves_its_processes_to_lightning():
    watched = [start("pass")]
    with ending_together(Started(procs=watched)):
        pass
    assert len(watched) == 1
    assert watched[0].wait() == 0
    with pytest.raises(ValueError, match="alone"), ending_together(Started()):
        raise ValueError("alone")


class Told(Callback):
    """Sends SIGTERM to this process in a batch, as `kill` does."""

    def __init__(self, batch):
        self.batch, self.seen = batch, 0

    def look(self, trainer, pl_module, *others):
        if self.seen == self.batch:
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, "Lightning listens"
            os.kill(os.getpid(), signal.SIGTERM)
        self.seen += 1

    on_predict_batch_start = on_test_batch_start = on_train_batch_start = look


@pytest.mark.parametrize("batch", [0, 3], ids=["first batch", "last batch"])
@pytest.mark.parametrize("stage", ["predict", "test", "fit"])
def test_a_run_that_is_told_to_stop_stops_after_the_batch_and_says_so(stage, batch, tmp_path):
    told = Told(batch)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=4,
        limit_test_batches=4,
        limit_predict_batches=4,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        callbacks=[told, StopWhenTold()],
    )
    with pytest.raises(SystemExit) as stopped, ending_together(trainer):
        getattr(trainer, stage)(BoringModel())
    assert stopped.value.code == 143
    assert told.seen == batch + 1
