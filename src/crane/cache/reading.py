"""Reading features back: mapped into memory, each row checked when it is first used."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crane.cache.entry import CHECKSUMS, GLOBAL, PATCHES, USED, Entry
from crane.cache.writing import DTYPES, row_checksum
from crane.errors import UsageError


class Features:
    """The features of an entry by the name of the image.

    The arrays are mapped, so that processes share them and only what is used is read. Deleting the
    entry does not disturb who has it open.

    Args:
        entry: A finished entry; it counts as used now.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.dtype = DTYPES[entry.description.dtype]
        with suppress(OSError):  # a cache that can only be read serves as well
            os.utime(entry.folder / USED)
        self._rows = {name: row for row, name in enumerate(entry.names)}
        self._open(entry.folder)

    @property
    def computed_in(self) -> torch.dtype:
        """What the towers gave; what is stored may be smaller."""
        dtype: torch.dtype = getattr(torch, self.entry.description.computed_in)
        return dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __call__(self, name: str) -> tuple[Float[Tensor, " E"], Float[Tensor, "M h w E"]]:
        """The global and local embeddings of an image, in the stored type.

        Raises:
            UsageError: The entry has no such image, or its row is not what was written.
        """
        if name not in self._rows:
            raise UsageError(f"an image of the cache entry {self.entry.folder}", name)
        row = self._rows[name]
        global_, patches = np.array(self._global[row]), np.array(self._patches[row])
        if not self._is_checked[row]:
            found = row_checksum(global_.tobytes(), patches.tobytes())
            if found != self._checksums[row]:
                raise self._damaged(name)
            self._is_checked[row] = True
        return self._tensor(global_), self._tensor(patches)

    def _damaged(self, name: str) -> UsageError:
        is_marked = self.entry.mark_broken(f"the features of {name} are not what was written")
        again = "the next run computes the entry again; " if is_marked else ""
        return UsageError(
            f"the features of {name} as they were written",
            f"others in {self.entry.folder}",
            hint=f"{again}`crane cache prune {self.entry.id}` removes the damaged entry",
        )

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).view(self.dtype)

    def _open(self, folder: Path) -> None:
        self._global, self._patches, self._checksums = (
            np.load(folder / name, mmap_mode="r") for name in (GLOBAL, PATCHES, CHECKSUMS)
        )
        self._is_checked = np.zeros(len(self._checksums), dtype=bool)

    def __getstate__(self) -> dict[str, Any]:
        """For workers that are started afresh: they map the arrays for themselves."""
        dropped = ("_global", "_patches", "_checksums", "_is_checked")
        return {name: value for name, value in vars(self).items() if name not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open(self.entry.folder)
