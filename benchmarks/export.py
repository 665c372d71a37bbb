"""Exported files beside PyTorch: differences, metrics, size, latency and memory."""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch

import crane
import crane_runtime
from benchmarks._harness import Claim, Options, Report, fastest
from crane.data.images import read_mask, upright_size
from crane.drawn import index_embedded
from crane.metrics import aupro, image_auroc

DOMAIN = "photos"
IMAGES = {False: None, True: 12}
"""Images of the domain, by `Options.small`."""
NUM_CALIBRATED = 16
"""Normal images, of the domain's own `train`, on which static int8 is calibrated."""
FILES = {"fp32": ("fp32", False), "fp16": ("fp16", False)}
FILES |= {"int8, dynamic": ("int8", False), "int8, static": ("int8", True)}
MEMORY = """
import {module} as library
from pathlib import Path
library.load({what!r}).predict([{photo!r}])
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line for line in lines if line.startswith("VmHWM")).split()[1])
"""


def run(options: Options) -> Report:
    """Score every image with PyTorch and with each file, then time one image in turns."""
    index = index_embedded("bench", None, DOMAIN, "test", mask_threshold=0)
    normal = index_embedded("bench", None, DOMAIN, "train", mask_threshold=0).samples
    step = max(1, len(index.samples) // (IMAGES[options.small] or len(index.samples)))
    samples = index.samples[::step]
    photos = [sample.image for sample in samples]
    labels = np.array([sample.label for sample in samples])
    masks = [
        read_mask(sample.masks, 0)
        if sample.masks
        else np.zeros(upright_size(sample.image)[::-1], dtype=bool)
        for sample in samples
    ]
    detector = crane.load("mini", device="cpu")
    scorers = {"PyTorch": detector.predict}
    sizes = {"PyTorch": 0.0}
    memory = {"PyTorch": _memory("crane", "mini", photos[0])}
    with tempfile.TemporaryDirectory() as folder:
        for name, (precision, is_static) in FILES.items():
            path = Path(folder, f"{name.replace(', ', '_')}.onnx")
            good = [str(sample.image) for sample in normal[:NUM_CALIBRATED]]
            detector.export(path, precision=precision, calibration=good if is_static else None)
            scorers[name] = crane_runtime.load(path).predict
            sizes[name] = path.stat().st_size / 1e6
            memory[name] = _memory("crane_runtime", str(path), photos[0])
        found = {name: [score(photo) for photo in photos] for name, score in scorers.items()}
        works = {name: partial(score, photos[0]) for name, score in scorers.items()}
        seconds = fastest(works, repeats=2 if options.small else 20)
    return _report(found, labels, np.stack(masks), sizes, seconds, memory)


def _report(found, labels, masks, sizes, seconds, memory) -> Report:
    wanted, rows, apart, points = found["PyTorch"], [], {}, {}
    for name, results in found.items():
        scores = np.array([abs(a.score - b.score) for a, b in zip(results, wanted, strict=True)])
        maps = [np.abs(a.map - b.map) for a, b in zip(results, wanted, strict=True)]
        apart[name] = float(max(scores.max(), *(one.max() for one in maps)))
        own = np.stack([one.map for one in results])
        auroc = 100 * float(
            image_auroc(torch.tensor([one.score for one in results]), torch.from_numpy(labels))
        )
        points[name] = (auroc, 100 * float(aupro(torch.from_numpy(own), torch.from_numpy(masks))))
        cells = [f"{scores.max():.1e}", f"{max(one.max() for one in maps):.1e}"]
        cells += [f"{np.mean([one.mean() for one in maps]):.1e}"]
        cells += [f"{value:.2f}" for value in points[name]]
        ratios = (seconds[name] / seconds["PyTorch"], memory[name] / memory["PyTorch"])
        size = f"{sizes[name]:.1f}" if sizes[name] else "-"
        rows.append([name, *cells, size, *(f"{ratio:.2f}" for ratio in ratios)])
    moved = {
        name: max(abs(a - b) for a, b in zip(one, points["PyTorch"], strict=True))
        for name, one in points.items()
    }
    return Report(
        title="Export",
        text=f"The embedded Crane (`mini`, 224 px) on {len(labels)} images of embedded_photos, as "
        "ONNX files under `crane_runtime` beside PyTorch: largest differences of scores and maps, "
        "mean difference of maps, image AUROC and AUPRO in per cent, size of the file; seconds of "
        "one image, file reading included (the fastest of 20 rounds in turns), and peak memory of "
        "a new process that scores one image, both divided by PyTorch's. Static int8 was "
        f"calibrated on {NUM_CALIBRATED} normal images. So small a model gains little from int8; "
        "processors without instructions for float16 compute it in float32.",
        claims=[
            Claim(
                "export, fp32: largest difference of a score or pixel", 1e-4, apart["fp32"], True
            ),
            Claim("export, fp16: points of AUROC or AUPRO moved", 0.5, moved["fp16"], True),
            Claim(
                "the runtime's memory / PyTorch's, fp32",
                *(0.5, memory["fp32"] / memory["PyTorch"], True),
            ),
        ],
        columns=["", "score", "map", "map, mean", "AUROC", "AUPRO", "MB", "time", "memory"],
        rows=rows,
    )


def _memory(module: str, what: str, photo: Path) -> int:
    """Peak resident memory in KiB of a new process that loads a model and scores one image."""
    script = MEMORY.format(module=module, what=what, photo=str(photo))
    typed = [sys.executable, "-c", script]
    done = subprocess.run(typed, capture_output=True, text=True, check=True, env=dict(os.environ))
    return int(done.stdout.split()[-1])
