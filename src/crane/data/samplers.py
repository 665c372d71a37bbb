"""Which process sees which image, in which order."""

from collections.abc import Iterator, Sized
from itertools import islice

import torch
from torch.utils.data import DistributedSampler, Sampler

from crane.data.mosaics import Draw


class EpochSampler(Sampler[Draw]):
    """Training order: a new one each epoch, fixed by (seed, epoch), with a share for each process.

    The order and the shares are those of torch's `DistributedSampler`: every process gets equally
    many, a few images are repeated where their number does not divide. Lightning calls `set_epoch`
    before each epoch, after resuming too.

    Args:
        dataset: what is sampled.
        num_replicas: processes in all.
        rank: this process, from 0.
        seed: of the orders.
    """

    def __init__(self, dataset: Sized, num_replicas: int, rank: int, seed: int) -> None:
        self._order: DistributedSampler[int] = DistributedSampler(
            dataset,  # type: ignore[arg-type]  # only its length is used
            num_replicas=num_replicas,
            rank=rank,
            shuffle=True,
            seed=seed,
        )
        self.num_skipped = 0
        """Draws the next pass leaves out at its start."""

    @property
    def epoch(self) -> int:
        """The epoch whose order the next pass has."""
        return self._order.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self._order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._order)

    def __iter__(self) -> Iterator[Draw]:
        epoch = self.epoch
        order = islice(iter(self._order), self.num_skipped, None)
        return (Draw(epoch, position) for position in order)


class UnevenSampler(Sampler[int]):
    """Test order: every image goes to exactly one process; none is repeated to even the shares.

    Process r of R sees positions r, r + R, r + 2R, ...; it may see none.

    >>> [list(UnevenSampler(4, num_replicas=3, rank=rank)) for rank in range(3)]
    [[0, 3], [1], [2]]

    Args:
        num_samples: images in all.
        num_replicas: processes in all.
        rank: this process, from 0.
    """

    def __init__(self, num_samples: int, num_replicas: int, rank: int) -> None:
        self._positions = range(rank, num_samples, num_replicas)

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self._positions)


def world(num_replicas: int | None, rank: int | None) -> tuple[int, int]:
    """Find the number of processes and this one's rank: as given, else torch.distributed's.

    >>> world(3, 2), world(None, None)
    ((3, 2), (1, 0))
    """
    if num_replicas is not None and rank is not None:
        return num_replicas, rank
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size(), torch.distributed.get_rank()
    return 1, 0
