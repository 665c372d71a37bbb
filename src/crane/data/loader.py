"""Loaders: which process reads which image in which order, and workers that report user errors."""

import os
import random
from collections.abc import Iterator, Sequence, Sized
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler, default_collate

from crane.data.dataset import Draw, Item
from crane.errors import UsageError
from crane.types import Batch, TokenBatch

MAX_AUTO_WORKERS = 8
"""More workers than this outrun every model here, and each costs memory."""


class EpochSampler(Sampler[Draw]):
    """The training order: a new one each epoch, fixed by (seed, epoch), split over the processes.

    The order and the split are those of torch's `DistributedSampler`: every process gets the same
    number of images, and a few are repeated if their number does not divide. Lightning calls
    `set_epoch` before each epoch, also after resuming.

    Args:
        dataset: What is sampled.
        num_replicas: Number of processes.
        rank: This process, from 0.
        seed: Seed of the orders.
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
        """Draws that the next pass leaves out at its start."""

    @property
    def epoch(self) -> int:
        """The epoch of the next pass."""
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
    """The test order: every image goes to exactly one process; none is repeated.

    Process r of R reads positions r, r + R, r + 2R, ...; it may get none.

    >>> [list(UnevenSampler(4, num_replicas=3, rank=rank)) for rank in range(3)]
    [[0, 3], [1], [2]]

    Args:
        num_samples: Number of images.
        num_replicas: Number of processes.
        rank: This process, from 0.
    """

    def __init__(self, num_samples: int, num_replicas: int, rank: int) -> None:
        self._positions = range(rank, num_samples, num_replicas)

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self._positions)


class ErrorsAsItems(Dataset[Item | UsageError]):
    """A data set that returns its `UsageError`s in place of items.

    Torch rebuilds an exception raised in a worker from its message alone, so that the main process
    sees a RuntimeError that contains a traceback. As a value the error arrives unchanged.
    """

    def __init__(self, dataset: Dataset[Item]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: Any) -> Item | UsageError:
        try:
            return self.dataset[key]
        except UsageError as error:
            return error


class ImageLoader(DataLoader[Item]):
    """Yields `Batch`es, or `TokenBatch`es where features are cached; made by `image_loader`.

    Workers start with the first batch, not with `iter()`: Lightning creates the iterator of a
    resumed run before it sets the sampler's epoch.
    """

    def __iter__(self) -> Iterator[Batch | TokenBatch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, UsageError):
                raise batch
            yield batch


class TrainingLoader(ImageLoader):
    """An `ImageLoader` over an `EpochSampler` that can resume in the middle of an epoch.

    `crane train` writes checkpoints at ends of epochs only, but Lightning also saves one wherever
    it is when Slurm warns a job that is to be requeued (SIGUSR1), and stores `state_dict` in it.
    """

    _epoch = 0
    _num_served = 0
    _resumed: tuple[int, int] | None = None

    def state_dict(self) -> dict[str, int]:
        """The epoch and how many of its batches this process has yielded."""
        return {"epoch": self._epoch, "num_served": self._num_served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Start the next pass after the stored batch, if it is of the stored epoch."""
        self._resumed = state["epoch"], state["num_served"]

    def __iter__(self) -> Iterator[Batch | TokenBatch]:  # type: ignore[override]
        epoch, num_served = self._resumed or (-1, 0)
        self._resumed, self._num_served = None, 0
        # With overfit_batches, Lightning replaces the sampler by its own.
        if isinstance(self.sampler, EpochSampler):
            self._epoch = self.sampler.epoch
            self._num_served = num_served if epoch == self._epoch else 0
            self.sampler.num_skipped = self._num_served * (self.batch_size or 1)
        for batch in super().__iter__():
            self._num_served += 1
            yield batch


def image_loader(
    dataset: Dataset[Item],
    sampler: Sampler[Any],
    *,
    batch_size: int,
    num_workers: int,
    seed: int,
    drop_last: bool,
    is_kept: bool,
) -> ImageLoader:
    """Make a loader with seeded workers, and with pinned memory if there is CUDA.

    Args:
        dataset: The images that `sampler` draws from.
        sampler: This process's share and order; with an `EpochSampler` the loader can resume.
        batch_size: Images per batch.
        num_workers: Worker processes; 0 loads in this one.
        seed: Seed of the workers' random states; this process's own is not touched.
        drop_last: Whether to leave out a last, smaller batch.
        is_kept: Whether workers outlive an epoch; not worth their memory for a loader used once.
    """
    kind = TrainingLoader if isinstance(sampler, EpochSampler) else ImageLoader
    return kind(
        ErrorsAsItems(dataset),  # type: ignore[arg-type]
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        drop_last=drop_last,
        worker_init_fn=_seed_worker,
        persistent_workers=is_kept and num_workers > 0,
        generator=torch.Generator().manual_seed(seed),
    )


def auto_num_workers(num_local_processes: int) -> int:
    """The number of worker processes per training process: its share of the cores, less one.

    Args:
        num_local_processes: Training processes on this machine.

    Returns:
        0 to `MAX_AUTO_WORKERS`.
    """
    can_tell = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if can_tell else os.cpu_count() or 1
    return max(0, min(MAX_AUTO_WORKERS, num_cores // num_local_processes - 1))


def world() -> tuple[int, int]:
    """The number of processes and this one's rank, as torch.distributed has them.

    >>> world()
    (1, 0)
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_world_size(), torch.distributed.get_rank()
    return 1, 0


def _collate(items: Sequence[Item | UsageError]) -> Batch | TokenBatch | UsageError:
    errors = [item for item in items if isinstance(item, UsageError)]
    return errors[0] if errors else default_collate(list(items))


def _seed_worker(worker_id: int) -> None:
    """Seed the global generators of Python and numpy with the seed that torch gave this worker."""
    del worker_id
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # third-party code reads the global state
