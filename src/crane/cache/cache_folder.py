"""The folder of all entries: finding, locking, removing."""

import logging
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from rich.filesize import decimal as size_text

from crane.cache.entry import BrokenEntryError, Entry
from crane.cache.keys import Digests
from crane.errors import UsageError, unwritable

logger = logging.getLogger(__name__)

ENTRIES, LOCKS, DIGESTS = "entries", "locks", "digests"
BUILDING, REMOVED = ".building", ".removed"
"""Suffixes of folders that are not entries: being filled, or being removed."""

KEY = "cache.folder"

SPARE_BYTES = 200 << 20
"""Free space to leave on the disk."""


class CacheFolder:
    """The folder of entries, shared by every run that names it.

    Args:
        path: The folder, created with the first entry. May begin with `~`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self.digests = Digests(self.path / DIGESTS)

    def place(self, entry_id: str) -> Path:
        """The folder of a finished entry."""
        return self.path / ENTRIES / entry_id

    def building(self, entry_id: str) -> Path:
        """The folder in which an entry is filled by the holder of its lock."""
        return self.place(entry_id).with_suffix(BUILDING)

    def lock(self, entry_id: str) -> FileLock:
        """The lock of an entry across processes and machines; it is released with the process.

        A whole entry in a read-only folder can still be used: its lock is then private.

        Raises:
            UsageError: The folder is read-only and holds no whole entry of this name.
        """
        path = self.path / LOCKS / f"{entry_id}.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a").close()
        except OSError as error:
            if self._is_whole(entry_id):
                return _private_lock()
            raise unwritable(self.path, error, KEY) from error
        return FileLock(path)

    def _is_whole(self, entry_id: str) -> bool:
        try:
            return self.find(entry_id) is not None
        except BrokenEntryError:
            return False

    def find(self, entry_id: str) -> Entry | None:
        """A finished entry, or None if there is none.

        Raises:
            BrokenEntryError: There is one, and it is damaged.
        """
        folder = self.place(entry_id)
        return Entry.read(folder) if folder.is_dir() else None

    def find_whole(self, entry_id: str) -> Entry | None:
        """A finished entry, if there is one; call it with the lock held.

        A damaged entry is removed with a warning, and leftovers of interrupted processes too.
        """
        if self.building(entry_id).is_dir():
            logger.info("removing leftovers of an interrupted run: %s", self.building(entry_id))
            self._remove(self.building(entry_id))
        try:
            return self.find(entry_id)
        except BrokenEntryError as error:
            logger.warning(
                "cache entry %s is damaged (%s) and will be computed again", entry_id, error
            )
            self._remove(self.place(entry_id))
            return None

    def entries(self) -> Iterator[tuple[str, Entry | BrokenEntryError]]:
        """Every entry by name, sorted; for a damaged one, its error."""
        root = self.path / ENTRIES
        for folder in sorted(root.iterdir()) if root.is_dir() else []:
            if folder.suffix in (BUILDING, REMOVED):
                continue
            try:
                yield folder.name, Entry.read(folder)
            except BrokenEntryError as error:
                yield folder.name, error

    def leftovers(self) -> list[Path]:
        """Folders left by interrupted processes, without those being filled now."""
        root = self.path / ENTRIES
        folders = sorted(root.iterdir()) if root.is_dir() else []
        interrupted = [f for f in folders if f.suffix == BUILDING and not self._is_locked(f.stem)]
        return [f for f in folders if f.suffix == REMOVED] + interrupted

    def remove(self, entry_id: str) -> bool:
        """Remove an entry; processes that have it open can go on reading.

        Returns:
            False if another process is computing it, in which case it stays.
        """
        try:
            with self.lock(entry_id).acquire(timeout=0):
                self._remove(self.place(entry_id))
        except Timeout:
            return False
        return True

    def clean(self) -> int:
        """Remove leftovers and return their number."""
        leftovers = self.leftovers()
        for folder in leftovers:
            self._remove(folder)
        return len(leftovers)

    def check_space(self, num_bytes: int) -> int:
        """Check that the disk has room.

        Returns:
            Free bytes.

        Raises:
            UsageError: There is too little room.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise unwritable(self.path, error, KEY) from error
        if num_bytes + SPARE_BYTES > free:
            raise UsageError(
                f"{self.path} has {size_text(free)} free, but {size_text(num_bytes + SPARE_BYTES)} "
                "are needed; cache.dtype=float16 takes half, `crane cache prune` removes old "
                "entries, cache=off needs none",
                key=KEY,
            )
        return free

    def _is_locked(self, entry_id: str) -> bool:
        try:
            with self.lock(entry_id).acquire(timeout=0):
                return False
        except (Timeout, UsageError):  # a read-only folder: nothing can be removed
            return True

    def _remove(self, folder: Path) -> None:
        """Rename a folder at once, then delete its content."""
        if not folder.exists():
            return
        removed = folder.with_name(f"{folder.stem}-{uuid.uuid4().hex[:8]}{REMOVED}")
        if folder.suffix != REMOVED:
            try:
                folder.rename(removed)
            except OSError as error:
                raise unwritable(self.path, error, KEY) from error
        else:
            removed = folder
        shutil.rmtree(removed, ignore_errors=True)


def _private_lock() -> FileLock:
    """A lock in a temporary folder, which is removed with it."""
    folder = tempfile.TemporaryDirectory(prefix="crane-lock-")
    lock = FileLock(Path(folder.name) / "lock")
    weakref.finalize(lock, folder.cleanup)
    return lock


def age_text(seconds: float) -> str:
    """A span of time in words.

    >>> age_text(90), age_text(3 * 86400)
    ('2 minutes', '3 days')
    """
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= unit:
            number = round(seconds / unit)
            return f"{number} {name if number != 1 else name[:-1]}"
    return "just now"
