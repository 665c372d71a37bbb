"""Scores, maps and overlays of any images, in constant memory.

Everything about an image follows from its place in one fixed list: its row, the names of its
pictures and its scores, whatever is in the batch with it. A part of the list can so be predicted
on by itself, and parts put together.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from crane.errors import UsageError
from crane.prediction.calibration import Threshold, calibrate
from crane.prediction.inputs import ImageList
from crane.prediction.loading import LoadOptions, Unreadable, load
from crane.prediction.outputs import OutputOptions, Sink
from crane.prediction.scores import ScoreRow, ScoreTable
from crane.reporting import resize_map
from crane.types import Prediction

logger = logging.getLogger(__name__)

Detector = Callable[[Tensor], Prediction]
"""A model in evaluation mode on its device: (B, 3, S, S) RGB in [0, 1] to scores and maps."""

NUM_WRITERS = 2
"""Threads that resize, compress and write pictures while the model goes on."""
MAX_PENDING = 16
"""Images waiting to be written, at most: what keeps memory constant when disks are slow."""
MAX_SHOWN = 10
"""Unreadable images named in the log, at most; the files name all."""


class Scored(NamedTuple):
    """What the detector said about one image."""

    place: int
    """Position in the list."""
    height: int
    """Its own height in pixels."""
    width: int
    """Its own width."""
    score: float
    """Anomaly score in [0, 1]."""
    map: Float[np.ndarray, "S S"]
    """Anomaly probabilities at the model's size."""


@dataclass(frozen=True)
class PredictSummary:
    """How a prediction went."""

    num_images: int
    """Images looked at."""
    num_scored: int
    """Images with a score."""
    num_anomalous: int | None
    """Images at or above the threshold; None without one."""
    skipped: tuple[tuple[str, str], ...]
    """(image, reason) of each that could not be read."""
    threshold: Threshold | None
    """The threshold."""
    seconds: float
    """Time taken, reading and writing included."""
    csv: Path
    """`scores.csv`."""
    json: Path
    """`scores.json`."""


def score_images(
    detector: Detector, images: ImageList, options: LoadOptions, *, device: torch.device
) -> Iterator[Scored | Unreadable]:
    """Give each image's score and map in the images' order, reading ahead.

    Args:
        detector: the model.
        images: the images.
        options: how they are read.
        device: where the model is.

    Raises:
        UsageError: for an unreadable image with `on_error` `fail`, and for scores or maps that are
            not finite, naming the image.
    """
    pinned = device.type == "cuda"
    for chunk in load(images, options, pin_memory=pinned):
        outcomes: list[Scored | Unreadable] = list(chunk.unreadable)
        if options.on_error == "fail" and chunk.unreadable:
            first = chunk.unreadable[0]
            raise UsageError(
                "an image that can be read",
                str(images.paths[first.place]),
                key="on_error to skip it",
                hint=first.reason,
            )
        if chunk.loaded:
            with torch.inference_mode():
                said = detector(chunk.images.to(device, non_blocking=pinned))
            scores, maps = said.score.float().cpu().tolist(), said.map.float().cpu().numpy()
            for (place, height, width), score, map in zip(chunk.loaded, scores, maps, strict=True):
                if not (np.isfinite(score) and np.isfinite(map).all()):
                    raise UsageError(
                        "finite scores",
                        f"NaN or infinity for {images.paths[place]}",
                        hint="a half-precision model may need precision 32-true",
                    )
                outcomes.append(Scored(place, height, width, score, map))
        yield from sorted(outcomes, key=lambda outcome: outcome.place)


