"""From what the model says of an image to its row in the table, its pictures written."""

import errno
import logging
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from crane.errors import UsageError
from crane.pictures import resize_map
from crane.prediction.detecting import Scored
from crane.prediction.inputs import ImageList
from crane.prediction.loading import Unreadable
from crane.prediction.outputs import Sink
from crane.prediction.table import ScoreRow

logger = logging.getLogger(__name__)

NUM_WRITERS = 2
"""Threads that resize, compress and write pictures while the model goes on."""
MAX_PENDING = 16
"""Images waiting to be written, at most: what keeps memory constant when disks are slow."""


def table_rows(
    outcomes: Iterator[Scored | Unreadable],
    images: ImageList,
    sinks: Mapping[str, Sink],
    on_error: str,
) -> Iterator[ScoreRow]:
    """Give each image's row once its pictures are on disk, in the order of the outcomes.

    Args:
        outcomes: what was said of each image.
        images: the list they are from.
        sinks: kind of picture to what writes it.
        on_error: `skip` leaves out a picture that cannot be, `fail` ends there.

    Raises:
        UsageError: for such a picture with `on_error` `fail`.
        OSError: for a disk that takes no more.
    """
    write = _Writer(images, sinks, on_error)
    if not sinks:
        yield from map(write, outcomes)
        return
    # Rows leave in the order in which outcomes came: the oldest is waited for when too many wait.
    pending: deque[Future[ScoreRow]] = deque()
    with ThreadPoolExecutor(NUM_WRITERS, thread_name_prefix="crane-writer") as pool:
        for outcome in outcomes:
            pending.append(pool.submit(write, outcome))
            while len(pending) >= MAX_PENDING or (pending and pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@dataclass(frozen=True)
class _Writer:
    images: ImageList
    sinks: Mapping[str, Sink]
    on_error: str

    def __call__(self, outcome: Scored | Unreadable) -> ScoreRow:
        path = outcome.file.path
        if isinstance(outcome, Unreadable):
            return ScoreRow(path, score=None, error=outcome.reason)
        written: dict[str, str] = {}
        problems: list[str] = []
        if outcome.map is not None:
            map_ = resize_map(outcome.map, outcome.height, outcome.width)
            for kind in self.sinks:
                name, problem = self._picture(kind, path, map_)
                written |= {} if name is None else {kind: name}
                problems += [] if problem is None else [problem]
        pictures, error = tuple(written.items()), "; ".join(problems) or None
        return ScoreRow(path, outcome.score, outcome.height, outcome.width, pictures, error)

    def _picture(
        self, kind: str, path: str, map_: Float[np.ndarray, "H W"]
    ) -> tuple[str | None, str | None]:
        """Write a picture: its name, or why there is none, which is the image's fault."""
        try:
            return self.sinks[kind](self.images, path, map_).as_posix(), None
        except OSError as error:
            # Encoders, which refuse a side of 70,000 pixels, have no number for what they say.
            if error.errno not in (None, errno.ENAMETOOLONG):
                raise
            if self.on_error == "fail":
                raise UsageError(
                    f"an image whose {kind} can be written",
                    path,
                    key=f"{kind}s, or on_error to go on without",
                    hint=str(error),
                ) from error
            logger.warning("no %s of %s: %s", kind, path, error)
            return None, f"no {kind}: {error}"
