"""Images that arrive in a folder: each is taken once, when it is whole."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from crane.data import is_image
from crane.data.images import read_rgb
from crane.errors import UsageError
from crane.prediction.inputs import is_output

logger = logging.getLogger(__name__)

State = tuple[int, int]
"""Size in bytes, and the time of the last change in nanoseconds."""


@dataclass
class _Seen:
    """A file that has not been taken yet."""

    state: State
    since: float
    """When it was first seen so."""
    error: str | None = None
    """Why it could not be decoded in this state."""


class Arrival(NamedTuple):
    """A file to score, or one to report."""

    path: str
    error: str | None = None
    """Why it is not an image, although nothing has changed it for a while."""


class Arrivals:
    """Looks for new images below a folder.

    A file is taken when two looks find it with the same size and time, and it can be decoded. One
    that cannot is looked at again when it changes; it is given up when nothing changes it. One that
    changes after it was taken is not taken again; a warning says so.

    Args:
        folder: The folder; links to folders are not followed, hidden files and what crane wrote
            are left out.
        output: Where this prediction writes.
        is_known: Whether a path was taken before.
        give_up: Seconds without a change after which a file that cannot be decoded is reported.
        clock: Seconds from some moment on.
    """

    def __init__(
        self,
        folder: Path,
        output: Path,
        is_known: Callable[[str], bool],
        give_up: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.output = folder, output.absolute()
        self.is_known, self.give_up, self.clock = is_known, give_up, clock
        self._seen: dict[str, _Seen] = {}
        self._taken: dict[str, State] = {}

    def look(self) -> list[Arrival]:
        """Look once, and give what is to be taken, in the order of the times of change.

        Raises:
            UsageError: The folder is gone.
        """
        states = dict(self._states())
        self._seen = {path: seen for path, seen in self._seen.items() if path in states}
        found = []
        for path, state in sorted(states.items(), key=lambda item: (item[1][1], item[0])):
            seen = self._seen.get(path)
            if seen is None or seen.state != state:
                self._seen[path] = _Seen(state, self.clock())
                continue
            arrival = self._decided(path, seen)
            if arrival is not None:
                del self._seen[path]
                self._taken[path] = state
                found.append(arrival)
        return found

    def _decided(self, path: str, seen: _Seen) -> Arrival | None:
        """What becomes of a file that has not changed since the look before; None to wait."""
        if seen.error is None and seen.state[0]:
            try:
                read_rgb(path)
                return Arrival(path)
            except UsageError as error:
                seen.error = str(error)
        if self.clock() - seen.since >= self.give_up:
            return Arrival(path, seen.error or f"cannot read image {path}: it is empty")
        return None

    def _states(self) -> Iterator[tuple[str, State]]:
        if not self.folder.is_dir():
            raise UsageError(f"the folder {self.folder} is gone", key="input")
        for here, folders, files in os.walk(self.folder):
            place = Path(here)
            is_own = place.absolute() == self.output
            if is_own or (place != self.folder and is_output({*files, *folders})):
                folders.clear()
                continue
            folders[:] = [name for name in folders if not name.startswith(".")]
            for path in (place / name for name in files):
                taken, is_known = self._taken.get(str(path)), self.is_known(str(path))
                if not is_image(path) or (is_known and taken is None):
                    continue
                try:
                    facts = path.stat()
                except OSError:  # it was moved away meanwhile
                    continue
                state = (facts.st_size, facts.st_mtime_ns)
                if is_known and state != taken:
                    self._taken[str(path)] = state
                    logger.warning(
                        "%s was changed after it was scored and is not scored again; "
                        "write each image under a name of its own",
                        path,
                    )
                elif not is_known and path.is_file():
                    yield str(path), state
