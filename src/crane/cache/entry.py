"""A cache entry as it lies on disk: a folder of arrays, and what they are."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ENTRY, NAMES, CHECKSUMS = "entry.json", "images.json", "checksums.npy"
GLOBAL, PATCHES = "global.npy", "patches.npy"
ARRAYS = (GLOBAL, PATCHES, CHECKSUMS)
USED = "used"
"""An empty file whose time is that of the last use."""
BROKEN = "broken"
"""A file that says what is wrong, where a row turned out not to be what was written."""


class BrokenEntryError(Exception):
    """An entry that is not what it was when it was finished."""


@dataclass(frozen=True)
class Description:
    """What an entry holds, for people and for programs."""

    data_set: str
    """What the run that computed it called the data set."""
    root: str
    """Where the images lay."""
    vision: str
    """The vision setting in a few words."""
    dtype: str
    """What features are stored as."""
    computed_in: str
    """What the towers gave."""
    created: str
    """When, in ISO 8601."""
    seconds: float
    """How long it took."""
    facts: dict[str, Any]
    """Everything that the entry's name was made of."""


@dataclass(frozen=True)
class Entry:
    """A finished entry; made by `read_entry`."""

    folder: Path
    description: Description
    num_images: int
    shape: tuple[int, int, int, int]
    """Of one image's patches: local embeddings M, rows h, columns w, joint width E."""

    @property
    def id(self) -> str:
        """Its name: 16 hexadecimal digits made of everything its content depends on."""
        return self.folder.name

    @property
    def num_bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.folder.iterdir())

    @property
    def last_used(self) -> float:
        """When a run last opened it, in seconds since the epoch."""
        return (self.folder / USED).stat().st_mtime

    @property
    def names(self) -> list[str]:
        """The images; row r of each array is of the r-th."""
        names: list[str] = json.loads((self.folder / NAMES).read_text(encoding="utf-8"))
        return names

    @classmethod
    def read(cls, folder: Path) -> "Entry":
        """Read what an entry says of itself, and see that its files are as it says.

        The arrays are not read; `Features` checks each image's row when it is first used.

        Raises:
            BrokenEntryError: A file is missing, cut short or altered, or a row was found to be.
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
            return cls(
                folder,
                Description(**content["description"]),
                content["num_images"],
                tuple(content["shape"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BrokenEntryError(f"{type(error).__name__}: {error}") from error

    def mark_broken(self, reason: str) -> bool:
        """Let all who read the entry from now on know that it is damaged.

        Returns:
            Whether it is known to be; False where nothing can be written.
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
    folder: Path, description: Description, num_images: int, shape: tuple[int, ...]
) -> None:
    """Write `entry.json` beside finished arrays: last of all, since it says that all is there."""
    files = {
        name: (
            (folder / name).stat().st_size,
            # The large arrays are checked row by row, with the checksums that are checked here.
            _digest(folder / name) if name in (NAMES, CHECKSUMS) else None,
        )
        for name in (*ARRAYS, NAMES)
    }
    content = {
        "description": asdict(description),
        "num_images": num_images,
        "shape": list(shape),
        "files": {name: list(facts) for name, facts in files.items()},
    }
    text = json.dumps({**content, "checksum": checksum(content)}, indent=1)
    (folder / ENTRY).write_text(text, encoding="utf-8")


def checksum(content: object) -> str:
    """A sha256 of anything JSON can hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_file(path: Path, size: int, digest: str | None) -> None:
    if path.stat().st_size != size:
        raise BrokenEntryError(f"{path.name} has {path.stat().st_size} bytes, not {size}")
    if digest is not None and _digest(path) != digest:
        raise BrokenEntryError(f"{path.name} has been altered")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
