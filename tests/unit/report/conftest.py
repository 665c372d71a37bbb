import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from crane.metrics import Curve
from crane.pictures import (
    ColourScale,
    Gallery,
    OverlayOptions,
    PerClass,
    write_curves,
    write_gallery,
)
from crane.runs import DatasetResult, write_results_json
from crane.types import Sample

METRICS = ("image_auroc", "aupro", "aupro_small", "aupro_medium", "aupro_large")


def result(dataset: str, value: float) -> DatasetResult:
    """Two classes, the second 0.1 above the first; no region is large."""
    nan = float("nan")
    values = dict.fromkeys(METRICS[:-1], (value, value + 0.1)) | {"aupro_large": (nan, nan)}
    return DatasetResult(
        dataset=dataset,
        class_names=("bolt", "nut"),
        values=values,
        means={metric: nan if metric == "aupro_large" else value + 0.05 for metric in METRICS},
        num_normal=(3, 3),
        num_anomalous=(2, 2),
        reasons={("aupro_large", name): "no large region" for name in ("bolt", "nut")},
    )


def curves(dataset: str) -> dict:
    line = np.linspace(0, 1, 5)
    roc = Curve("false_positive_rate", "recall", line[::-1], line, np.sqrt(line))
    nothing = Curve("recall", "precision", line[:0], line[:0], line[:0])
    return {dataset: {"image_roc": [roc, roc], "pixel_pr": [nothing, roc]}}


def pictures(folder: Path, dataset: str, vmax: float) -> None:
    scale = ColourScale(0.0, vmax, "inferno")
    kept = Gallery(dataset, OverlayOptions(scale, 0.7, "random", 0, 0, 20, 1, PerClass(1, 1)))
    for number in range(4):
        path = folder / "images" / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (60 * number, 90, 90)).save(path)
        label = number % 2
        sample = Sample(path, label, "bolt", "bent" if label else "good")
        kept.add(sample, number / 4, torch.full((8, 8), number / 4), torch.zeros(8, 8).int())
    written = kept.write(folder / "overlays", folder / "gallery" / dataset)
    write_gallery(written.pictures, scale, folder / "gallery")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write the folder of a finished run, as a test leaves it."""

    def make(
        name: str,
        value: float = 0.5,
        *,
        dataset: str = "alpha",
        seed: int = 1,
        config: dict | None = None,
        command: str = "crane train",
        started: str = "2026-01-01T00:00:00+00:00",
        vmax: float = 1.0,
        findings: bool = True,
    ) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        write_results_json([result(dataset, value)], folder / "results.json")
        content = {"seed": seed, "run_dir": str(folder), **(config or {})}
        (folder / "config.yaml").write_text(yaml.safe_dump(content))
        record = {"seed": seed, "command": command, "started": started, "commit": "a" * 40}
        (folder / "record.json").write_text(json.dumps(record))
        if findings:
            write_curves(curves(dataset), {dataset: ("bolt", "nut")}, folder / "curves.json")
            pictures(folder, dataset, vmax)
        return folder

    return make
