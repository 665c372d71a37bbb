"""The forward on a GPU in absolute numbers, beside the official implementation."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import _official
from benchmarks._harness import NOT_RUN, Claim, Options, Report, fastest, isolated, say
from benchmarks._models import IMAGE_SIZE, build
from benchmarks._runs import make_images, of_folder
from crane import gate
from crane.config import compose
from crane.methods import compile_towers
from crane.types import Prediction

OFFICIAL = "official"
ROWS = {
    "float32": "Crane, `trainer.precision=32-true`",
    "bfloat16": "Crane, `trainer.precision=bf16-mixed`",
    "compiled": "Crane, the same and `compile=default`",
    OFFICIAL: "the official implementation, unchanged (float32)",
}
BATCHES = {False: (1, 8, 32), True: (1, 2)}
REPEATS = {False: 5, True: 1}
TAPS = {False: (6, 12, 18, 24), True: (8,)}
TARGET = "embedded_photos"
METRICS = ("image_auroc", "aupro")

Found = dict[str, Any]
"""Result of a row: `speed` and `memory` by batch size (None: out of memory), `metrics` in %."""


def run(options: Options) -> Report:
    """Measure each row in a new process; without a GPU, report that nothing was run."""
    found: dict[str, Found | None] = dict.fromkeys(ROWS)
    differences: dict[str, float] = {}
    if options.device == "cuda":
        with tempfile.TemporaryDirectory() as folder:
            for row in ROWS:
                if row != OFFICIAL or options.official is not None:
                    found[row] = isolated(measure, options, row, Path(folder))
            differences = {row: _difference(row, Path(folder)) for row in ROWS if found[row]}
    batches = BATCHES[options.small]
    return Report(
        title="On a GPU",
        text=(
            f"ViT-L/14 at {IMAGE_SIZE[options.small]} px, random weights, E-Attn, static prompts; "
            "images per second of the whole forward including the blur, the fastest of "
            f"{REPEATS[options.small]} after a warm-up, and the peak of the memory allocated by "
            f"PyTorch, weights included. `python -m benchmarks gpu --device cuda "
            "--official PATH` runs it beside a checkout of the official implementation "
            "(github.com/AlirezaSalehy/Crane, whose requirements must be installed) on the same "
            f"weights and prompts; maps and metrics are compared on `{TARGET}`."
        ),
        claims=_claims(found, differences),
        columns=[
            "implementation",
            *(f"images/s at batch {batch}" for batch in batches),
            *(f"GB at batch {batch}" for batch in batches),
        ],
        rows=[[words, *_cells(found[row], batches)] for row, words in ROWS.items()],
    )


def _cells(found: Found | None, batches: tuple[int, ...]) -> list[str]:
    if found is None:
        return [NOT_RUN] * (2 * len(batches))
    numbers = [found["speed"][batch] for batch in batches]
    numbers += [found["memory"][batch] for batch in batches]
    return ["out of memory" if number is None else f"{number:.3g}" for number in numbers]


def _claims(found: dict[str, Found | None], differences: dict[str, float]) -> list[Claim]:
    """Targets relative to the official implementation; not run unless both were."""
    ours, theirs = found["bfloat16"], found[OFFICIAL]
    speed = memory = map_difference = points = None
    if ours is not None and theirs is not None:
        batch = max(b for b in ours["speed"] if b <= 8)
        if theirs["speed"][batch] is not None:
            speed = ours["speed"][batch] / theirs["speed"][batch]
            memory = ours["memory"][batch] / theirs["memory"][batch]
        map_difference = differences["bfloat16"]
        points = max(abs(ours["metrics"][m] - theirs["metrics"][m]) for m in METRICS)
    return [
        Claim("GPU, batch of 8, bf16: images/s / the official code's", 5, speed, False),
        Claim("the same: memory / the official code's", 1 / 3, memory, True),
        Claim("the same: largest difference of a map", 0.01, map_difference, True),
        Claim("the same: difference of AUROC and AUPRO, points", 0.1, points, True),
    ]


def measure(options: Options, row: str, folder: Path) -> Found:
    """Measure speed, memory and metrics of a row, and write its maps of the target.

    Args:
        options: Options of the benchmark.
        row: A key of `ROWS`.
        folder: Folder for the maps.
    """
    detect, device, size = _detector(options, row), options.device, IMAGE_SIZE[options.small]
    speed: dict[int, float | None] = {}
    memory: dict[int, float | None] = {}
    for batch in BATCHES[options.small]:
        images = torch.rand(batch, 3, size, size, device=device)
        try:
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            seconds = fastest({row: lambda i=images: detect(i)}, REPEATS[options.small], device)
            speed[batch] = batch / seconds[row]
            memory[batch] = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
        except torch.cuda.OutOfMemoryError:
            speed[batch] = memory[batch] = None
        say(f"{row}, batch {batch}: {speed[batch]} images/s, {memory[batch]} GB")
    return {"speed": speed, "memory": memory, "metrics": _evaluate(detect, options, folder / row)}


def _detector(options: Options, row: str) -> Callable[[Tensor], Prediction]:
    """A function from images to scores and maps, without gradients."""
    models, device = build(options.small, options.device), options.device
    if row == OFFICIAL:
        assert options.official is not None
        detect: Callable[[Tensor], Prediction] = _official.detector(
            options.official,
            models.clip,
            models.crane.prompts,
            taps=TAPS[options.small],
            num_blocks=models.num_blocks,
            image_size=IMAGE_SIZE[options.small],
            device=device,
        )
        return torch.no_grad()(detect)
    crane = models.crane
    text = crane.encode_classes(["object"])
    compile_towers(crane, "default" if row == "compiled" else False)

    def ours(images: Tensor) -> Prediction:
        with torch.autocast(device, torch.bfloat16, enabled=row != "float32"):
            size = (images.shape[-2], images.shape[-1])
            class_id = torch.zeros(len(images), dtype=torch.int64, device=device)
            return crane.predict(crane.encode(images), text, class_id, size)

    return torch.inference_mode()(ours)


def _evaluate(
    detect: Callable[[Tensor], Prediction], options: Options, path: Path
) -> dict[str, float]:
    """Metrics of the target in per cent; the maps go into a file."""
    size, target = IMAGE_SIZE[options.small], [f"dataset@targets=[{TARGET}]"]
    if options.small:  # drawing the real target takes a minute
        target = of_folder("targets", make_images(path.parent / f"{path.name}_images", 4, size))
    config = compose(
        "test",
        [
            *target,
            f"datasets_dir={path.parent}",
            f"image_size={size}",
            "data.num_workers=0",
            f"data.test_batch_size={BATCHES[options.small][1]}",
        ],
    )
    data = gate.build(config.data, "data")
    (index,) = data.targets.values()
    evaluation = gate.build(config.metrics, "metrics")(class_names=index.class_names)
    maps = []
    for batch in data.test_dataloader()[0]:
        prediction = detect(batch["image"].to(options.device))
        score, anomaly_map = prediction.score.float().cpu(), prediction.map.float().cpu()
        maps.append(anomaly_map.numpy())
        truth = (batch[key] for key in ("label", "mask", "has_mask", "class_id", "index"))
        evaluation.update(score, anomaly_map, *truth)
    np.save(path.with_suffix(".npy"), np.concatenate(maps))
    means = evaluation.compute().means
    return {metric: 100 * float(means[metric]) for metric in METRICS}


def _difference(row: str, folder: Path) -> float:
    """Largest difference of a row's maps from the official ones, or from float32 without these."""
    official = folder / f"{OFFICIAL}.npy"
    theirs = np.load(official if official.is_file() else folder / "float32.npy", mmap_mode="r")
    ours = np.load(folder / f"{row}.npy", mmap_mode="r")
    return max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True))
