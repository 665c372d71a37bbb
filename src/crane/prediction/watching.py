"""`crane predict watch=true`: score images as they arrive in a folder.

An image is taken once, when it is whole. The table is that of any prediction, whose last part
grows: it is written anew for each batch, whole or not at all, so that a kill loses no row and no
image is scored twice.
"""

import csv
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from threading import Event
from typing import NamedTuple

import torch
from filelock import FileLock, Timeout

from crane.checks import NonNegativeFloat, PositiveFloat, checked
from crane.data import is_image
from crane.data.images import read_rgb
from crane.errors import UsageError, counted
from crane.files import uncell
from crane.prediction.image_scoring import Detector, ImageScore, LoadOptions, score_images
from crane.prediction.inputs import ImageList, is_output
from crane.prediction.joining import join_parts
from crane.prediction.outputs import OutputWriter
from crane.prediction.table import PredictSummary, ScoreTable, WrittenImage, printable
from crane.prediction.verdict_hook import VerdictHook
from crane_runtime import Region

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


@checked
@dataclass(frozen=True)
class WatchOptions:
    """How a folder is watched.

    Raises:
        UsageError: A value is out of range.
    """

    poll: PositiveFloat
    """Seconds between two looks."""
    give_up: NonNegativeFloat
    """Seconds without a change after which a file that cannot be decoded is reported."""
    on_verdict: str | Sequence[str] | None
    """What is told each verdict; see `VerdictHook`."""

    def __post_init__(self) -> None:
        if self.on_verdict is not None:
            VerdictHook.check(self.on_verdict)


def watched_folder(spec: object) -> Path:
    """The folder that `input` names.

    Raises:
        UsageError: It names something else.
    """
    folder = Path(spec).expanduser() if isinstance(spec, str) else None
    if folder is None or not folder.is_dir():
        raise UsageError("watch=true needs input=FOLDER", key="input")
    return folder


