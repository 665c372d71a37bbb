"""Cost of a test besides the model: blur, metrics, and region labelling in the loaders.

Writes benchmarks/evaluation_share.md: time per image of the paper's model at 518 px and of each
part of the evaluation, in one process, one after the other.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks._harness import provenance
from crane.config import compose
from crane.data.images import label_regions
from crane.gate import build
from crane.methods import build_model
from crane.scoring import gaussian_blur

SIZE = 518


def _seconds(work: Callable[[], object], repeats: int, device: str) -> float:
    taken = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken[1:])


def _measure(device: str, repeats: int) -> dict[str, float]:
    config = compose("test", ["backbone.model.weights=random"])
    model = build_model(config).to(device)
    evaluation = build(config.metrics, "metrics")(class_names=["all"]).to(device)
    image = torch.rand(1, 3, SIZE, SIZE, device=device)
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    mask[100:180, 120:300] = mask[300:340, 50:90] = True
    regions = torch.from_numpy(label_regions(mask)).unsqueeze(0).to(device)
    one = torch.ones(1, dtype=torch.int64, device=device)
    count = iter(range(10**6))

    with torch.inference_mode():
        prediction = model(image)

        def update() -> None:
            index = torch.tensor([next(count)], device=device)
            known = one.bool()
            evaluation.update(
                *prediction, one, regions, known, torch.zeros_like(one), index, labelled=True
            )

        return {
            "the model: both streams, prompts, map, score": _seconds(
                lambda: model(image), repeats, device
            ),
            "of which the blur of the map": _seconds(
                lambda: gaussian_blur(prediction.map, 4.0), 10 * repeats, device
            ),
            "metrics: all image, pixel and region metrics updated": _seconds(
                update, 10 * repeats, device
            ),
            "labelling regions (in the loading workers)": _seconds(
                lambda: label_regions(mask), 10 * repeats, device
            ),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", default=3, type=int)
    options = parser.parse_args()
    parts = _measure(options.device, options.repeats)
    whole = next(iter(parts.values()))
    lines = [
        "# The evaluation's share of a test",
        "",
        "ViT-L/14 at 518 px, random weights, float32, one image at a time; medians.",
        "",
        "| part | ms / image | share of the model's time |",
        "| --- | --- | --- |",
        *(f"| {name} | {1e3 * s:.1f} | {s / whole:.3%} |" for name, s in parts.items()),
        "",
        provenance(
            f"python -m benchmarks.evaluation_share --device {options.device} "
            f"--repeats {options.repeats}",
            options.device,
        ),
        "",
    ]
    page = "\n".join(lines)
    Path(__file__).with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
