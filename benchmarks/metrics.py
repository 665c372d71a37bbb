"""Our pixel and region metrics against other implementations of some of them.

Writes benchmarks/metrics.md. Each row runs in a process of its own, so that peaks of memory are
separate; all rows read the same maps from disk, and reading is not timed.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SIZE = 518
BATCH = 8
ROWS = {
    "ours": "crane, streaming: all 10 pixel and region metrics, each with its bound",
    "published": "published AUPRO alone: 200 thresholds, regions found anew at each",
    "published_once": "the same, regions found once",
    "anomalib": "anomalib's AUPRO alone",
    "exact": "crane, exact mode (sorts every score): the same 10 metrics",
    "sklearn": "scikit-learn: pixel AUROC, AP and F1-max",
    "label": "labelling the regions of the masks (done by the loading workers)",
}
REPEATED = {"ours", "label"}  # the others are too slow


def make_maps(folder: Path, num_images: int) -> None:
    """Write blurred anomaly probabilities and masks; a quarter of the images is normal."""
    import numpy as np
    from scipy import ndimage

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE]
    for number in range(num_images):
        noise = ndimage.gaussian_filter(rng.normal(size=(74, 74)), 1.5)
        noise = ndimage.zoom(noise / noise.std(), SIZE / 74, order=1)
        logit, mask = 0.8 * noise - 3, np.zeros((SIZE, SIZE), dtype=bool)
        for blob in range(3 + (number % 4 > 0) * int(rng.integers(1, 5))):
            centre, radii = rng.uniform(0, SIZE, 2), np.exp(rng.uniform(np.log(4), np.log(60), 2))
            distance = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2
            if blob >= 3:  # the first three are false alarms
                mask |= distance < 1
            logit += rng.uniform(0.5, 6 if blob >= 3 else 3.5) * np.exp(-distance / 2)
        probability = ndimage.gaussian_filter(1 / (1 + np.exp(-logit)), sigma=4)
        np.save(folder / f"map_{number:04}.npy", probability.astype(np.float32))
        np.save(folder / f"mask_{number:04}.npy", mask)


def _batches(folder: Path) -> Iterator[tuple[Any, Any]]:
    import numpy as np

    maps = sorted(folder.glob("map_*.npy"))
    for start in range(0, len(maps), BATCH):
        part = maps[start : start + BATCH]
        masks = [np.load(path.with_name(path.name.replace("map", "mask"))) for path in part]
        yield np.stack([np.load(path) for path in part]), np.stack(masks)


class _Clock:
    """Seconds spent in `with` blocks: wall-clock time, and CPU time of all cores."""

    def __init__(self) -> None:
        self.seconds = self.busy = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._start[0]
        self.busy += time.process_time() - self._start[1]


def _crane(option: str, folder: Path, clock: _Clock) -> dict[str, float]:
    import numpy as np
    import torch

    from crane.config import compose
    from crane.data.images import label_regions
    from crane.gate import build

    settings = compose("test", [f"metrics={option}"]).metrics
    settings.image_measures = {}
    make = build(settings, "metrics")
    with clock:
        evaluation = make(class_names=["all"])
    for maps, masks in _batches(folder):
        labelled = torch.from_numpy(np.stack([label_regions(mask) for mask in masks]))
        with clock:
            evaluation.pixels.update(torch.from_numpy(maps), labelled, labelled=True)
    with clock:
        results = evaluation.compute()
    largest = max(error for error in results.mean_bounds.values() if error == error)
    return {"aupro": results.means["aupro"], "error": largest}


def _published(folder: Path, clock: _Clock, once: bool) -> dict[str, float]:
    """The published procedure in its usual implementation (spec: "Published evaluation")."""
    import numpy as np
    from skimage import measure

    data = list(_batches(folder))
    maps, masks = (np.concatenate(part) for part in zip(*data, strict=True))
    with clock:
        lowest, highest = float(maps.min()), float(maps.max())
        normal = ~masks
        known = [measure.regionprops(measure.label(mask)) for mask in masks] if once else None
        points = []
        for threshold in lowest + np.arange(200) * ((highest - lowest) / 200):
            above = maps > np.float32(threshold)
            overlaps = []
            for number, binary in enumerate(above):
                regions = (
                    known[number] if known else measure.regionprops(measure.label(masks[number]))
                )
                for region in regions:
                    inside = binary[region.coords[:, 0], region.coords[:, 1]]
                    overlaps.append(inside.sum() / region.area)
            wrong = np.logical_and(normal, above).sum()
            points.append((wrong / normal.sum(), np.mean(overlaps)))
        fpr, pro = np.array([point for point in points if point[0] < 0.3]).T
        fpr = (fpr - fpr.min()) / (fpr.max() - fpr.min())
        area = abs(float((np.diff(fpr) * (pro[1:] + pro[:-1])).sum()) / 2)
    return {"aupro_200": area}


def _anomalib(folder: Path, clock: _Clock) -> dict[str, float]:
    import torch
    from anomalib.metrics.aupro import _AUPRO

    metric = _AUPRO(fpr_limit=0.3)
    for maps, masks in _batches(folder):
        maps, masks = torch.from_numpy(maps), torch.from_numpy(masks).long()
        with clock:
            metric.update(maps, masks)
    with clock:
        return {"aupro": float(metric.compute())}


def _sklearn(folder: Path, clock: _Clock) -> dict[str, float]:
    import numpy as np
    from sklearn import metrics

    data = list(_batches(folder))
    scores, labels = (np.concatenate([x.ravel() for x in part]) for part in zip(*data, strict=True))
    with clock:
        area = metrics.roc_auc_score(labels, scores)
        metrics.average_precision_score(labels, scores)
        precision, recall, _ = metrics.precision_recall_curve(labels, scores)
        np.nanmax(2 * precision * recall / (precision + recall + 1e-12))
    return {"pixel_auroc": float(area)}


def _label(folder: Path, clock: _Clock) -> dict[str, float]:
    from crane.data.images import label_regions

    for _, masks in _batches(folder):
        with clock:
            for mask in masks:
                label_regions(mask)
    return {}


MEASURED: dict[str, Callable[[Path, _Clock], dict[str, float]]] = {
    "ours": lambda folder, clock: _crane("default", folder, clock),
    "exact": lambda folder, clock: _crane("exact", folder, clock),
    "published": lambda folder, clock: _published(folder, clock, once=False),
    "published_once": lambda folder, clock: _published(folder, clock, once=True),
    "anomalib": _anomalib,
    "sklearn": _sklearn,
    "label": _label,
}


def _measure(row: str, folder: Path, warm: Path) -> dict[str, float]:
    """Run a row on two maps as a warm-up, then on all."""
    MEASURED[row](warm, _Clock())
    before = _peak()
    clock = _Clock()
    values = MEASURED[row](folder, clock)
    return {"seconds": clock.seconds, "busy": clock.busy, "megabytes": _peak() - before, **values}


def _peak() -> float:
    """Peak memory of this process in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def _run(row: str, folder: Path, warm: Path, repeats: int) -> dict[str, float] | None:
    """Measure a row in new processes; None if a package it needs is not installed."""
    command = [sys.executable, "-m", "benchmarks.metrics", "--row", row, str(folder), str(warm)]
    runs = []
    for _ in range(repeats if row in REPEATED else 1):
        done = subprocess.run(command, capture_output=True, text=True)
        if "No module named 'anomalib" in done.stderr:
            return None
        if done.returncode:
            raise RuntimeError(done.stderr)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def _table(results: dict[str, dict[str, float] | None], num_images: int) -> list[str]:
    lines = [
        f"## {num_images} maps",
        "",
        "| what | seconds | times ours | core seconds | times ours | added memory (MB) | AUPRO "
        "| published AUPRO |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    ours = results["ours"]
    for row, value in results.items():
        if value is None:
            lines.append(f"| {ROWS[row]} | not installed | | | | | | |")
            continue
        shown = [f"{value[name]:.5f}" if name in value else "" for name in ("aupro", "aupro_200")]
        lines.append(
            f"| {ROWS[row]} | {value['seconds']:.3f} | {value['seconds'] / ours['seconds']:.1f} "
            f"| {value['busy']:.3f} | {value['busy'] / ours['busy']:.1f} "
            f"| {value['megabytes']:.0f} | {shown[0]} | {shown[1]} |"
        )
    return [*lines, ""]


def _page(tables: dict[int, dict[str, dict[str, float] | None]], repeats: int) -> str:
    from benchmarks._harness import provenance

    largest = max(results["ours"]["error"] for results in tables.values())
    lines = [
        "# Metrics",
        "",
        f"Maps of {SIZE} x {SIZE} with smooth, blurred probabilities (`make_maps`), one class, "
        f"in batches of {BATCH}. Each row runs in a process of its own after a warm-up; seconds "
        f"and memory are the median of {repeats} processes for crane's streaming metrics and the "
        "labelling, and of a single process otherwise. Seconds do not include reading the maps; "
        "core seconds are the CPU time of all cores. Memory is the growth of the peak after the "
        "warm-up, including the maps in rows that hold all of them at once.",
        "",
        f"The largest error bound of the streaming values is {largest:.1e}.",
        "",
    ]
    for num_images, results in tables.items():
        lines += _table(results, num_images)
    lines += [
        "anomalib is included if it is installed in the same environment (use a copy: it pins "
        "other versions). " + provenance(f"python -m benchmarks.metrics --repeats {repeats}"),
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", default=5, type=int)
    parser.add_argument("--images", default=[30, 200], type=int, nargs="+")
    parser.add_argument("--row", nargs=3, metavar=("ROW", "FOLDER", "WARM"), help="one row as JSON")
    options = parser.parse_args()
    if options.row:
        row, folder, warm = options.row
        print(json.dumps(_measure(row, Path(folder), Path(warm))))
        return
    tables = {}
    with tempfile.TemporaryDirectory() as root:
        warm = Path(root, "warm")
        for folder, num_images in [(warm, 2)] + [(Path(root, str(n)), n) for n in options.images]:
            folder.mkdir()
            make_maps(folder, num_images)
        for num_images in options.images:
            tables[num_images] = {}
            for row, words in ROWS.items():
                value = _run(row, Path(root, str(num_images)), warm, options.repeats)
                tables[num_images][row] = value
                seconds = f"{value['seconds']:.3f} s" if value else "not installed"
                print(f"{num_images} maps, {words}: {seconds}", flush=True)
    page = _page(tables, options.repeats)
    Path(__file__).with_suffix(".md").write_text(page, encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
