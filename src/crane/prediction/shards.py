"""Shares of the images, for several processes that predict together."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from crane.errors import UsageError
from crane.processes import Launched, array_task, launched


@dataclass(frozen=True)
class Shard:
    """One of `count` shares of the images; parts are dealt out to shards in turn.

    Raises:
        UsageError: There is no such share.

    >>> [list(Shard(index, 3).parts(8)) for index in range(3)]
    [[0, 3, 6], [1, 4, 7], [2, 5]]
    """

    index: int
    """Which share, from 0."""
    count: int
    """How many there are."""

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"must be K/N with K from 0 to N - 1, not {self.index}/{self.count}", key="shard"
            )

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def parts(self, num_parts: int) -> range:
        """Numbers of the parts of this share."""
        return range(self.index, num_parts, self.count)


def find_shard(spec: str, environment: Mapping[str, str] | None = None) -> Shard:
    """Find the share of this process.

    Args:
        spec: `whole`; `K/N`; or `auto`, which reads from the environment what torchrun or a Slurm
            step started, times the tasks of a Slurm array.
        environment: This process's environment unless given.

    Raises:
        UsageError: `spec` is none of these; `auto`, but nothing launched this process; or `whole`,
            but there are several processes, each of which would predict on all images.

    >>> find_shard("2/4")
    Shard(index=2, count=4)
    >>> find_shard("auto", {"RANK": "1", "WORLD_SIZE": "2"})
    Shard(index=1, count=2)
    """
    process = launched(environment)
    if spec == "whole":
        if process is not None and process.size > 1:
            raise UsageError(
                f"each of {process.size} processes would predict on all images; "
                "shard=auto gives each its own share",
                key="shard",
            )
        return Shard(0, 1)
    if spec == "auto":
        task = array_task(environment)
        if process is None and task is None:
            raise UsageError(
                "shard=auto needs torchrun, srun or a Slurm array, none of which started this "
                "process; name its share, such as shard=0/4",
                key="shard",
            )
        alone = Launched(0, 1, 0)
        process, task = process or alone, task or alone
        return Shard(task.rank * process.size + process.rank, task.size * process.size)
    match = re.fullmatch(r"(\d+)/(\d+)", str(spec))
    if match is None:
        raise UsageError(f"must be whole, auto or K/N such as 0/4, not {spec!r}", key="shard")
    return Shard(int(match[1]), int(match[2]))
