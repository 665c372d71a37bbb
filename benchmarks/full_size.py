"""The paper's model at full size: ViT-L/14 at 518 px, random weights, one image at a time.

Writes benchmarks/full_size.md. Each row is measured in a process of its own, so that its peak
memory is its own; what is left of a machine's noise is in the spread.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from open_clip import create_model
from torch import Tensor, nn

from crane.config import compose
from crane.models import build_model
from crane.reporting import begin_record

SIZE = 518
ROWS = {
    "vit": "the plain vision transformer (open_clip's own forward)",
    "crane": "Crane: both streams, prompts, map, score",
    "crane_plus": "Crane+: the same and D-Attn, the guide's own forward left out",
}


class _Features(nn.Module):
    """DINOv2's output shape at 518 px, without its cost."""

    def forward(self, images: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(len(images), 768, 37, 37, generator=generator).to(images.device)


def _build(row: str) -> Callable[[Tensor], object]:
    if row == "vit":
        model = create_model("ViT-L-14-336", force_image_size=SIZE, load_weights=False)
        return model.visual.eval()
    overrides = ["backbone.model.weights=random", f"method={row}"]
    guide = _Features() if row == "crane_plus" else None
    return build_model(compose("train", overrides), guide=guide)


def _measure(row: str, device: str, repeats: int) -> dict[str, float]:
    forward = _build(row)
    if isinstance(forward, nn.Module):
        forward.to(device)
    images = torch.rand(1, 3, SIZE, SIZE, device=device)
    seconds = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            start = time.perf_counter()
            forward(images)
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
    warm = seconds[1:]
    return {"median": statistics.median(warm), "min": min(warm), "max": max(warm), "peak": peak}


def _page(results: dict[str, dict[str, float]], device: str, repeats: int) -> str:
    record = begin_record(seed=0, device=device, data={}, weights={})
    lines = [
        "# The full-size model",
        "",
        "ViT-L/14 at 518 px, random weights, float32, one image; seconds are the median of "
        f"{repeats} runs after a warm-up, with minimum and maximum.",
        "",
        "| forward | s / image | min to max | ratio to the plain ViT | peak memory (GB) |",
        "| --- | --- | --- | --- | --- |",
    ]
    base = results["vit"]["median"]
    for row, value in results.items():
        lines.append(
            f"| {ROWS[row]} | {value['median']:.2f} | {value['min']:.2f} to {value['max']:.2f} "
            f"| {value['median'] / base:.2f} | {value['peak']:.2f} |"
        )
    commit = f"{record.commit or 'unknown'}{' with changes' if record.dirty else ''}"
    lines += [
        "",
        f"Command: `python -m benchmarks.full_size --device {device} --repeats {repeats}`. "
        f"Commit: {commit}. Machine: {record.machine}, {torch.get_num_threads()} threads, "
        f"Python {platform.python_version()}, torch {torch.__version__}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--repeats", default=3, type=int)
    parser.add_argument("--row", choices=ROWS, help="measure one row and print it as JSON")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(_measure(options.row, options.device, options.repeats)))
        return
    results = {}
    for row in ROWS:
        command = [sys.executable, "-m", "benchmarks.full_size", "--row", row]
        command += ["--device", options.device, "--repeats", str(options.repeats)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        results[row] = json.loads(done.stdout.splitlines()[-1])
        print(f"{ROWS[row]}: {results[row]['median']:.2f} s", flush=True)
    page = _page(results, options.device, options.repeats)
    Path(__file__).with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
