"""Filling a cache entry, by several processes at once; it counts once it is finished."""

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crane.cache.entry import CHECKSUMS, GLOBAL, NAMES, PATCHES, USED, Description, write_entry
from crane.errors import UsageError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""What features can be stored as."""

ON_DISK = {"float32": np.float32, "float16": np.float16, "bfloat16": np.int16}
"""The same for numpy, which knows no bfloat16: its bits are kept as integers."""

ALLOCATED = "allocated"
"""A file that lies there from when all arrays have their size until the entry is finished."""

WRITTEN = np.uint64(1 << 32)
"""Set in the checksum of a row that has been written; the checksum itself has 32 bits."""


class TokenShape(NamedTuple):
    """What one image's features are."""

    num_local: int
    """M, local embeddings."""
    grid: tuple[int, int]
    """Rows h and columns w of patches."""
    width: int
    """E, the joint width."""

    @property
    def patches(self) -> tuple[int, int, int, int]:
        """M, h, w and E."""
        return self.num_local, *self.grid, self.width

    def num_bytes(self, num_images: int, dtype: str) -> int:
        """Bytes of the arrays of so many images.

        >>> TokenShape(1, (37, 37), 768).num_bytes(1000, "float32")  # 4.2 MB an image
        4208648000
        """
        values = self.width + self.num_local * self.grid[0] * self.grid[1] * self.width
        return num_images * (values * np.dtype(ON_DISK[dtype]).itemsize + WRITTEN.nbytes)


def allocate(folder: Path, num_images: int, shape: TokenShape, dtype: str) -> None:
    """Make an entry's folder with empty arrays in it."""
    folder.mkdir(parents=True)
    rows = {GLOBAL: (num_images, shape.width), PATCHES: (num_images, *shape.patches)}
    for name, size in rows.items():
        np.lib.format.open_memmap(folder / name, mode="w+", dtype=ON_DISK[dtype], shape=size)
    np.lib.format.open_memmap(folder / CHECKSUMS, mode="w+", dtype=np.uint64, shape=(num_images,))
    (folder / ALLOCATED).touch()


def is_allocated(folder: Path) -> bool:
    """Whether rows can be written there, also where another process makes the arrays."""
    return (folder / ALLOCATED).exists()


class EntryWriter:
    """Writes rows of an allocated entry; several processes may write different rows.

    Args:
        folder: As `allocate` left it, so `is_allocated` holds.
        dtype: A key of `DTYPES`, as allocated.
    """

    def __init__(self, folder: Path, dtype: str) -> None:
        self.dtype = DTYPES[dtype]
        self._starts: dict[str, tuple[int, int]] = {}
        self._files = {}
        for name in (GLOBAL, PATCHES, CHECKSUMS):
            array = np.lib.format.open_memmap(folder / name, mode="r")
            self._starts[name] = array.offset, array[0].nbytes
            # Written through the file, not the map: a full disk is an error then, not a crash.
            self._files[name] = (folder / name).open("r+b")

    def write(
        self,
        rows: Sequence[int],
        global_: Float[Tensor, "B E"],
        patches: Float[Tensor, "M B N E"],
    ) -> None:
        """Write the features of a batch.

        Args:
            rows: Where each image belongs.
            global_: Global embeddings.
            patches: Local embeddings.

        Raises:
            OSError: The disk is full, or gone.
        """
        contents = zip(
            rows, self._bytes(global_), self._bytes(patches.transpose(0, 1)), strict=True
        )
        for row, one_global, one_patches in contents:
            self._put(GLOBAL, row, one_global)
            self._put(PATCHES, row, one_patches)
            self._put(CHECKSUMS, row, row_checksum(one_global, one_patches).tobytes())

    def _bytes(self, values: Tensor) -> list[bytes]:
        stored = values.detach().to("cpu", self.dtype).contiguous()
        return [row.view(torch.uint8).numpy().tobytes() for row in stored]

    def _put(self, name: str, row: int, content: bytes) -> None:
        start, size = self._starts[name]
        assert len(content) == size
        file = self._files[name]
        file.seek(start + row * size)
        file.write(content)

    def close(self) -> None:
        """Leave nothing in memory that belongs on disk."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()


def row_checksum(global_: bytes, patches: bytes) -> np.uint64:
    """The checksum of one image's features."""
    return WRITTEN | np.uint64(zlib.crc32(patches, zlib.crc32(global_)))


def finish(folder: Path, place: Path, names: Sequence[str], description: Description) -> None:
    """Make a filled folder an entry: from one moment to the next it is there, and whole.

    Args:
        folder: Where it was filled.
        place: Where it belongs, on the same disk.
        names: Of the images, in the order of the rows.
        description: What it is.

    Raises:
        UsageError: Rows are missing, as another process's writes may be on some network disks.
    """
    (folder / NAMES).write_text(json.dumps(list(names)), encoding="utf-8")
    (folder / USED).touch()
    checksums = np.load(folder / CHECKSUMS)
    num_missing = int((checksums < WRITTEN).sum())
    if num_missing:
        raise UsageError(
            f"the features of {len(names)} images in {folder}",
            f"{num_missing} too few",
            key="cache.folder",
            hint="a disk that all processes see at once is needed",
        )
    shape = np.load(folder / PATCHES, mmap_mode="r").shape[1:]
    write_entry(folder, description, len(names), shape)
    (folder / ALLOCATED).unlink()
    folder.rename(place)
