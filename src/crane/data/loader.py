"""Loaders whose workers report a user's mistake as such, and that continue where they stopped."""

import os
import random
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from crane.data.dataset import Item
from crane.data.samplers import EpochSampler
from crane.errors import UsageError
from crane.types import Batch, TokenBatch

Key = TypeVar("Key")

MAX_AUTO_WORKERS = 8
"""More workers than this outrun any model here, and each costs memory."""


class Reporting(Dataset[Item | UsageError]):
    """A data set that returns its `UsageError`s in place of items.

    Torch rebuilds an exception raised in a worker from its message alone, so that the main process
    sees a RuntimeError with a traceback in it. As a value the error arrives as it was.
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

    Workers start with the first batch, not with `iter()`: Lightning makes a resumed run's iterator
    before it tells the sampler which epoch that is.
    """

    def __iter__(self) -> Iterator[Batch | TokenBatch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, UsageError):
                raise batch
            yield batch


class TrainingLoader(ImageLoader):
    """An `ImageLoader` over an `EpochSampler` that can go on in the middle of an epoch.

    Lightning stores `state_dict` in its checkpoints and returns it on resuming.
    """

    _epoch = 0
    _num_served = 0
    _resumed: tuple[int, int] | None = None

    def state_dict(self) -> dict[str, int]:
        """Return the epoch and how many of its batches this process has handed out."""
        return {"epoch": self._epoch, "num_served": self._num_served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Let the next pass, if it is of the stored epoch, begin after the stored batch."""
        self._resumed = state["epoch"], state["num_served"]

    def __iter__(self) -> Iterator[Batch | TokenBatch]:  # type: ignore[override]
        epoch, num_served = self._resumed or (-1, 0)
        self._resumed, self._num_served = None, 0
        # Lightning puts a sampler of its own here when asked to overfit a few batches.
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
    """Make a loader with pinned memory where CUDA is there and seeded workers.

    Args:
        dataset: what `sampler` draws from.
        sampler: this process's share and order; an `EpochSampler` makes the loader resumable.
        batch_size: images a batch.
        num_workers: worker processes; 0 loads in this one.
        seed: of the workers' random states; this process's own is left alone.
        drop_last: whether a last, smaller batch is left out.
        is_kept: whether workers outlive an epoch; not worth their memory for a loader used once.
    """
    kind = TrainingLoader if isinstance(sampler, EpochSampler) else ImageLoader
    return kind(
        Reporting(dataset),  # type: ignore[arg-type]
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
    """Count worker processes for each training process: the cores it has, less the one it runs on.

    Args:
        num_local_processes: training processes on this machine.

    Returns:
        0 to `MAX_AUTO_WORKERS`.
    """
    can_tell = hasattr(os, "sched_getaffinity")
    num_cores = len(os.sched_getaffinity(0)) if can_tell else os.cpu_count() or 1
    return max(0, min(MAX_AUTO_WORKERS, num_cores // num_local_processes - 1))


def _collate(items: Sequence[Item | UsageError]) -> Batch | TokenBatch | UsageError:
    errors = [item for item in items if isinstance(item, UsageError)]
    return errors[0] if errors else default_collate(list(items))


def _seed_worker(worker_id: int) -> None:
    """Give Python's and numpy's generators the seed torch gave this worker."""
    del worker_id
    seed = torch.initial_seed() % 2**32
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  # third-party code reads the global state