def calibrate_on(
    detector: Detector,
    normals: ImageList,
    false_alarm_rate: float,
    options: LoadOptions,
    *,
    device: torch.device,
    show_progress: bool,
) -> Threshold:
    """Choose a threshold on a folder of normal images; see `calibrate`.

    Images that cannot be read are treated as `options.on_error` says.

    Raises:
        UsageError: when none can be read, and as `score_images` and `calibrate` do.
    """
    scores = []
    with _progress(show_progress) as progress:
        said = score_images(detector, normals, options, device=device)
        for outcome in progress.track(said, total=len(normals), description="calibrating"):
            if isinstance(outcome, Unreadable):
                logger.warning("skipped %s: %s", normals.paths[outcome.place], outcome.reason)
            else:
                scores.append(outcome.score)
    return calibrate(scores, false_alarm_rate)


def predict(
    detector: Detector,
    images: ImageList,
    *,
    output: Path,
    loading: LoadOptions,
    outputs: OutputOptions,
    threshold: Threshold | None,
    device: torch.device,
    show_progress: bool,
) -> PredictSummary:
    """Write scores, maps and overlays of images.

    Args:
        detector: the model, already on its device and in evaluation mode.
        images: the images, see `find_images`.
        output: folder of all files; those of an earlier prediction are replaced.
        loading: how images are read.
        outputs: which pictures are written.
        threshold: decides which images are called anomalous; None decides nothing.
        device: where the model is.
        show_progress: draw a progress bar.

    Returns:
        Counts, what was skipped and why, and where the files are.

    Raises:
        UsageError: when no image can be read, and as `score_images` does.
    """
    start = time.monotonic()
    sinks = outputs.sinks(output)
    with ScoreTable(output, list(sinks), threshold) as table:
        said = score_images(detector, images, loading, device=device)
        with _progress(show_progress) as progress:
            rows = _written(said, images, sinks)
            for row in progress.track(rows, total=len(images), description="predicting"):
                table.add(row)
    _report_skipped(table.skipped)
    if table.num_scored == 0:
        image, reason = table.skipped[0]
        raise UsageError("at least one image that can be read", image, key="input", hint=reason)
    return PredictSummary(
        num_images=len(images),
        num_scored=table.num_scored,
        num_anomalous=None if threshold is None else table.num_anomalous,
        skipped=tuple(table.skipped),
        threshold=threshold,
        seconds=time.monotonic() - start,
        csv=table.csv,
        json=table.write_json(),
    )


def _written(
    outcomes: Iterator[Scored | Unreadable], images: ImageList, sinks: dict[str, Sink]
) -> Iterator[ScoreRow]:
    # Rows leave in the order in which outcomes came: the oldest is waited for when too many wait.
    pending: deque[Future[ScoreRow]] = deque()
    with ThreadPoolExecutor(NUM_WRITERS, thread_name_prefix="crane-writer") as pool:
        for outcome in outcomes:
            pending.append(pool.submit(_write, outcome, images, sinks))
            while len(pending) >= MAX_PENDING or (pending and pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _write(outcome: Scored | Unreadable, images: ImageList, sinks: dict[str, Sink]) -> ScoreRow:
    image = str(images.paths[outcome.place])
    if isinstance(outcome, Unreadable):
        return ScoreRow(image, score=None, error=outcome.reason)
    pictures: tuple[tuple[str, str], ...] = ()
    if sinks:
        map = resize_map(outcome.map, outcome.height, outcome.width)
        written = ((kind, sink(images, outcome.place, map)) for kind, sink in sinks.items())
        pictures = tuple((kind, path.as_posix()) for kind, path in written)
    return ScoreRow(image, outcome.score, outcome.height, outcome.width, pictures)


def _report_skipped(skipped: Sequence[tuple[str, str]]) -> None:
    if not skipped:
        return
    named = "".join(f"\n  {image}: {reason}" for image, reason in skipped[:MAX_SHOWN])
    more = len(skipped) - MAX_SHOWN
    logger.warning(
        "%d images could not be read and have no score:%s%s",
        len(skipped),
        named,
        f"\n  and {more} more, see scores.json" if more > 0 else "",
    )


def _progress(show: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        disable=not show,
    )
