"""Scores, maps and overlays of any images, in constant memory.

Everything about an image follows from its place in one fixed list: its row, the names of its
pictures, and its scores, since batches never extend beyond a part. A process that takes some of the
parts, now or later, therefore adds to the same result.
"""

import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Literal, TypeVar

import torch
from omegaconf import DictConfig
from rich.progress import MofNCompleteColumn, Progress
from torch import Tensor

from crane import schema
from crane.checks import checked
from crane.config import plain
from crane.errors import DISK, UsageError, counted
from crane.files import sha256
from crane.gate import build
from crane.methods import PromptCheckpoint, model_config
from crane.pictures import OverlayOptions
from crane.prediction.anomaly_detector import AnomalyDetector, resizer_of, stored_threshold
from crane.prediction.calibration import Calibration, Threshold
from crane.prediction.image_scoring import (
    Detector,
    DetectorOptions,
    ImageScore,
    LoadOptions,
    find_device,
    score_images,
)
from crane.prediction.inputs import ImageList, explain, find_images
from crane.prediction.joining import join_parts
from crane.prediction.outputs import OutputOptions, OutputWriter
from crane.prediction.ray_engine import PartWriter, write_parts_on_ray
from crane.prediction.resuming import check_settings, mark_decided, settled_threshold, start
from crane.prediction.table import PredictSummary, ScoreTable
from crane.prediction.watching import (
    GrowingTable,
    Watcher,
    WatchOptions,
    alone_watching,
    watched_folder,
)
from crane.processes import ALONE, Launched, launched
from crane.types import Prediction
from crane.views import build_view

logger = logging.getLogger(__name__)

Item = TypeVar("Item")

Engine = Literal["local", "ray"]

LAYOUT = 2
"""Of the folder of outputs; a prediction of another layout is not resumed."""

CHECKED = ("input", "output", "overwrite", "threshold", "accelerator")
"""Keys that no constructor checks."""


def predict(
    config: DictConfig,
    checkpoint: PromptCheckpoint | None,
    *,
    show_progress: bool = True,
    stop: Event | None = None,
) -> PredictSummary:
    """Score the images of a configuration, or those that arrive until it is stopped.

    Args:
        config: Of `crane predict`, with the model of the checkpoint in it (`adopt_config`).
        checkpoint: What was learned; None for methods that train nothing.
        show_progress: Whether to draw a progress bar.
        stop: Ends `watch=true` once it is set.

    Raises:
        UsageError: Something in the configuration does not fit; most of it before any work.
    """
    values = plain(config)
    schema.check("predict", {key: values[key] for key in CHECKED})
    view = build_view(config)
    side, together = (config.image_size, config.batch_size) if view.is_whole else (None, 1)
    loading = LoadOptions(
        *(side, together, config.num_workers, config.on_error),
        white_level=config.white_level,
        resizer=resizer_of(config),
    )
    style: OverlayOptions = build(config.overlay, "overlay")
    outputs = OutputOptions(
        *(config.scores, config.part_size, config.maps, config.overlays, style.scale, style.alpha),
        white_level=config.white_level,
    )
    options = DetectorOptions(find_device(config.accelerator), config.precision, config.compile)
    threshold = _threshold(config, checkpoint)
    output = Path(config.output).expanduser()
    if isinstance(threshold, Calibration):
        explain(
            threshold.normals, "calibration.input", are_normal=True, white_level=config.white_level
        )

    load_detector = _LoadDetector(config, checkpoint, options)
    made_of = {
        "checkpoint": checkpoint and sha256(Path(config.checkpoint).expanduser()),
        "class_name": config.class_name,
        **model_config(config),
        "precision": config.precision,
        **({} if config.white_level is None else {"white_level": config.white_level}),
    }
    share = launched() or ALONE
    if share.size > 1 and (config.watch or config.engine != "local"):
        one = "watch=true" if config.watch else f"engine={config.engine}"
        raise UsageError(f"{one} is one process; start it without torchrun or srun", key="engine")
    if config.watch:
        if config.engine != "local":
            raise UsageError("watch=true needs engine=local", key="engine")
        wanted = WatchOptions(config.poll_seconds, config.give_up_seconds, values["on_verdict"])
        return watch_predictions(
            load_detector,
            watched_folder(values["input"]),
            made_of=made_of,
            output=output,
            overwrite=config.overwrite,
            loading=replace(loading, num_workers=0),  # a process for each batch would cost more
            outputs=outputs,
            threshold=threshold,
            device=options.device,
            watch=wanted,
            stop=stop or Event(),
        )
    if values["on_verdict"] is not None:
        raise UsageError("on_verdict needs watch=true", key="on_verdict")
    images = find_images(values["input"], exclude=output)
    explain(images, "input", white_level=config.white_level)
    return write_predictions(
        load_detector,
        images,
        made_of=made_of,
        output=output,
        overwrite=config.overwrite,
        share=share,
        loading=loading,
        outputs=outputs,
        threshold=threshold,
        device=options.device,
        show_progress=show_progress,
        engine=config.engine,
    )


