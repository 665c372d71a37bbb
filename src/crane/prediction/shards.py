"""Which part of the images a process takes when several share them."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from crane.errors import UsageError

KEY = "shard"
WHOLE, AUTO = "whole", "auto"

STARTED_WITH = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "SLURM_ARRAY_TASK_ID")
"""What torchrun, srun (in its steps, not in a batch script) and Slurm's arrays set."""


@dataclass(frozen=True)
class Shard:
    """One of `count` shares of the images; they are dealt out in parts, in turn.

    >>> [list(Shard(index, 3).parts(8)) for index in range(3)]
    [[0, 3, 6], [1, 4, 7], [2, 5]]
    """

    index: int
    """Which share, from 0."""
    count: int
    """How many there are."""

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError("K/N with K from 0 to N - 1", f"{self.index}/{self.count}", key=KEY)

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def parts(self, num_parts: int) -> range:
        """Give the numbers of this share's parts."""
        return range(self.index, num_parts, self.count)


def find_shard(spec: str, environment: Mapping[str, str] | None = None) -> Shard:
    """Find a process's share.

    Args:
        spec: `whole`; `K/N`; or `auto`, which asks the environment: torchrun's `RANK` and
            `WORLD_SIZE` or the tasks of a Slurm step, times the tasks of a Slurm array.
        environment: this process's, if not given.

    Raises:
        UsageError: for anything else; for `auto` where nothing in the environment says; and for
            `whole` in one of several processes of torchrun, which would all do the same.

    >>> find_shard("2/4")
    Shard(index=2, count=4)
    >>> find_shard("auto", {"RANK": "1", "WORLD_SIZE": "2"})
    Shard(index=1, count=2)
    """
    environment = os.environ if environment is None else environment
    if spec == WHOLE:
        if _number(environment, "WORLD_SIZE", 1) > 1:
            raise UsageError(
                "a share for each process",
                f"{spec} in each of {environment['WORLD_SIZE']} processes (WORLD_SIZE)",
                key=KEY,
                hint="shard=auto gives each process its own",
            )
        return Shard(0, 1)
    if spec == AUTO:
        return _from_environment(environment)
    match = re.fullmatch(r"(\d+)/(\d+)", spec)
    if match is None:
        raise UsageError("whole, auto, or K/N such as 0/4", spec, key=KEY)
    return Shard(int(match[1]), int(match[2]))


def local_rank(environment: Mapping[str, str] | None = None) -> int:
    """Count this process among those on its machine, from 0, as torchrun and Slurm do."""
    environment = os.environ if environment is None else environment
    return _number(environment, "LOCAL_RANK", _number(environment, "SLURM_LOCALID", 0))


def _from_environment(environment: Mapping[str, str]) -> Shard:
    if not any(name in environment for name in STARTED_WITH):
        raise UsageError(
            "torchrun, srun or a Slurm array to have started this process",
            f"none of {', '.join(STARTED_WITH)} set",
            key=KEY,
            hint="shard=0/4 names a share",
        )
    if "WORLD_SIZE" in environment:
        names = "RANK", "WORLD_SIZE"
    else:
        names = "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"
    process = Shard(_number(environment, names[0], 0), _number(environment, names[1], 1))
    task = _array_task(environment) if "SLURM_ARRAY_TASK_ID" in environment else Shard(0, 1)
    return Shard(task.index * process.count + process.index, task.count * process.count)


def _array_task(environment: Mapping[str, str]) -> Shard:
    number, first, last = (
        _number(environment, f"SLURM_ARRAY_TASK_{name}", 0) for name in ("ID", "MIN", "MAX")
    )
    step = max(1, _number(environment, "SLURM_ARRAY_TASK_STEP", 1))
    count = _number(environment, "SLURM_ARRAY_TASK_COUNT", (last - first) // step + 1)
    if (last - first) // step + 1 != count or (number - first) % step:
        raise UsageError(
            "an array of evenly spaced tasks, such as --array=0-7",
            f"{count} tasks from {first} to {last}, step {step}",
            key=KEY,
        )
    return Shard((number - first) // step, count)


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    try:
        return int(text)
    except ValueError:
        raise UsageError("a whole number", f"{name}={text} in the environment", key=KEY) from None
