"""Scores, maps and overlays of any images, in constant memory.

Everything about an image follows from its place in one fixed list: its row, the names of its
pictures, and its scores, as batches never reach beyond a part. A process that takes some parts, now
or later, so adds to the same result.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from crane.errors import UsageError
from crane.prediction.calibration import Threshold, calibrate
from crane.prediction.detecting import Detector, score_images
from crane.prediction.inputs import ImageFile, ImageList
from crane.prediction.loading import LoadOptions, Unreadable
from crane.prediction.outputs import OutputOptions
from crane.prediction.results import PredictSummary, summarise
from crane.prediction.rows import table_rows
from crane.prediction.settings import Calibration, begin, check_settings, clear, settle_threshold
from crane.prediction.shards import Shard
from crane.prediction.table import ScoreRow, ScoreTable, TableOptions

logger = logging.getLogger(__name__)

Outcome = TypeVar("Outcome")


def calibrate_on(
    detector: Detector,
    normals: ImageList,
    false_alarm_rate: float,
    options: LoadOptions,
    *,
    device: torch.device,
    show_progress: bool,
) -> Threshold:
    """Choose a threshold on normal images; see `calibrate`.

    Images that cannot be read are treated as `options.on_error` says.

    Raises:
        UsageError: when none can be read, and as `score_images` and `calibrate` do.
    """
    scores = []
    batches = _batches(iter(normals), options.batch_size)
    said = score_images(detector, batches, options, device=device, with_maps=False)
    for outcome in _tracked(said, len(normals), "calibrating", show_progress=show_progress):
        if isinstance(outcome, Unreadable):
            logger.warning("skipped %s: %s", outcome.file.path, outcome.reason)
        else:
            scores.append(outcome.score)
    return calibrate(scores, false_alarm_rate)


def predict(
    load_detector: Callable[[], Detector],
    images: ImageList,
    *,
    made_of: Mapping[str, object],
    output: Path,
    overwrite: bool,
    shard: Shard,
    loading: LoadOptions,
    outputs: OutputOptions,
    scores: TableOptions,
    threshold: Threshold | Calibration | None,
    device: torch.device,
    show_progress: bool,
) -> PredictSummary:
    """Write scores, maps and overlays of images, or of one shard's share, or of what is missing.

    Args:
        load_detector: gives the model on its device; not called when nothing is missing.
        images: the images, see `find_images`.
        made_of: what the detector's answers depend on, by the key that changes it; JSON can hold
            it. A prediction only goes on with the same.
        output: folder of all files, which shards share.
        overwrite: begin anew where `output` holds a prediction, instead of going on with it.
        shard: which parts this process is for.
        loading: how images are read.
        outputs: which pictures are written.
        scores: how the table is written.
        threshold: decides which images are called anomalous; None decides nothing.
        device: where the model is.
        show_progress: draw a progress bar.

    Returns:
        How all of it stands, other shards' parts included.

    Raises:
        UsageError: when all images are looked at and none could be read; when `output` holds a
            prediction with other settings; and as `score_images` does.
    """
    settings = {
        "input": [len(images), images.fingerprint()],
        **made_of,
        **_settings(outputs, scores, threshold),
    }
    if not overwrite:
        check_settings(output, settings)
    table = ScoreTable(
        output / "scores",
        scores,
        num_images=len(images),
        pictures=outputs.kinds,
        with_decision=threshold is not None,
    )
    missing = _missing(table, shard, set() if overwrite else table.present())
    load_once = cache(load_detector)
    if missing:
        load_once()  # first, so that what does not fit or is not there leaves the folder as it was
        if overwrite:
            clear(output)
        begin(output, settings)
    settled = settle_threshold(
        output,
        threshold,
        lambda wanted: calibrate_on(
            load_once(),
            wanted.normals,
            wanted.false_alarm_rate,
            loading,
            device=device,
            show_progress=show_progress,
        ),
    )
    if missing:
        sinks = outputs.sinks(output)
        batches = part_batches(images, table, missing, loading.batch_size)
        said = score_images(load_once(), batches, loading, device=device, with_maps=bool(sinks))
        rows = table_rows(said, images, sinks, loading.on_error)
        num = sum(map(table.size, missing))
        tracked = _tracked(rows, num, "predicting", show_progress=show_progress)
        _fill(table, missing, tracked, settled)
    summary = summarise(output, table, settled)
    _report(summary)
    return summary


def _settings(
    outputs: OutputOptions, scores: TableOptions, threshold: Threshold | Calibration | None
) -> dict[str, object]:
    settings: dict[str, object] = {
        "maps": outputs.maps,
        "overlays": outputs.overlays,
        "scores": scores.format,
        "part_size": scores.part_size,
        "threshold": threshold.value if isinstance(threshold, Threshold) else None,
        "calibration": None,
    }
    if outputs.overlays != "none":
        settings["overlay"] = {**asdict(outputs.scale), "alpha": outputs.alpha}
    if isinstance(threshold, Calibration):
        normals = threshold.normals.fingerprint()
        settings["calibration"] = [threshold.false_alarm_rate, normals]
    return settings


def _missing(table: ScoreTable, shard: Shard, present: Collection[int]) -> list[int]:
    own = shard.parts(table.num_parts)
    missing = [number for number in own if number not in present]
    if not own:
        logger.warning(
            "nothing for shard %s: %d images make %d parts; a lower part_size makes more",
            shard,
            table.num_images,
            table.num_parts,
        )
    elif len(missing) < len(own):
        logger.info("%d of %d parts are there from before", len(own) - len(missing), len(own))
    return missing


def part_batches(
    images: ImageList, table: ScoreTable, parts: Collection[int], batch_size: int
) -> Iterator[list[ImageFile]]:
    """Give the batches of some parts of a list, in one pass over it; none reaches beyond a part."""
    wanted, files = set(parts), iter(images)
    for number in range(max(wanted, default=-1) + 1):
        part = islice(files, table.size(number))
        if number in wanted:
            yield from _batches(part, batch_size)
        else:
            deque(part, maxlen=0)


def _batches(files: Iterator[ImageFile], batch_size: int) -> Iterator[list[ImageFile]]:
    while batch := list(islice(files, batch_size)):
        yield batch


def _fill(
    table: ScoreTable, parts: Sequence[int], rows: Iterable[ScoreRow], threshold: Threshold | None
) -> None:
    # Rows come in the order of parts, and each when its pictures are on disk.
    rows = iter(rows)
    for number in parts:
        table.write(number, list(islice(rows, table.size(number))), threshold)
    next(rows, None)  # there is none: lets the progress bar reach its end


def _report(summary: PredictSummary) -> None:
    if summary.num_skipped:
        named = "".join(f"\n  {image}: {reason}" for image, reason in summary.skipped)
        more = summary.num_skipped - len(summary.skipped)
        logger.warning(
            "%d images could not be read and have no score:%s%s",
            summary.num_skipped,
            named,
            f"\n  and {more} more" if more > 0 else "",
        )
    if summary.num_missing == 0 and summary.num_scored == 0:
        image, reason = summary.skipped[0]
        raise UsageError("at least one image that can be read", image, key="input", hint=reason)


def _tracked(
    outcomes: Iterable[Outcome], num: int, description: str, *, show_progress: bool
) -> Iterator[Outcome]:
    if not show_progress:
        yield from outcomes
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        yield from progress.track(outcomes, total=num, description=description)