@dataclass(frozen=True)
class _LoadDetector:
    """Loads the model of a configuration, here or in another process."""

    config: DictConfig
    checkpoint: PromptCheckpoint | None
    options: DetectorOptions

    def __call__(self) -> Detector:
        detector = AnomalyDetector.from_config(self.config, self.checkpoint, self.options)
        batch_size = self.config.batch_size

        def score_view(pixels: Tensor) -> Prediction:
            (image,) = pixels.numpy()
            return detector.score_view(image, batch_size=batch_size)

        return detector.score_batch if detector.view.is_whole else score_view


def _threshold(
    config: DictConfig, checkpoint: PromptCheckpoint | None
) -> Threshold | Calibration | None:
    """The threshold given, what to calibrate it on, or the checkpoint's own."""
    calibration: Calibration = build(config.calibration, "calibration")
    if config.threshold is None:
        own = stored_threshold(checkpoint)
        return own if calibration.input is None else calibration
    if calibration.input is not None:
        raise UsageError("give either threshold or calibration.input, not both", key="threshold")
    return Threshold(float(config.threshold))


@checked
def write_predictions(
    load_detector: Callable[[], Detector],
    images: ImageList,
    *,
    made_of: Mapping[str, object],
    output: Path,
    overwrite: bool,
    share: Launched,
    loading: LoadOptions,
    outputs: OutputOptions,
    threshold: Threshold | Calibration | None,
    device: torch.device,
    show_progress: bool,
    engine: Engine = "local",
) -> PredictSummary:
    """Write scores, maps and overlays of a process's share of images that have none yet.

    Args:
        load_detector: Loads the model to its device; not called when nothing is missing.
        images: The images, see `find_images`.
        made_of: What scores depend on, by the key that changes it; JSON can hold it. A prediction
            is only resumed with the same.
        output: Folder of all outputs, the same for all processes.
        overwrite: Start again where `output` holds a prediction, instead of resuming it.
        share: This process, which takes its share of the parts.
        loading: How images are read.
        outputs: What is written.
        threshold: Decides which images are called anomalous; None decides nothing.
        device: Where the model is.
        show_progress: Whether to draw a progress bar.
        engine: `local` scores in this process, `ray` on the machines of a Ray cluster.

    Raises:
        UsageError: No part is missing and no image could be read; `output` holds a prediction with
            other settings; or as in `score_images`.
    """
    settings = _settings(images, made_of, outputs, threshold)
    is_undecided = _is_undecided(output, settings, outputs, overwrite=overwrite)
    table = _table(output, outputs, threshold, len(images))
    missing = _missing(table, share, set() if overwrite else table.present())
    load_once = cache(load_detector)
    if missing and engine == "local":
        load_once()  # first, so that an error in it leaves the folder as it was
    if missing or is_undecided:
        start(output, settings, overwrite=overwrite)

    scorer = _Scorer(load_once, loading, device, show_progress)
    settled = settled_threshold(output, threshold, scorer.normals)
    summary = PredictSummary(output, table.folder, len(images), settled)
    writer = OutputWriter(outputs, images, output, settled, loading.on_error)
    with _keeping_parts(output):
        if is_undecided:
            _decide_again(table, writer, show_progress=show_progress)
            mark_decided(output, settings)
        if missing:
            if engine == "ray":
                worker = PartWriter(load_detector, device, loading.on_error, table, writer)
                _write_on_ray(missing, loading, worker, summary, show_progress=show_progress)
            else:
                scorer.write_parts(missing, table, writer, summary)
        absent = {*range(table.num_parts)} - table.present()
        summary.num_missing = sum(map(table.size, absent))
        if not absent:
            summary = join_parts(table, images, output, settled, outputs.scale)
    _warn_of_skipped(summary)
    return summary


