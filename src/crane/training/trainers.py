"""The trainer of a run: the arguments it takes, and how its processes end."""

import inspect
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException
from torch import distributed

from crane.checks import Fraction, NonNegativeFloat, NonNegativeInt, PositiveInt, Text, checked
from crane.errors import UsageError
from crane.processes import launched

Precision = Literal["32-true", "bf16-mixed", "16-mixed", "64-true", "bf16-true", "16-true"]

PARTIAL = ("limit_val_batches", "limit_predict_batches", "fast_dev_run", "overfit_batches")
"""Arguments of Lightning's trainer that measure a part of the data and report it as the whole."""

STARTED_WITH = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
"""Variables that Lightning leaves in the environment for the processes it starts."""

PATIENCE = 10
"""Seconds that the processes of a failed run have to report their errors."""


@checked
def trainer(
    *,
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"],
    devices: PositiveInt | Literal["auto"] | list[NonNegativeInt],
    num_nodes: PositiveInt,
    strategy: Text,
    precision: Precision,
    max_epochs: PositiveInt,
    max_steps: PositiveInt | Literal[-1],
    limit_train_batches: PositiveInt | Fraction | None,
    limit_test_batches: None,
    log_every_n_steps: NonNegativeInt,
    deterministic: bool | Literal["warn"],
    gradient_clip_val: NonNegativeFloat | None,
    num_sanity_val_steps: NonNegativeInt,
    use_distributed_sampler: Literal[False],
    enable_progress_bar: bool,
    enable_model_summary: bool,
    default_root_dir: Text | Path,
    callbacks: list[Callback] | None = None,
    logger: Logger | bool | None = None,
    **more: Any,
) -> Trainer:
    """Build Lightning's trainer.

    Args:
        accelerator: Kind of device; `auto` takes a GPU if there is one.
        devices: Devices per node, or their numbers.
        num_nodes: Machines.
        strategy: `auto`, or how processes share the work, such as `ddp`.
        precision: Numbers that are computed with; the published results are in `32-true`.
        max_epochs: Epochs.
        max_steps: Steps after which the training ends earlier; -1 is no limit.
        limit_train_batches: Batches of an epoch, or a fraction of them; None is all.
        limit_test_batches: None: results are of every image.
        log_every_n_steps: Steps between logged values.
        deterministic: Whether operations that are not deterministic are refused, or warned of.
        gradient_clip_val: Largest norm of the gradients; None does not clip.
        num_sanity_val_steps: Batches of validation before the training.
        use_distributed_sampler: False: the loaders share out the images themselves.
        enable_progress_bar: Whether progress is shown.
        enable_model_summary: Whether a table of the model's parts is printed.
        default_root_dir: Folder of files that no other key places.
        callbacks: Callbacks of the run.
        logger: The run's logger.
        more: Further arguments of `lightning.Trainer`, as `+trainer.NAME=VALUE`.

    Raises:
        UsageError: Lightning or this machine does not support the arguments, they would measure a
            part of the data only, or torchrun started processes that the trainer does not know.
    """
    given = {name: value for name, value in locals().items() if name != "more"}
    _check_more(more)
    if accelerator == "cpu":  # Lightning would take bfloat16 instead
        _check_precision(precision)
    try:
        built = Trainer(**given, **more)
    except (MisconfigurationException, ValueError) as error:
        raise _refused(error) from error
    if built.strategy.root_device.type == "cpu":
        _check_precision(precision)
    check_processes(built)
    return built


def _check_precision(precision: str) -> None:
    """Refuse 16-bit floats on the CPU."""
    if precision.startswith("16"):
        raise UsageError(
            f"{precision} needs a GPU; on the CPU use trainer.precision=32-true or bf16-mixed",
            key="trainer.precision",
        )


def _check_more(more: dict[str, Any]) -> None:
    known = inspect.signature(Trainer).parameters
    for name, value in more.items():
        if name not in known:
            raise UsageError(
                f"unknown key trainer.{name}: neither crane nor Lightning has it",
                key=f"trainer.{name}",
            )
        if name in PARTIAL:
            raise UsageError(
                f"trainer.{name}={value} would report a part of the data as the whole; leave it "
                "out",
                key=f"trainer.{name}",
            )


def _refused(error: Exception) -> UsageError:
    """The user's error for one of Lightning's."""
    if "No supported gpu backend" in str(error) or "CUDAAccelerator" in str(error):
        return UsageError("no GPU found on this machine; use trainer=cpu", key="trainer")
    return UsageError(f"Lightning refuses these values of trainer: {error}", key="trainer")


def check_processes(built: Trainer) -> None:
    """Refuse processes that a launcher started and that know nothing of each other.

    Raises:
        UsageError: Each process would do the whole run, in the same folder.
    """
    process = launched()
    if process is not None and process.size > 1 and built.world_size != process.size:
        raise UsageError(
            f"{process.size} processes were started, but the trainer expects {built.world_size}; "
            "use trainer=ddp with as many trainer.devices and trainer.num_nodes",
            key="trainer",
        )


class StopWhenTold(Callback):
    """Ends a run after the current batch when it received SIGTERM (`kill`, Slurm's preemption).

    Lightning notes the signal but looks at it only between batches of training and testing, not
    during feature extraction or after a last batch.
    """

    def on_predict_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Look after each batch of a feature extraction."""
        _stop_if_told(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the end of a feature extraction."""
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
    """Leave nothing of a run's further processes behind, so that the next run starts its own.

    Otherwise the second run of a multirun waits for the processes of the first.
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
def ending_together(built: Trainer) -> Iterator[None]:
    """End the processes that a trainer has started if the block fails.

    Lightning watches them and kills this process some seconds after one of them has failed, and
    with it the whole multirun.

    Args:
        built: The run's trainer.

    Raises:
        SystemExit: With 143, the shells' code for SIGTERM, if the run was told to stop.
        KeyboardInterrupt: On Ctrl-C, of which Lightning makes a SystemExit with 1.
    """
    try:
        yield
    except BaseException as error:
        watched = getattr(built.strategy.launcher, "procs", [])
        started = list(watched)
        watched.clear()  # the very list that Lightning looks at
        for process in started:
            _end(process)
        if isinstance(error, SIGTERMException):
            raise SystemExit(128 + signal.SIGTERM) from error
        if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, signal.default_int_handler)  # Lightning ignores it by now
            raise KeyboardInterrupt from error
        raise


def _end(process: subprocess.Popen) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:  # it waits for this one
        process.kill()
        process.wait()
