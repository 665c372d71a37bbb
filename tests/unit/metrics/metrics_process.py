"""One process of test_metrics_distributed.py: rank, folder; results go to the folder as JSON."""

import functools
import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed

from crane.errors import UsageError
from crane.metrics import (
    BinnedPixels,
    Evaluation,
    ExactPixels,
    ImageScores,
    ScoreScale,
    aupro,
    aupro_steps,
    auroc,
    average_precision,
    f1_max,
)

# Which images each process of 1, 2 and 3 gets: uneven, and one of the three gets none.
SHARES = {
    1: [range(10)],
    2: [range(7), range(7, 10)],
    3: [range(3), range(0), range(3, 10)],
}
PIXELS = {
    "binned": functools.partial(BinnedPixels, scale=ScoreScale(6, 10), size_edges=(4,)),
    "exact": functools.partial(ExactPixels, size_edges=(4,)),
}


def build(mode, group):
    return Evaluation(
        class_names=["nut", "bolt", "none"],
        images=functools.partial(ImageScores, max_images=50, process_group=group),
        pixels=functools.partial(PIXELS[mode], process_group=group),
        image_measures={"image_auroc": auroc, "image_ap": average_precision},
        pixel_measures={
            "pixel_auroc": auroc,
            "pixel_f1max": f1_max,
            "aupro": functools.partial(aupro, limit=0.3),
            "aupro_large": functools.partial(aupro, limit=0.3, size_bin=1),
            "aupro_200": functools.partial(aupro_steps, limit=0.3, num_steps=200),
        },
    )


def batch(share):
    """The images of a share; class 2 has no images."""
    rng = np.random.default_rng(0)
    mask = np.zeros((10, 20, 20), dtype=np.int32)
    mask[::2, 2:6, 2:6], mask[::2, 9, 9], mask[::3, 12:14, 15:18] = 1, 2, 3
    maps = rng.random(mask.shape) + 0.5 * (mask > 0)
    values = {
        "score": rng.random(10).astype(np.float32),
        "map": maps.astype(np.float32),
        "label": mask.any(axis=(1, 2)).astype(np.int64),
        "mask": mask,
        "has_mask": np.arange(10) != 6,
        "class_id": np.arange(10) // 5,
        "index": np.arange(10),
    }
    return {name: torch.from_numpy(value[list(share)]) for name, value in values.items()}


def evaluate(mode, group, share):
    evaluation = build(mode, group)
    if len(share):
        evaluation.update(**batch(share))
    results = evaluation.compute()
    return {
        "values": results.values,
        "means": results.means,
        "bounds": results.bounds,
        "num_images": [results.num_normal, results.num_anomalous],
    }


def repeated(group):
    """What happens if all processes evaluate the same image."""
    evaluation = build("binned", group)
    evaluation.update(**batch(range(4, 5)))
    try:
        evaluation.compute()
    except UsageError as error:
        return str(error)
    return ""


def main(rank, folder):
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3
    )
    for num_processes, shares in SHARES.items():
        group = distributed.new_group(list(range(num_processes)))
        if rank < num_processes:
            results = {mode: evaluate(mode, group, shares[rank]) for mode in PIXELS}
            results["repeated"] = repeated(group) if num_processes > 1 else ""
            (folder / f"{num_processes}_{rank}.json").write_text(json.dumps(results))
    # The package is to be usable without the rest of the project.
    others = {"lightning", "pytorch_lightning", "hydra", "omegaconf", "open_clip", "timm"}
    heavy = (others | {"pandas", "pyarrow"}) & set(sys.modules)
    assert not heavy, heavy
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
