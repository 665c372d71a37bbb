"""Whole runs of crane's commands inside a benchmark, with a clock on what the trainer does."""

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

EPOCH, FIT, SEEING, TEST = "epoch", "fit", "seeing", "test"
"""What is timed: each epoch, whole trainings, the towers' pass into the cache, whole tests."""

QUIET = (
    "trainer.enable_progress_bar=false",
    "logger=none",
    "overlay.num_anomalous=0",
    "overlay.num_normal=0",
    "overlay.gallery.num_anomalous=0",
    "overlay.gallery.num_normal=0",
)
"""Overrides: no pictures, which are the same work with and without what is measured."""


class Clock(Callback):
    """Adds a line to a file for each span of time: what it was, its seconds, and its end."""

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
        """Begin an epoch."""
        self._start(EPOCH)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End an epoch."""
        self._end(EPOCH)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a training."""
        self._start(FIT)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a training."""
        self._end(FIT)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the towers' pass."""
        self._start(SEEING)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the towers' pass."""
        self._end(SEEING)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a test."""
        self._start(TEST)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End a test."""
        self._end(TEST)


def clocked_trainer(*, callbacks: list[Callback], clock: str, **settings: Any) -> Trainer:
    """The `_target_` of the trainer group with a clock in it.

    Args:
        callbacks: The run's.
        clock: The clock's file.
        settings: Of Lightning's trainer.
    """
    return Trainer(callbacks=[*callbacks, Clock(Path(clock))], **settings)


def with_clock(path: Path) -> list[str]:
    """Overrides that put a clock into a run."""
    return ["trainer._target_=benchmarks._runs.clocked_trainer", f"+trainer.clock={path}"]


def read_clock(path: Path) -> dict[str, list[float]]:
    """The seconds of each span in a clock's file, in their order."""
    return {what: [seconds for seconds, _ in spans] for what, spans in _read(path).items()}


def read_ends(path: Path, what: str) -> list[float]:
    """When spans ended, by `time.perf_counter` of the process that ran them."""
    return [end for _, end in _read(path)[what]]


def _read(path: Path) -> dict[str, list[tuple[float, float]]]:
    spans: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        what, seconds, end = json.loads(line)
        spans[what].append((seconds, end))
    return spans


def crane(*arguments: str, folder: Path) -> float:
    """Type a command in this process and in a folder; gives its seconds.

    Raises:
        RuntimeError: It failed.
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
    """Another current folder, and what commands print in a file there."""
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
    """Write a data set for `source=[folder]`: half of the images anomalous, with masks.

    Args:
        folder: Is made, with `good`, `bad` and the masks in `ground_truth/bad` in it.
        num: How many images.
        side: Pixels of their sides.
        num_distinct: How many are written, an even number; the others are further names of these.
        seed: Of what is drawn.
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
    """Overrides that put a data set of `make_images` in the place `source` or `targets`."""
    return [f"dataset@{place}=[folder]", f"{place}.folder.root={folder}"]


def overrides_of(*, small: bool, device: str) -> Sequence[str]:
    """Overrides for the paper's backbone, or the tiny one, on a device."""
    chosen = ["backbone=tiny"] if small else ["backbone.model.weights=random"]
    return [*chosen, accelerator(device), *QUIET]


def accelerator(device: str) -> str:
    """The override for a device."""
    return f"trainer.accelerator={'gpu' if device == 'cuda' else 'cpu'}"
