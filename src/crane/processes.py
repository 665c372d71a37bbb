"""What a launcher (torchrun, Slurm, Lightning) says of this process in its environment."""

import os
from collections.abc import Mapping
from typing import NamedTuple

from crane.errors import UsageError


class Launched(NamedTuple):
    """One process among those that a launcher started.

    >>> [list(Launched(rank, 3, rank).share(8)) for rank in range(3)]
    [[0, 3, 6], [1, 4, 7], [2, 5]]
    """

    rank: int
    """Its number among all, from 0."""
    size: int
    """How many there are."""
    local_rank: int
    """Its number among those on its machine, from 0."""

    def share(self, num: int) -> range:
        """Which of several things this process takes, dealt out in turn."""
        return range(self.rank, num, self.size)


ALONE = Launched(0, 1, 0)
"""A process that nothing launched."""


def launched(environment: Mapping[str, str] | None = None) -> Launched | None:
    """The process as its launcher numbers it; None where nothing launched it.

    Args:
        environment: This process's environment unless given.

    Raises:
        UsageError: A variable of a launcher is no number.

    >>> launched({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"})
    Launched(rank=1, size=2, local_rank=1)
    >>> launched({"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4"})
    Launched(rank=3, size=4, local_rank=0)
    >>> launched({}) is None
    True
    """
    environment = os.environ if environment is None else environment
    if "WORLD_SIZE" in environment:
        rank, size = number(environment, "RANK", 0), number(environment, "WORLD_SIZE", 1)
    elif "SLURM_STEP_NUM_TASKS" in environment:  # srun's steps; a batch script is none
        rank = number(environment, "SLURM_PROCID", 0)
        size = number(environment, "SLURM_STEP_NUM_TASKS", 1)
    else:
        return None
    return Launched(rank, size, local_rank(environment))


def local_rank(environment: Mapping[str, str] | None = None) -> int:
    """The process's number among those on its machine, from 0; 0 if nothing launched it."""
    environment = os.environ if environment is None else environment
    return number(environment, "LOCAL_RANK", number(environment, "SLURM_LOCALID", 0))


def is_first() -> bool:
    """Whether this is the process that writes: the only one, or the first of all."""
    names = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")  # Lightning sets LOCAL_RANK alone
    return all(os.environ.get(name, "0") in ("", "0") for name in names)


def number(environment: Mapping[str, str], name: str, default: int) -> int:
    """A whole number from the environment.

    Raises:
        UsageError: It is something else.
    """
    text = environment.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        message = f"the environment variable {name} must be an integer, not {text!r}"
        raise UsageError(message) from None
