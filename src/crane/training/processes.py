"""How the processes of a run end: those that Lightning starts, and this one when it is told to."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import distributed

from crane.errors import UsageError

STARTED_WITH = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
"""What Lightning leaves in the environment for the processes it starts."""

PATIENCE = 10
"""Seconds in which the processes of a run that failed may say what they know."""


class StopWhenTold(Callback):
    """Ends a run that got SIGTERM (`kill`, Slurm's preemption) after the batch at hand.

    Lightning notes the signal, but looks at it only between batches of training and testing: a pass
    over the towers, or whatever comes after a last batch, would go on as if nothing had been said.
    """

    def on_predict_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Look after each batch of a pass over the towers."""
        _stop_if_told(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the end of a pass over the towers."""
        _stop_if_told(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the end of a training."""
        _stop_if_told(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the end of a test."""
        _stop_if_told(trainer)


def _stop_if_told(trainer: Trainer) -> None:
    if trainer.received_sigterm:
        raise SIGTERMException


@contextmanager
def own_processes() -> Iterator[None]:
    """Let further processes end with the work in here, so that the next work starts its own.

    Without it the second run of a multirun waits for the processes of the first.
    """
    before = {name: os.environ.get(name) for name in STARTED_WITH}
    try:
        yield
    finally:
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def ending_together(trainer: Trainer) -> Iterator[None]:
    """End the processes that a trainer has started where the work in here fails.

    Lightning watches them, and kills this process some seconds after one of them has failed: the
    whole multirun, where this is one of its jobs.

    Args:
        trainer: Of the run.

    Raises:
        SystemExit: With 143, as shells report SIGTERM, where the run was told to stop.
    """
    try:
        yield
    except BaseException as error:
        watched = getattr(trainer.strategy.launcher, "procs", [])
        started = list(watched)
        watched.clear()  # the very list that Lightning looks at
        for process in started:
            _end(process)
        if isinstance(error, SIGTERMException):
            raise SystemExit(128 + signal.SIGTERM) from error
        raise


def _end(process: subprocess.Popen) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:  # it waits for this one
        process.kill()
        process.wait()


def check_processes(trainer: Trainer) -> None:
    """Refuse processes that torchrun has started and that know nothing of each other.

    Args:
        trainer: Of the run.

    Raises:
        UsageError: Each process would do the whole run, in the same folder.
    """
    num_started = int(os.environ.get("WORLD_SIZE", 1))
    if num_started > 1 and trainer.world_size != num_started:
        raise UsageError(
            f"a trainer for the {num_started} processes that were started",
            f"one of {trainer.world_size}",
            key="trainer (ddp), trainer.devices or trainer.num_nodes",
        )