@contextmanager
def alone_watching(output: Path) -> Iterator[None]:
    """Hold a folder of outputs against another process that watches.

    Raises:
        UsageError: There is one, or the folder cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        with FileLock(output / ".watch", timeout=0):
            yield
    except Timeout as error:
        message = f"another process watches for {output}; choose another output"
        raise UsageError(message, key="output") from error


class GrowingTable:
    """The table of a watched folder, and the names in it.

    Args:
        make: Makes the table of a number of images.
        folder: The folder that is watched.
    """

    def __init__(self, make: Callable[[int], ScoreTable], folder: Path) -> None:
        self.make, self.folder = make, folder
        self.table = make(0)
        self.names: list[str] = []
        self.part: list[WrittenImage] = []
        self.counts = PredictSummary(Path(), self.table.folder, 0, None)
        for number in sorted(self.table.present()):
            if len(self.names) != number * self.table.part_size:
                raise UsageError(
                    f"{self.table.path(number - 1)} is missing or not whole; choose another output",
                    key="output",
                )
            self._take(number)
        self.known = set(self.names)

    def _take(self, number: int) -> None:
        """Take a part in that was written before."""
        rows = self.table.rows(number)
        self.names += [str(row["image"]) for row in rows]
        self.counts.count(rows)
        if len(rows) < self.table.part_size:
            regions = self._regions(number)
            self.part = [
                WrittenImage(row, tuple(regions.get(str(row["image"]), ()))) for row in rows
            ]

    def _regions(self, number: int) -> dict[str, list[Region]]:
        found: dict[str, list[Region]] = {}
        if self.table.has_regions:
            with self.table.regions_path(number).open(newline="", encoding="utf-8") as file:
                for name, *box, area, peak in list(csv.reader(file))[1:]:
                    left, top, right, bottom = map(int, box)
                    region = Region((left, top, right, bottom), int(area), float(peak))
                    found.setdefault(uncell(name), []).append(region)
        return found

    def images(self) -> ImageList:
        """The images in the order in which they came."""
        return ImageList(self.folder, tuple(str(self.folder / name) for name in self.names))

    def add(self, images: Sequence[WrittenImage]) -> None:
        """Add images; they are on the disk when this returns."""
        size = self.table.part_size
        for start in range(0, len(images), size):  # a batch may be larger than a part
            self._add(images[start : start + size])

    def _add(self, images: Sequence[WrittenImage]) -> None:
        size, number = self.table.part_size, len(self.names) // self.table.part_size
        rows = [*self.part, *images]
        self.table.write(number, rows[:size])
        if len(rows) > size:
            self.table.write(number + 1, rows[size:])
        self.part = rows[size:] if len(rows) >= size else rows
        names = [str(one.row["image"]) for one in images]
        self.names += names
        self.known.update(names)
        self.counts.count([one.row for one in images])


@dataclass(frozen=True)
class Watcher:
    """Scores what arrives until it is told to stop."""

    options: WatchOptions
    folder: Path
    table: GrowingTable
    writer: OutputWriter
    load: Callable[[], Detector]
    loading: LoadOptions
    device: torch.device

    def run(self, output: Path, stop: Event) -> PredictSummary:
        """Watch until `stop` is set, then join what was written.

        Args:
            output: Folder of all outputs.
            stop: Ends the watch after the batch that is being scored.
        """
        images = self.writer.images
        arrivals = Arrivals(
            self.folder,
            output,
            lambda path: printable(images.name(path)) in self.table.known,
            self.options.give_up,
        )
        hook = None if self.options.on_verdict is None else VerdictHook(self.options.on_verdict)
        self.writer.write_scale()
        before = counted(len(self.table.names), "image is", "images are")
        logger.info("watching %s; %s scored already", self.folder, before)
        try:
            while not stop.is_set():
                found = arrivals.look()
                for start in range(0, len(found), self.loading.batch_size):
                    if not stop.is_set():
                        self._score(found[start : start + self.loading.batch_size], hook)
                stop.wait(self.options.poll)
        finally:
            if hook is not None:
                hook.close()
        return self._joined(output)

    def _score(self, batch: Sequence[Arrival], hook: VerdictHook | None) -> None:
        whole = [one.path for one in batch if one.error is None]
        scored = [ImageScore(one.path, error=one.error) for one in batch if one.error is not None]
        scored += score_images(
            self.load(),
            [whole] if whole else [],
            self.loading,
            device=self.device,
            with_maps=bool(self.writer.options.pictures),
        )
        written = list(self.writer.rows(iter(scored)))
        self.table.add(written)
        for image, one in zip(scored, written, strict=True):
            verdict = self._verdict(image, one)
            logger.info("%s", printable(_said(verdict)))
            if hook is not None:
                hook.tell(verdict)

    def _verdict(self, image: ImageScore, written: WrittenImage) -> dict[str, object]:
        """What is told about an image."""
        anomalous, threshold = written.row.get("anomalous"), self.writer.threshold
        return {
            "image": str(Path(image.path).absolute()),
            "score": image.score,
            "is_anomalous": None if anomalous is None else bool(anomalous),
            "threshold": None if threshold is None else threshold.value,
            "regions": [asdict(region) for region in written.regions],
            "error": written.row["error"],
        }

    def _joined(self, output: Path) -> PredictSummary:
        number, threshold = len(self.table.names), self.writer.threshold
        if self.table.counts.num_scored:
            scale = self.writer.options.scale
            table = self.table.make(number)
            return join_parts(table, self.table.images(), output, threshold, scale)
        counts = replace(self.table.counts, output=output, threshold=threshold)
        return replace(counts, num_images=number)


def _said(verdict: Mapping[str, object]) -> str:
    if verdict["score"] is None:
        return f"{verdict['image']}: skipped, {verdict['error']}"
    is_anomalous = verdict["is_anomalous"]
    called = "" if is_anomalous is None else "anomalous, " if is_anomalous else "normal, "
    return f"{verdict['image']}: {called}score {verdict['score']:.3f}"
