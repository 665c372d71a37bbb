"""Starting a command's run: a folder of its own, a share of the cores, and no other run beside it.

Imports neither torch nor pandas: every command passes through here before it says what is wrong.
"""

import itertools
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from crane import processes
from crane.errors import UsageError, unwritable
from crane.files import shown_path

LOCK = ".lock"
"""A file in a run's folder, held while the run writes there."""

MAX_LENGTH = 100
"""Characters in the name of a job's folder; file systems take 255 bytes."""


def own_folder(name: str) -> str:
    """Create a run's folder; a name that is taken, as by a run of the same second, is numbered.

    Further processes of a run create nothing and use the name as it is.

    Args:
        name: The folder wanted.

    Returns:
        It, or the first of NAME_2, NAME_3, … that does not exist.

    Raises:
        UsageError: It cannot be created.
    """
    if not processes.is_first():
        return name
    for number in itertools.count(1):
        folder = Path(name if number == 1 else f"{name}_{number}")
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            if folder.is_dir():
                continue
            raise unwritable(folder, error, "hydra.run.dir") from error
        return str(folder)
    raise AssertionError


def job_folder(number: object, varies: object) -> str:
    """A job's folder in a multirun: its number and what varies, safe in shells and for Hydra.

    >>> job_folder(3, "attention=vv,dataset@source=[mvtec,visa],seed=1")
    '3_attention=vv_source=mvtec_visa_seed=1'
    >>> len(job_folder(0, "x" * 500))
    100
    """
    without_group = re.sub(r"\b\w+@", "", str(varies))
    words = re.sub(r"[^\w=.+-]+", "_", re.sub(r"[\[\]'\"]", "", without_group))
    return f"{number}_{words}"[:MAX_LENGTH].rstrip("._=")


@contextmanager
def alone_in(folder: Path, key: str) -> Iterator[None]:
    """Lock a folder against other runs; the lock ends with the process.

    Args:
        folder: Where this run writes; created if it does not exist.
        key: The key that names it.

    Raises:
        UsageError: Another run holds the lock, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        message = f"another run is writing to {folder}; wait for it or choose another {key}"
        raise UsageError(message, key=key) from error
    except OSError as error:
        raise unwritable(folder, error, key) from error
    try:
        yield
    finally:
        lock.release()


def check_alone() -> None:
    """Refuse a multirun in several processes, each of which would run every job.

    Raises:
        UsageError: torchrun or srun started more than one process.
    """
    launched = processes.launched()
    if launched is not None and launched.size > 1:
        raise UsageError(
            f"a multirun starts the processes of its jobs itself, but torchrun or srun started "
            f"{launched.size}; use trainer.devices or hydra/launcher instead"
        )


def share_cores(config: DictConfig) -> None:
    """Divide the data-loading processes among the jobs of the joblib launcher if they are `auto`.

    joblib itself divides the threads, unless OMP_NUM_THREADS is set.

    Args:
        config: The configuration of a command; changed if it loads data.
    """
    num_jobs = side_by_side()
    if num_jobs == 1 or "data" not in config or config.data.get("num_workers") != "auto":
        return
    from crane.data.loader import auto_num_workers

    devices = config.trainer.devices
    num_processes = devices if isinstance(devices, int) and devices > 0 else 1
    config.data.num_workers = auto_num_workers(num_jobs * num_processes)


def side_by_side() -> int:
    """How many jobs of this multirun may run on this machine at the same time."""
    launcher = HydraConfig.get().launcher
    if "joblib" not in launcher._target_:
        return 1
    num_jobs = int(launcher.n_jobs)  # joblib counts from all cores if it is negative
    return num_jobs if num_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + num_jobs)


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM (`kill`, Slurm's time limit) into SystemExit, so that files are closed.

    Lightning has a handler of its own while it trains or tests, which ends after a batch.

    Raises:
        SystemExit: With 143, the shells' code for it.
    """

    def end(number: int, frame: object) -> None:
        if signal.getsignal(number) is end:  # else Lightning's handler has called this one
            raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def softly_stopping() -> Iterator[threading.Event]:
    """Yield an event that the first SIGTERM or Ctrl-C sets; a second one ends at once.

    Raises:
        SystemExit: With 143 at the end of the block, after SIGTERM.
        KeyboardInterrupt: The same after Ctrl-C.
    """
    stop, numbers = threading.Event(), (signal.SIGTERM, signal.SIGINT)
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def end(number: int, frame: object) -> None:
        caught.append(number)
        stop.set()
        restore()

    if threading.current_thread() is threading.main_thread():
        for number in numbers:
            signal.signal(number, end)
    try:
        yield stop
    finally:
        if not caught and threading.current_thread() is threading.main_thread():
            restore()
    if caught:
        raise KeyboardInterrupt if caught[0] == signal.SIGINT else SystemExit(128 + caught[0])


def resumption(config: DictConfig) -> str:
    """What a stopped run has kept, and how it continues."""
    last = Path(config.run_dir) / "checkpoints" / "last.ckpt"
    if "resume" in config and last.is_file():
        return f"the same command with resume={shown_path(last)} continues the training"
    if "part_size" in config and (Path(config.output) / "scores").is_dir():
        output = shown_path(Path(config.output))
        return f"finished parts are kept; the same command with output={output} resumes"
    return "run the same command again"


class MultirunCallback(Callback):
    """Hydra's callback for multiruns; `crane.cli.sweeps` is imported by the first one only.

    Hydra creates it for every command.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check and lock the multirun's folder."""
        from crane.cli import sweeps

        sweeps.start(config)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the summary."""
        from crane.cli import sweeps

        sweeps.end(config)
