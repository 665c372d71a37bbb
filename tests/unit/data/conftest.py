import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crane.data import Index, index_folder


def write_image(path: Path, size=(24, 16), seed: int | None = None) -> Path:
    """An RGB image of noise; `size` is width, height."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(path.as_posix()) if seed is None else seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_mask(path: Path, size=(24, 16), value: int = 255, box=(4, 4, 12, 12)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = value
    Image.fromarray(mask).save(path)
    return path


def write_class(folder: Path, num_normal: int = 4, num_anomalous: int = 4) -> Path:
    """One class in MVTec AD's layout."""
    for i in range(num_normal):
        write_image(folder / "train" / "good" / f"{i:03d}.png", seed=i)
        write_image(folder / "test" / "good" / f"{i:03d}.png", seed=10 + i)
    for i in range(num_anomalous):
        write_image(folder / "test" / "broken" / f"{i:03d}.png", seed=20 + i)
        write_mask(folder / "ground_truth" / "broken" / f"{i:03d}_mask.png")
    return folder


def write_meta(root: Path, classes: dict, split: str = "test") -> Path:
    """A meta.json; `classes` maps a class to (img_path, mask_path, anomaly) rows."""
    listed = {
        class_name: [
            {
                "img_path": image,
                "mask_path": mask,
                "cls_name": class_name,
                "specie_name": "broken" if anomaly else "good",
                "anomaly": anomaly,
            }
            for image, mask, anomaly in rows
        ]
        for class_name, rows in classes.items()
    }
    path = root / "meta.json"
    path.write_text(json.dumps({"train": {}, split: listed}))
    return path


@pytest.fixture
def write():
    """The writers above, for tests that build their own folders."""

    class Writers:
        image = staticmethod(write_image)
        mask = staticmethod(write_mask)
        classed = staticmethod(write_class)
        meta = staticmethod(write_meta)

    return Writers


@pytest.fixture
def mvtec_root(tmp_path: Path) -> Path:
    """Two classes, 4 normal and 4 anomalous test images with masks each."""
    for name in ("bottle", "cable"):
        write_class(tmp_path / "mvtec" / name)
    return tmp_path / "mvtec"


@pytest.fixture
def mvtec(mvtec_root: Path) -> Index:
    return index_folder("mvtec", mvtec_root, "test", mask_threshold=0)
