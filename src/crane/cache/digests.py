"""Checksums of files, each file read once as long as it stays as it is."""

import hashlib
import json
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from crane.errors import UsageError
from crane.files import sha256

NUM_THREADS = 4
"""Files read at the same time; hashing leaves Python's lock alone."""


class Digests:
    """The SHA-256 of files, remembered by path, size and time of change.

    Args:
        folder: Where what is known is kept, one small file for each folder of data.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, root: Path, files: Sequence[Path]) -> list[str]:
        """Checksums of files; those of new and changed files are computed.

        Args:
            root: What the files belong to, such as a data set's folder.
            files: The files, in any order, repeated or not.

        Raises:
            UsageError: A file is not there or cannot be read.
        """
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        memory = self.folder / f"{name}.json"
        known = _read(memory)
        states = {file: _state(file) for file in dict.fromkeys(files)}
        fresh = [file for file, state in states.items() if known.get(str(file), [])[:2] != state]
        with ThreadPoolExecutor(NUM_THREADS) as pool:
            for file, digest in zip(fresh, pool.map(_digest, fresh), strict=True):
                known[str(file)] = [*states[file], digest]
        if fresh:
            with suppress(OSError):  # in a folder that cannot be written files are read each time
                write_text(memory, json.dumps(known))
        return [str(known[str(file)][2]) for file in files]


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all, several processes at once or not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def _read(memory: Path) -> dict[str, list[object]]:
    """What is remembered; a file that cannot be read is no loss."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _state(file: Path) -> list[object]:
    try:
        status = file.stat()
    except OSError as error:
        raise UsageError("a file that is there", f"{file}: {error.strerror}") from error
    return [status.st_size, status.st_mtime_ns]


def _digest(file: Path) -> str:
    try:
        return sha256(file)
    except OSError as error:
        raise UsageError("a readable file", f"{file}: {error.strerror}") from error
