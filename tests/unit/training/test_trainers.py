"""The trainer's arguments; the processes of a failed run end with it; SIGTERM ends a run."""

import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringModel

from crane.config import compose
from crane.errors import UsageError
from crane.gate import build
from crane.training import trainers
from crane.training.trainers import StopWhenTold, check_processes, ending_together


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
    with pytest.raises(UsageError, match=r"2 processes were .* expects 1; use trainer=ddp"):
        check_processes(Started(world_size=1))


def test_tasks_of_slurm_that_would_each_do_the_whole_run_are_refused(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(UsageError, match="4 processes were started"):
        check_processes(Started(world_size=1))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("trainer.max_epochs=-1", "trainer.max_epochs must be an integer of at least 1, not -1"),
        ("trainer.max_epochs=0", "trainer.max_epochs must be an integer of at least 1, not 0"),
        ("trainer.max_epochs=1.5", r"trainer.max_epochs must be an integer .*, not 1\.5"),
        ("trainer.max_epochs=null", "trainer.max_epochs must be an integer .*, not null"),
        ("trainer.max_epochs=true", "trainer.max_epochs must be an integer .*, not true"),
        ("trainer.max_steps=0", "trainer.max_steps must be an integer of at least 1 or -1"),
        ("trainer.precision=17-true", "trainer.precision must be 32-true, bf16-mixed, "),
        ("trainer.precision=16-true", "16-true needs a GPU; on the CPU use trainer.precision=32-t"),
        ("trainer.precision=16-mixed", "16-mixed needs a GPU"),
        ("trainer.accelerator=abacus", "trainer.accelerator must be auto, cpu, gpu, "),
        ("trainer.devices=banana", "trainer.devices must be an integer .* auto or a list"),
        (
            "trainer.gradient_clip_val=-1",
            "trainer.gradient_clip_val must be a number of at",
        ),
        ("trainer.gradient_clip_val=nan", "trainer.gradient_clip_val must be a number"),
        ("trainer.use_distributed_sampler=true", "trainer.use_distributed_sampler must be false"),
        ("trainer.strategy=together", "Lightning refuses these values of trainer: .*together"),
        ("trainer.limit_test_batches=1", "trainer.limit_test_batches must be null, not 1"),
        ("+trainer.limit_val_batches=1", "would report a part of the data as the whole"),
        ("+trainer.fast_dev_run=true", "would report a part of the data as the whole"),
        ("+trainer.limit_tset_batches=1", "unknown key trainer.limit_tset_batches"),
    ],
)
def test_values_that_do_not_fit_are_refused_with_their_key(typed, message):
    config = compose("train", ["trainer=cpu", typed]).trainer
    with pytest.raises(UsageError, match=message):
        build(config, "trainer", callbacks=[], logger=False)


def test_further_arguments_reach_lightning():
    config = compose("train", ["trainer=cpu", "+trainer.accumulate_grad_batches=3"]).trainer
    assert build(config, "trainer", logger=False).accumulate_grad_batches == 3


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("typed", [("trainer=gpu",), ("trainer=cpu", "trainer.accelerator=cuda")])
def test_a_missing_gpu_says_what_to_type(typed):
    with pytest.raises(UsageError) as caught:
        build(compose("train", typed).trainer, "trainer", logger=False)
    assert str(caught.value) == "no GPU found on this machine; use trainer=cpu"


def start(code):
    return subprocess.Popen([sys.executable, "-c", code])


def test_the_processes_of_a_failed_run_end_and_are_watched_no_more(monkeypatch):
    """One ends by itself and may say why, the other waits for ever."""
    monkeypatch.setattr(trainers, "PATIENCE", 2)
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
