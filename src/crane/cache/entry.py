"""A cache entry on disk: a folder of arrays and their description."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

ENTRY, NAMES, CHECKSUMS = "entry.json", "images.json", "checksums.npy"
GLOBAL, PATCHES = "global.npy", "patches.npy"
ARRAYS = (GLOBAL, PATCHES, CHECKSUMS)
USED = "used"
"""An empty file whose modification time is that of the last use."""
BROKEN = "broken"
"""A file that says what is wrong, once a row has turned out to be damaged."""
ON_DISK = {"float32": np.float32, "float16": np.float16, "bfloat16": np.int16}
"""The types that features are stored in, for numpy: the bits of bfloat16 are kept as integers."""


class BrokenEntryError(Exception):
    """An entry that has changed since it was finished."""


@dataclass(frozen=True)
class Description:
    """Facts about an entry."""

    data_set: str
    """Name of the data set in the run that computed the entry."""
    root: str
    """Folder of the images."""
    vision: str
    """The vision setting in a few words."""
    dtype: str
    """Type in which features are stored."""
    computed_in: str
    """Type of the towers' output."""
    created: str
    """Date and time, in ISO 8601."""
    seconds: float
    """Time it took."""
    facts: dict[str, Any]
    """The facts that the entry's name is made of."""
    num_threads: int | None = None
    """Threads of the process that computed it; the last bits of features can depend on it. None in
    older entries."""


@dataclass(frozen=True)
class Entry:
    """A finished entry; made by `Entry.read`."""

    folder: Path
    description: Description
    num_images: int
    shape: tuple[int, ...]
    """Shape of one image's planes: planes M, rows h, columns w, width D."""
    global_width: int
    """Width of one image's vector."""

    @property
    def id(self) -> str:
        """Its name: 16 hexadecimal digits derived from everything that decides its content."""
        return self.folder.name

    @property
    def num_bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.folder.iterdir())

    @property
    def last_used(self) -> float:
        """Time of the last use, in seconds since the epoch."""
        return (self.folder / USED).stat().st_mtime

    @property
    def names(self) -> list[str]:
        """Names of the images, in the order of the arrays' rows."""
        names: list[str] = json.loads((self.folder / NAMES).read_text(encoding="utf-8"))
        return names

    @classmethod
    def read(cls, folder: Path) -> "Entry":
        """Read an entry's description and check its files against it.

        Of the large arrays only the headers are read; `Features` checks each image's row on its
        first use.

        Raises:
            BrokenEntryError: A file is missing, truncated or altered, or a row was found to be.
        """
        try:
            if (folder / BROKEN).is_file():
                raise BrokenEntryError((folder / BROKEN).read_text(encoding="utf-8"))
            content = json.loads((folder / ENTRY).read_text(encoding="utf-8"))
            stated = content.pop("checksum")
            if checksum(content) != stated:
                raise BrokenEntryError(f"{ENTRY} has been altered")
            for name, (size, digest) in content.pop("files").items():
                _check_file(folder / name, size, digest)
            description = Description(**content["description"])
            shape = tuple(content["shape"])
            width = content.get("global_width", shape[-1])
            entry = cls(folder, description, content["num_images"], shape, width)
            entry._check_headers()
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenEntryError(f"{type(error).__name__}: {error}") from error
        return entry

    def _check_headers(self) -> None:
        stored, n = np.dtype(ON_DISK[self.description.dtype]), self.num_images
        wanted = {
            GLOBAL: ((n, self.global_width), stored),
            PATCHES: ((n, *self.shape), stored),
            CHECKSUMS: ((n,), np.dtype(np.uint64)),
        }
        for name, header in wanted.items():
            array = np.load(self.folder / name, mmap_mode="r", allow_pickle=False)
            if (array.shape, array.dtype) != header or not array.flags.c_contiguous:
                raise BrokenEntryError(f"the header of {name} has been altered")

    def mark_broken(self, reason: str) -> bool:
        """Mark the entry as damaged for every later reader.

        Returns:
            Whether it is marked; False if nothing can be written.
        """
        with suppress(OSError):
            try:
                # It may have been computed again since this one was opened.
                if Entry.read(self.folder).description == self.description:
                    (self.folder / BROKEN).write_text(reason, encoding="utf-8")
            except BrokenEntryError:
                pass
            return True
        return False


def write_entry(
    folder: Path,
    description: Description,
    num_images: int,
    shape: tuple[int, ...],
    global_width: int,
) -> None:
    """Write `entry.json` beside finished arrays; it comes last, as the sign that all is there."""
    files = {
        name: [
            (folder / name).stat().st_size,
            # The large arrays are checked row by row, against checksums that are checked here.
            _digest(folder / name) if name in (NAMES, CHECKSUMS) else None,
        ]
        for name in (*ARRAYS, NAMES)
    }
    content = {
        "description": asdict(description),
        "num_images": num_images,
        "shape": list(shape),
        "global_width": global_width,
        "files": files,
    }
    text = json.dumps({**content, "checksum": checksum(content)}, indent=1)
    (folder / ENTRY).write_text(text, encoding="utf-8")


def checksum(content: object) -> str:
    """The SHA-256 of anything JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_file(path: Path, size: int, digest: str | None) -> None:
    if path.stat().st_size != size:
        raise BrokenEntryError(f"{path.name} has {path.stat().st_size} bytes, not {size}")
    if digest is not None and _digest(path) != digest:
        raise BrokenEntryError(f"{path.name} has been altered")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
