"""Opening and resizing images in the loaders, and verifying data sets.

Writes benchmarks/loading.md. Images are smooth colours with sensor noise, as large PNG and JPEG
files; the page cache is warm, so decoding is measured and not the disk.
"""

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks._harness import provenance
from crane.data import CraneDataModule, Index, index_folder
from crane.data.dataset import IndexDataset
from crane.data.images import RESIZERS
from crane.datasets.verification import verify

SIDE, IMAGE_SIZE, BATCH = 1024, 518, 8
KINDS = {"PNG": ("png", {}), "JPEG": ("jpg", {"quality": 92})}


def _photo(rng: np.random.Generator, side: int) -> Image.Image:
    small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    pixels = np.asarray(small.resize((side, side), Image.Resampling.BICUBIC)).astype(int)
    noisy = pixels + rng.normal(0, 3, pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def make_images(root: Path, kind: str, num: int) -> Index:
    """Write a data set; half of the images are anomalous, with masks."""
    suffix, options = KINDS[kind]
    rng = np.random.default_rng(0)
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[300:500, 400:700] = 255
    for name in ("good", "bad", "ground_truth/bad"):
        (root / name).mkdir(parents=True)
    for i in range(num):
        folder = root / ("bad" if i % 2 else "good")
        _photo(rng, SIDE).save(folder / f"{i}.{suffix}", **options)
        if i % 2:
            Image.fromarray(mask).save(root / "ground_truth" / "bad" / f"{i}.png")
    return index_folder(kind, root, "test", mask_threshold=0)


def speed(index: Index, num_workers: int, resizer: str) -> float:
    """Images per second of one pass of a test loader, from the first request to the last batch."""
    data = CraneDataModule(
        None,
        {"images": index},
        image_size=IMAGE_SIZE,
        batch_size=BATCH,
        test_batch_size=BATCH,
        num_workers=num_workers,
        seed=0,
        validation_fraction=0.0,
        k_shot=0,
        portion=1.0,
        mosaic_rate=0.0,
        mosaic_anomalous_rate=0.0,
        drop_last=False,
        resizer=resizer,
        strict=True,
    )
    (loader,) = data.test_dataloader()
    start = time.perf_counter()
    num = sum(len(batch["image"]) for batch in loader)
    return num / (time.perf_counter() - start)


def difference(index: Index) -> tuple[float, float]:
    """Largest and mean difference between the two resizers, in levels of 255."""
    exact, fast = (IndexDataset(index, IMAGE_SIZE, name) for name in RESIZERS)
    gaps = [(exact[i]["image"] - fast[i]["image"]).abs() * 255 for i in range(4)]
    return max(float(gap.max()) for gap in gaps), float(np.mean([gap.mean() for gap in gaps]))


def verification(root: Path, num_files: int, repeats: int) -> dict[str, float]:
    """Seconds to verify a data set of small images, by names only and with every file opened."""
    rng = np.random.default_rng(0)
    (root / "good").mkdir(parents=True)
    (root / "bad").mkdir()
    (root / "ground_truth" / "bad").mkdir(parents=True)
    num_masks = num_files // 5
    for i in range(num_files - num_masks):
        folder = "bad" if i < num_masks else "good"
        _photo(rng, 256).save(root / folder / f"{i}.png", compress_level=1)
        if i < num_masks:
            mask = np.zeros((256, 256), dtype=np.uint8)
            mask[50:90, 60:99] = 255
            Image.fromarray(mask).save(root / "ground_truth" / "bad" / f"{i}.png")
    read = partial(index_folder, "files", root, mask_threshold=0)
    num_workers = os.cpu_count() or 1
    seconds: dict[str, list[float]] = {"--fast": [], "every file opened": []}
    for _ in range(repeats):
        for name, found in seconds.items():
            start = time.perf_counter()
            fast = name == "--fast"
            report = verify("files", read, "test", None, fast=fast, num_workers=num_workers)
            found.append(time.perf_counter() - start)
            assert not report.faults, report.faults
    return {name: min(found) for name, found in seconds.items()}


def _page(
    speeds: dict[tuple[str, int, str], float],
    gaps: dict[str, tuple[float, float]],
    verified: dict[str, float],
    options: argparse.Namespace,
) -> str:
    lines = [
        "# Loading",
        "",
        f"{options.images} images of {SIDE} x {SIDE}, half of them with masks, resized to "
        f"{IMAGE_SIZE} px in batches of {BATCH}: images per second of a whole pass, start-up of "
        f"the workers included; the fastest of {options.repeats} passes, warm page cache.",
        "",
        "| files | workers | `data.resizer=pil` (published) | `data.resizer=torch` |",
        "| --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        for num_workers in options.workers:
            cells = [f"{speeds[kind, num_workers, resizer]:.1f}" for resizer in RESIZERS]
            lines.append(f"| {kind} | {num_workers} | {cells[0]} | {cells[1]} |")
    shown = ", ".join(
        f"{kind}: at most {largest:.0f}, on average {mean:.3f}"
        for kind, (largest, mean) in gaps.items()
    )
    lines += [
        "",
        f"Difference between the two resizers in levels of 255: {shown}.",
        "",
        f"Verifying {options.files} files of 256 x 256 (a fifth of them masks), seconds:",
        "",
        "| `crane data verify` | s | files per second |",
        "| --- | --- | --- |",
        *(
            f"| {name} | {seconds:.2f} | {options.files / seconds:.0f} |"
            for name, seconds in verified.items()
        ),
    ]
    lines += [
        "",
        provenance(
            f"python -m benchmarks.loading --images {options.images} --repeats {options.repeats} "
            f"--files {options.files}"
        )
        + f" Pillow {Image.__version__}.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", default=64, type=int)
    parser.add_argument("--files", default=5000, type=int)
    parser.add_argument("--repeats", default=3, type=int)
    parser.add_argument("--workers", default=[0, 1, 2], type=int, nargs="+")
    options = parser.parse_args()
    torch.set_num_threads(1)  # as in worker processes
    speeds: dict[tuple[str, int, str], float] = {}
    gaps = {}
    with tempfile.TemporaryDirectory() as root:
        for kind in KINDS:
            index = make_images(Path(root, kind), kind, options.images)
            gaps[kind] = difference(index)
            for num_workers in options.workers:
                for resizer in RESIZERS:
                    passes = [speed(index, num_workers, resizer) for _ in range(options.repeats)]
                    speeds[kind, num_workers, resizer] = max(passes)
                    print(f"{kind}, {num_workers} workers, {resizer}: {passes}", flush=True)
        verified = verification(Path(root, "files"), options.files, options.repeats)
    page = _page(speeds, gaps, verified, options)
    Path(__file__).with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
