"""Writing features into an entry, by several processes at once, and reading them back.

Arrays are mapped into memory; each row is checked when it is first used.
"""

import json
import math
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crane.cache.entry import (
    ARRAYS,
    CHECKSUMS,
    GLOBAL,
    NAMES,
    ON_DISK,
    PATCHES,
    USED,
    Description,
    Entry,
    write_entry,
)
from crane.errors import UsageError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
"""Types that features can be stored in."""

ALLOCATED = "allocated"
"""A file that exists from when all arrays have their size until the entry is finished."""

WRITTEN = np.uint64(1 << 32)
"""Set in the checksum of a row that has been written; the checksum itself has 32 bits."""


class FeatureShape(NamedTuple):
    """Shape of one image's features."""

    global_width: int
    """G, width of the vector."""
    planes: tuple[int, ...]
    """Planes M, rows h, columns w and width D."""

    def num_bytes(self, num_images: int, dtype: str) -> int:
        """Bytes of the arrays for a number of images.

        >>> FeatureShape(768, (1, 37, 37, 768)).num_bytes(1000, "float32")  # 4.2 MB an image
        4208648000
        """
        values = self.global_width + math.prod(self.planes)
        return num_images * (values * np.dtype(ON_DISK[dtype]).itemsize + WRITTEN.nbytes)


def allocate(folder: Path, num_images: int, shape: FeatureShape, dtype: str) -> None:
    """Create an entry's folder with empty arrays."""
    folder.mkdir(parents=True)
    rows = {GLOBAL: (num_images, shape.global_width), PATCHES: (num_images, *shape.planes)}
    for name, size in rows.items():
        np.lib.format.open_memmap(folder / name, mode="w+", dtype=ON_DISK[dtype], shape=size)
    np.lib.format.open_memmap(folder / CHECKSUMS, mode="w+", dtype=np.uint64, shape=(num_images,))
    (folder / ALLOCATED).touch()


def is_allocated(folder: Path) -> bool:
    """Whether rows can be written there, even if another process creates the arrays."""
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
        for name in ARRAYS:
            array = np.lib.format.open_memmap(folder / name, mode="r")
            self._starts[name] = array.offset, array[0].nbytes
            # Written through the file, not the map: a full disk is then an error, not a crash.
            self._files[name] = (folder / name).open("r+b")

    def write(
        self,
        rows: Sequence[int],
        global_: Float[Tensor, "B G"],
        planes: Float[Tensor, "B M h w D"],
    ) -> None:
        """Write the features of a batch.

        Args:
            rows: Row of each image.
            global_: Their vectors.
            planes: Their planes.

        Raises:
            OSError: The disk is full or gone.
        """
        contents = zip(rows, self._bytes(global_), self._bytes(planes), strict=True)
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
        """Flush everything to the disk."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()


def row_checksum(global_: bytes, patches: bytes) -> np.uint64:
    """The checksum of one image's features."""
    return WRITTEN | np.uint64(zlib.crc32(patches, zlib.crc32(global_)))


def finish(folder: Path, place: Path, names: Sequence[str], description: Description) -> None:
    """Turn a filled folder into an entry, which appears at once and complete.

    Args:
        folder: Where it was filled.
        place: Where it belongs, on the same disk.
        names: Names of the images, in the order of the rows.
        description: Its description.

    Raises:
        UsageError: Rows are missing, such as another process's on some network disks.
    """
    (folder / NAMES).write_text(json.dumps(list(names)), encoding="utf-8")
    (folder / USED).touch()
    checksums = np.load(folder / CHECKSUMS)
    num_missing = int((checksums < WRITTEN).sum())
    if num_missing:
        raise UsageError(
            f"the features of {num_missing} of {len(names)} images did not arrive in {folder}; "
            "choose a cache.folder on a disk that all processes share",
            key="cache.folder",
        )
    shape = np.load(folder / PATCHES, mmap_mode="r").shape[1:]
    width = np.load(folder / GLOBAL, mmap_mode="r").shape[1]
    write_entry(folder, description, len(names), shape, width)
    (folder / ALLOCATED).unlink()
    folder.rename(place)


class Features:
    """The features of an entry by the name of the image.

    The arrays are mapped, so that processes share them and only the rows in use are read. Deleting
    the entry does not disturb processes that have it open.

    Args:
        entry: A finished entry; this marks it as used now.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.dtype = DTYPES[entry.description.dtype]
        with suppress(OSError):  # a read-only cache serves as well
            os.utime(entry.folder / USED)
        self._rows = {name: row for row, name in enumerate(entry.names)}
        self._open(entry.folder)

    @property
    def computed_in(self) -> torch.dtype:
        """Type of the towers' output; features may be stored in a smaller one."""
        dtype: torch.dtype = getattr(torch, self.entry.description.computed_in)
        return dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __call__(self, name: str) -> tuple[Float[Tensor, " G"], Float[Tensor, "M h w D"]]:
        """The vector and the planes of an image, in the stored type.

        Raises:
            UsageError: The entry has no such image, or its row is damaged.
        """
        if name not in self._rows:
            raise UsageError(f"the cache entry {self.entry.folder} has no image {name}")
        row = self._rows[name]
        global_, patches = np.array(self._global[row]), np.array(self._patches[row])
        if not self._is_checked[row]:
            found = row_checksum(global_.tobytes(), patches.tobytes())
            if found != self._checksums[row]:
                raise self._damaged(name)
            self._is_checked[row] = True
        return self._tensor(global_), self._tensor(patches)

    def _damaged(self, name: str) -> UsageError:
        is_marked = self.entry.mark_broken(f"the features of {name} are damaged")
        again = "the next run computes them again, or " if is_marked else ""
        return UsageError(
            f"the cached features of {name} in {self.entry.folder} are damaged; {again}"
            f"`crane cache prune {self.entry.id}` removes them"
        )

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).view(self.dtype)

    def _open(self, folder: Path) -> None:
        self._global, self._patches, self._checksums = (
            np.load(folder / name, mmap_mode="r") for name in ARRAYS
        )
        self._is_checked = np.zeros(len(self._checksums), dtype=bool)

    def __getstate__(self) -> dict[str, Any]:
        """Drop the maps: workers that are spawned open their own."""
        dropped = ("_global", "_patches", "_checksums", "_is_checked")
        return {name: value for name, value in vars(self).items() if name not in dropped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open(self.entry.folder)
