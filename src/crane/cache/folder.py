"""The folder of all entries: finding, locking, removing."""

import logging
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from crane.cache.digests import Digests
from crane.cache.entry import BrokenEntryError, Entry
from crane.errors import UsageError, unwritable

logger = logging.getLogger(__name__)

ENTRIES, LOCKS, DIGESTS = "entries", "locks", "digests"
BUILDING, REMOVED = ".building", ".removed"
"""Endings of folders that are no entries: being filled, or on their way out."""

KEY = "cache.folder"

SPARE_BYTES = 200 << 20
"""What a disk should still have free afterwards."""


class CacheFolder:
    """Where entries lie, shared by every run that names it.

    Args:
        path: The folder; made when something is put there. May begin with `~`.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().absolute()
        self.digests = Digests(self.path / DIGESTS)

    def place(self, entry_id: str) -> Path:
        """Where an entry lies once it is finished."""
        return self.path / ENTRIES / entry_id

    def building(self, entry_id: str) -> Path:
        """Where an entry is filled, by whoever holds its lock."""
        return self.place(entry_id).with_suffix(BUILDING)

    def lock(self, entry_id: str) -> FileLock:
        """The lock of an entry, for processes and machines; it ends with the process.

        Where nothing can be written, a whole entry can be read all the same: then the lock is one
        that nobody else asks for.

        Raises:
            UsageError: Nothing can be written there, and there is no whole entry.
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
        """A finished entry; a damaged one is removed, with a warning. Call it with the lock held.

        What an interrupted process left behind goes too.
        """
        if self.building(entry_id).is_dir():
            logger.info("removing what an interrupted run left: %s", self.building(entry_id))
            self._remove(self.building(entry_id))
        try:
            return self.find(entry_id)
        except BrokenEntryError as error:
            logger.warning("cache entry %s is damaged (%s): computed again", entry_id, error)
            self._remove(self.place(entry_id))
            return None

    def entries(self) -> Iterator[tuple[str, Entry | BrokenEntryError]]:
        """Every entry by name, sorted; a damaged one with what is wrong."""
        root = self.path / ENTRIES
        for folder in sorted(root.iterdir()) if root.is_dir() else []:
            if folder.suffix in (BUILDING, REMOVED):
                continue
            try:
                yield folder.name, Entry.read(folder)
            except BrokenEntryError as error:
                yield folder.name, error

    def leftovers(self) -> list[Path]:
        """Folders that interrupted processes left; those being filled now are not among them."""
        root = self.path / ENTRIES
        folders = sorted(root.iterdir()) if root.is_dir() else []
        interrupted = [f for f in folders if f.suffix == BUILDING and not self._is_locked(f.stem)]
        return [f for f in folders if f.suffix == REMOVED] + interrupted

    def remove(self, entry_id: str) -> bool:
        """Remove an entry; who has it open can go on.

        Returns:
            False if someone is computing it right now: then it stays.
        """
        try:
            with self.lock(entry_id).acquire(timeout=0):
                self._remove(self.place(entry_id))
        except Timeout:
            return False
        return True

    def clean(self) -> int:
        """Remove leftovers; returns how many there were."""
        leftovers = self.leftovers()
        for folder in leftovers:
            self._remove(folder)
        return len(leftovers)

    def check_space(self, num_bytes: int) -> int:
        """See that so much can be written.

        Returns:
            Bytes free.

        Raises:
            UsageError: There is less.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path).free
        except OSError as error:
            raise unwritable(self.path, error, KEY) from error
        if num_bytes + SPARE_BYTES > free:
            raise UsageError(
                f"{size_text(num_bytes + SPARE_BYTES)} free in {self.path}",
                size_text(free),
                key=KEY,
                hint="cache.dtype=float16 takes half, `crane cache prune` removes old entries, "
                "cache=off does without",
            )
        return free

    def _is_locked(self, entry_id: str) -> bool:
        try:
            with self.lock(entry_id).acquire(timeout=0):
                return False
        except (Timeout, UsageError):  # where nothing can be written, nothing can be removed
            return True

    def _remove(self, folder: Path) -> None:
        """Take a folder away at once, then delete what it held."""
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
    """A lock in a folder of its own, which goes with it."""
    folder = tempfile.TemporaryDirectory(prefix="crane-lock-")
    lock = FileLock(Path(folder.name) / "lock")
    weakref.finalize(lock, folder.cleanup)
    return lock


def size_text(num_bytes: float) -> str:
    """Bytes for people.

    >>> size_text(4_208_640_000), size_text(1_500)
    ('4.21 GB', '1.5 kB')
    """
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.3g} {name}"
    return f"{num_bytes:.0f} bytes"


def age_text(seconds: float) -> str:
    """A span of time for people.

    >>> age_text(90), age_text(3 * 86400)
    ('2 minutes', '3 days')
    """
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= unit:
            number = round(seconds / unit)
            return f"{number} {name if number != 1 else name[:-1]}"
    return "just now"