@checked
def watch_predictions(
    load_detector: Callable[[], Detector],
    folder: Path,
    *,
    made_of: Mapping[str, object],
    output: Path,
    overwrite: bool,
    loading: LoadOptions,
    outputs: OutputOptions,
    threshold: Threshold | Calibration | None,
    device: torch.device,
    watch: WatchOptions,
    stop: Event,
) -> PredictSummary:
    """Score images as they arrive in `folder`, until `stop` is set.

    Other arguments and errors are those of `write_predictions`; `watch` says how often the folder
    is looked at, and what is told verdicts.
    """
    images = ImageList(folder, ())
    settings = _settings(images, made_of, outputs, threshold)
    settings["input"] = ["watch", str(folder.absolute())]
    with alone_watching(output):
        is_undecided = _is_undecided(output, settings, outputs, overwrite=overwrite)
        detector = load_detector()
        start(output, settings, overwrite=overwrite)

        def table(num_images: int) -> ScoreTable:
            return _table(output, outputs, threshold, num_images)

        scorer = _Scorer(lambda: detector, loading, device, show_progress=False)
        settled = settled_threshold(output, threshold, scorer.normals)
        writer = OutputWriter(outputs, images, output, settled, loading.on_error)
        with _keeping_parts(output):
            if is_undecided:
                before = GrowingTable(table, folder).images()
                again = replace(writer, images=before)
                _decide_again(table(len(before)), again, show_progress=False)
                mark_decided(output, settings)
            growing = GrowingTable(table, folder)
            watcher = Watcher(watch, folder, growing, writer, lambda: detector, loading, device)
            summary = watcher.run(output, stop)
    _warn_of_skipped(summary)
    return summary


def _table(output: Path, outputs: OutputOptions, threshold: object, num_images: int) -> ScoreTable:
    return ScoreTable(
        output / "scores",
        scores=outputs.scores,
        part_size=outputs.part_size,
        num_images=num_images,
        pictures=outputs.pictures,
        with_decision=threshold is not None,
    )


def _is_undecided(
    output: Path, settings: Mapping[str, object], outputs: OutputOptions, *, overwrite: bool
) -> bool:
    """Whether a prediction in a folder, if any, was decided otherwise and is to be so again."""
    is_undecided = not overwrite and check_settings(output, settings)
    if is_undecided and outputs.overlays != "none" and outputs.maps == "none":
        raise UsageError(
            f"the overlays in {output} show another threshold and need the maps, which were not "
            "kept, to be drawn again; choose another output, or overwrite=true to start again",
            key="threshold",
        )
    return is_undecided


def _decide_again(table: ScoreTable, outputs: OutputWriter, *, show_progress: bool) -> None:
    """Decide the parts that are there by another threshold, without the model.

    Overlays are drawn again from the maps on the disk; scores stay as they are.
    """
    outputs, paths = replace(outputs, are_maps_there=True), iter(outputs.images)
    numbers = sorted(table.present())
    parts = _tracked(numbers, len(numbers), "deciding again", show_progress=show_progress)
    position = 0
    for number in parts:
        skip = number * table.part_size - position
        own = list(islice(paths, skip, skip + table.size(number)))
        position = number * table.part_size + table.size(number)
        names = list(map(outputs.images.name, own))
        rows, _ = table.read(number, names, is_undecided=True)
        scored = (outputs.scored_before(*pair) for pair in zip(own, rows, strict=True))
        table.write(number, list(outputs.rows(scored)))


def _write_on_ray(
    parts: Collection[int],
    loading: LoadOptions,
    writer: PartWriter,
    summary: PredictSummary,
    *,
    show_progress: bool,
) -> None:
    """Write some parts on a Ray cluster, and count their images."""
    writer.outputs.write_scale()
    table = writer.table
    paths = part_batches(writer.outputs.images, table, parts, table.part_size)
    written = write_parts_on_ray(list(zip(sorted(parts), paths, strict=True)), loading, writer)
    rows = (row for part in written for row in part)
    num_images = sum(map(table.size, parts))
    for row in _tracked(rows, num_images, "predicting on Ray", show_progress=show_progress):
        summary.count([row])


