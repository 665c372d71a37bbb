"""Where runs go: a folder of its own for each that names none, and never two at once in one."""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from crane.errors import UsageError, unwritable

LOCK = ".lock"
"""A file in a run's folder, held while the run writes there."""

RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID")
"""What launchers of several processes set; all 0 in the first one."""


def own_folder(name: str) -> str:
    """Make a folder for a run whose name may be taken, as of another one begun in that second.

    Further processes of a run write nothing and take the name as it is.

    Args:
        name: The folder wanted.

    Returns:
        It, or the first of NAME_2, NAME_3, … that nobody has made.

    Raises:
        UsageError: Nothing can be written there.
    """
    if any(os.environ.get(rank, "0") not in ("", "0") for rank in RANKS):
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


@contextmanager
def alone_in(folder: Path, key: str) -> Iterator[None]:
    """Keep other runs out of a folder; the lock ends with the process.

    Args:
        folder: Where this run writes; made where there is none.
        key: What names it.

    Raises:
        UsageError: Another run writes there, or nothing can be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        wanted = "a folder in which no other run writes"
        raise UsageError(wanted, f"{folder}, where one does now", key=key) from error
    except OSError as error:
        raise unwritable(folder, error, key) from error
    try:
        yield
    finally:
        lock.release()
