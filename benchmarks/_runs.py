"""Run whole crane commands inside a benchmark and time what the trainer does."""

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from lightning import Callback, LightningModule, Trainer
from PIL import Image

EPOCH, FIT, FEATURES, TEST = "epoch", "fit", "features", "test"
"""Spans that are timed: epochs, trainings, feature extraction into the cache, tests."""

QUIET = (
    "trainer.enable_progress_bar=false",
    "logger=none",
    "overlay.num_anomalous=0",
    "overlay.num_normal=0",
    "overlay.gallery.num_anomalous=0",
    "overlay.gallery.num_normal=0",
)
"""Overrides that turn off pictures, logging and the progress bar."""


class Clock(Callback):
    """Appends a line to a file for each span: its name, its seconds, its end.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts: dict[str, float] = {}

    def _start(self, what: str) -> None:
        self._starts[what] = time.perf_counter()

    def _end(self, what: str) -> None:
        end = time.perf_counter()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([what, end - self._starts[what], end]) + "\n")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start timing an epoch."""
        self._start(EPOCH)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record an epoch."""
        self._end(EPOCH)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start timing a training."""
        self._start(FIT)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record a training."""
        self._end(FIT)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start timing feature extraction."""
        self._start(FEATURES)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record feature extraction."""
        self._end(FEATURES)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start timing a test."""
        self._start(TEST)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Record a test."""
        self._end(TEST)


def clocked_trainer(*, callbacks: list[Callback], clock: str, **settings: Any) -> Trainer:
    """Build a trainer with a `Clock`; a `_target_` for the group `trainer`.

    Args:
        callbacks: Callbacks of the run.
        clock: File of the clock.
        settings: Further arguments of Lightning's trainer.
    """
    return Trainer(callbacks=[*callbacks, Clock(Path(clock))], **settings)


def with_clock(path: Path) -> list[str]:
    """Overrides that add a `Clock` to a run."""
    return ["trainer._target_=benchmarks._runs.clocked_trainer", f"+trainer.clock={path}"]


def read_clock(path: Path) -> dict[str, list[float]]:
    """Seconds of the spans in a clock's file, by name and in order."""
    return {what: [seconds for seconds, _ in spans] for what, spans in _read(path).items()}


def read_ends(path: Path, what: str) -> list[float]:
    """End times of spans, by `time.perf_counter` of the process that ran them."""
    return [end for _, end in _read(path)[what]]


def _read(path: Path) -> dict[str, list[tuple[float, float]]]:
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        what, seconds, end = json.loads(line)
        spans[what].append((seconds, end))
    return spans


def crane(*arguments: str, folder: Path) -> float:
    """Run a command in this process, in a given folder; returns its seconds.

    Raises:
        RuntimeError: The command failed.
    """
    from crane.cli.main import main

    with patch.object(sys, "argv", ["crane", *arguments]), _inside(folder):
        start = time.perf_counter()
        try:
            main()
        except SystemExit as leaving:
            if leaving.code:
                raise RuntimeError(f"crane {' '.join(arguments)}: code {leaving.code}") from leaving
        return time.perf_counter() - start


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Change the current folder, and redirect output to a file there."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with (folder / "out.txt").open("a", encoding="utf-8") as out, redirect_stdout(out):
            yield
    finally:
        os.chdir(before)


def make_images(
    folder: Path, num: int, side: int, *, num_distinct: int | None = None, seed: int = 0
) -> Path:
    """Write a data set for `source=[folder]`; half of the images are anomalous, with masks.

    Args:
        folder: Folder to create, with `good`, `bad` and `ground_truth/bad`.
        num: Number of images.
        side: Height and width in pixels.
        num_distinct: Number of distinct images, even; the others are hard links to these.
        seed: Seed of the images.
    """
    rng = np.random.default_rng(seed)
    for name in ("good", "bad", "ground_truth/bad"):
        (folder / name).mkdir(parents=True)
    num_distinct = num if num_distinct is None else num_distinct
    for number in range(num):
        names = [f"good/{number:06}.png"]
        if number % 2:
            names = [f"bad/{number:06}.png", f"ground_truth/bad/{number:06}.png"]
        if number >= num_distinct:
            for name in names:
                original = name.replace(f"{number:06}", f"{number % num_distinct:06}")
                os.link(folder / original, folder / name)
            continue
        pixels = rng.integers(90, 110, (side, side, 3), dtype=np.uint8)
        mask = np.zeros((side, side), dtype=np.uint8)
        if number % 2:
            y, x = rng.integers(0, side // 2, 2)
            mask[y : y + side // 4, x : x + side // 4] = 255
            pixels[mask > 0] = 240
        for name, content in zip(names, (pixels, mask), strict=False):
            Image.fromarray(content).save(folder / name)
    return folder


def of_folder(place: str, folder: Path) -> list[str]:
    """Overrides that use a data set of `make_images` as `source` or `targets`."""
    return [f"dataset@{place}=[folder]", f"{place}.folder.root={folder}"]


def overrides_of(*, small: bool, device: str) -> Sequence[str]:
    """Overrides for the paper's backbone or the tiny one on a device."""
    chosen = ["backbone=tiny"] if small else ["backbone.model.weights=random"]
    return [*chosen, accelerator(device), *QUIET]


def accelerator(device: str) -> str:
    """The override for a device."""
    return f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}"