@dataclass(frozen=True)
class _Scorer:
    """Scores images with a model that is loaded when it is needed."""

    load: Callable[[], Detector]
    options: LoadOptions
    device: torch.device
    show_progress: bool

    def scored(self, batches: Iterator[list[str]], *, with_maps: bool) -> Iterator[ImageScore]:
        """Score images; see `score_images`."""
        return score_images(
            self.load(), batches, self.options, device=self.device, with_maps=with_maps
        )

    def normals(self, wanted: Calibration) -> tuple[list[float], list[float]]:
        """Scores of normal images and the peaks of their maps; unreadable ones are warned of."""
        batches = _batches(iter(wanted.normals), self.options.batch_size)
        scored = _tracked(
            self.scored(batches, with_maps=True),
            len(wanted.normals),
            "calibrating",
            show_progress=self.show_progress,
        )
        scores, peaks = [], []
        for image in scored:
            if image.score is None or image.map is None:
                logger.warning("skipped %s: %s", image.path, image.error)
            else:
                scores.append(image.score)
                peaks.append(float(image.map.max()))
        return scores, peaks

    def write_parts(
        self,
        parts: Collection[int],
        table: ScoreTable,
        outputs: OutputWriter,
        summary: PredictSummary,
    ) -> None:
        """Score the images of some parts, and write their pictures and their rows."""
        outputs.write_scale()
        batches = part_batches(outputs.images, table, parts, self.options.batch_size)
        scored = self.scored(batches, with_maps=bool(outputs.options.pictures))
        rows = _tracked(
            outputs.rows(scored),
            sum(map(table.size, parts)),
            "predicting",
            show_progress=self.show_progress,
        )
        for number in parts:  # rows come in the order of parts, once their pictures are written
            part = list(islice(rows, table.size(number)))
            table.write(number, part)
            summary.count([one.row for one in part])
            del part  # so that no two parts are in memory
        next(rows, None)  # there is none: lets the progress bar reach its end


def _settings(
    images: ImageList,
    made_of: Mapping[str, object],
    outputs: OutputOptions,
    threshold: Threshold | Calibration | None,
) -> dict[str, object]:
    """What outputs depend on, by the key that changes it."""
    settings: dict[str, object] = {
        "input": [len(images), images.fingerprint()],
        **made_of,
        **{key: getattr(outputs, key) for key in ("maps", "overlays", "scores", "part_size")},
        "layout": LAYOUT,
        "threshold": asdict(threshold) if isinstance(threshold, Threshold) else None,
        "calibration": None,
    }
    if outputs.overlays != "none":
        settings["overlay"] = {**asdict(outputs.scale), "alpha": outputs.alpha}
    if isinstance(threshold, Calibration):
        normals = threshold.normals.fingerprint()
        settings["calibration"] = [threshold.false_alarm_rate, normals]
    return settings


def _missing(table: ScoreTable, share: Launched, present: Collection[int]) -> list[int]:
    own = share.share(table.num_parts)
    missing = [number for number in own if number not in present]
    if not own:
        logger.warning(
            "nothing for process %d of %d: %s %s; a lower part_size makes more",
            *(share.rank, share.size),
            counted(table.num_images, "image makes", "images make"),
            counted(table.num_parts, "part"),
        )
    elif len(missing) < len(own):
        logger.info("%d of %d parts were written before", len(own) - len(missing), len(own))
    return missing


def part_batches(
    images: ImageList, table: ScoreTable, parts: Collection[int], batch_size: int
) -> Iterator[list[str]]:
    """Batches of some parts of a list, in one pass over it; none extends beyond a part."""
    wanted, paths = set(parts), iter(images)
    for number in range(max(wanted, default=-1) + 1):
        part = islice(paths, table.size(number))
        if number in wanted:
            yield from _batches(part, batch_size)
        else:
            deque(part, maxlen=0)


def _batches(paths: Iterator[str], batch_size: int) -> Iterator[list[str]]:
    while batch := list(islice(paths, batch_size)):
        yield batch


@contextmanager
def _keeping_parts(output: Path) -> Iterator[None]:
    """Turn errors of the disk into one that says how to go on."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK:
            raise
        raise UsageError(
            f"cannot write to {output}: {error.strerror}; finished parts are kept, and the same "
            "command resumes once this is mended",
            key="output",
        ) from error


def _warn_of_skipped(summary: PredictSummary) -> None:
    if summary.num_skipped:
        more = summary.num_skipped - len(summary.skipped)
        logger.warning(
            "%s no score:%s%s",
            counted(
                summary.num_skipped,
                "image could not be read and has",
                "images could not be read and have",
            ),
            "".join(f"\n  {image}: {reason}" for image, reason in summary.skipped),
            f"\n  and {more} more" if more > 0 else "",
        )


def _tracked(
    items: Iterable[Item], num: int, description: str, *, show_progress: bool
) -> Iterator[Item]:
    if not show_progress:
        yield from items
        return
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn()) as progress:
        yield from progress.track(items, total=num, description=description)
