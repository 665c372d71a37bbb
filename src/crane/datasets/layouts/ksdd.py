"""KolektorSDD as it is unpacked: kosNN/PartM.jpg and kosNN/PartM_label.bmp.

Every image has a label file; it is anomalous where that holds anything but zeros. So all label
files are opened when the data set is read, unless it was prepared (`crane data prepare`).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np

from crane.data.files import is_image, list_folders, list_images, shown
from crane.data.images import Box, read_mask
from crane.data.pairing import pair_masks
from crane.datasets.layouts.kinds import ReadClass, missing_split
from crane.errors import UsageError
from crane.types import ANOMALOUS, NORMAL, Sample

_PART = re.compile(r"kos\d+", re.IGNORECASE)
_LABEL = re.compile(r"_label$", re.IGNORECASE)
_DEFECT = "defect"


def ksdd(name: str, root: Path, split: str, *, class_name: str) -> Mapping[str, ReadClass] | None:
    """Read whole images; all are of split `test`."""
    parts = _parts(root)
    if not parts:
        return None
    if split != "test":
        raise missing_split(name, root, split, ["test"])
    return {class_name: partial(_read, parts, class_name, _whole)}


def ksdd_thirds(
    name: str, root: Path, split: str, *, class_name: str, test_fraction: float, seed: int
) -> Mapping[str, ReadClass] | None:
    """Read each image as three, cut across its length at floor(H / 3) and floor(2 H / 3).

    As the published preparation of AdaCLIP does. All anomalous thirds are of split `test`, and so
    is a share of the normal ones, drawn as scikit-learn's `train_test_split` draws it; the others
    are of split `train`. The published draw depended on the order in which a file system listed
    the folders; this one goes by name. So the numbers agree, the normal images chosen may not.

    Args:
        name: of the data set.
        root: the folder of `kosNN`.
        split: `test` or `train`.
        class_name: what to call the one class.
        test_fraction: share of the normal thirds that is tested, rounded up.
        seed: of the draw.
    """
    parts = _parts(root)
    if not parts:
        return None
    if split not in ("train", "test"):
        raise missing_split(name, root, split, ["train", "test"])

    def read() -> list[Sample]:
        samples = _read(parts, class_name, _thirds)
        normal = [s for s in samples if s.label == NORMAL]
        # The generator that scikit-learn uses for a whole number as its random state.
        order = np.random.RandomState(seed).permutation(len(normal))
        num_test = ceil(test_fraction * len(normal))
        if split == "train":
            return [normal[i] for i in order[num_test:]]
        return [s for s in samples if s.label == ANOMALOUS] + [normal[i] for i in order[:num_test]]

    return {class_name: read}


def _parts(root: Path) -> list[Path]:
    return [folder for folder in list_folders(root) if _PART.fullmatch(folder.name)]


def _read(
    parts: Sequence[Path], class_name: str, cut: Callable[[int, int], list[Box | None]]
) -> list[Sample]:
    """Make the samples of all folders, cutting each image into boxes."""
    pairs: list[tuple[Path, Path]] = []
    for part in parts:
        files = list_images(part)
        labels = [f for f in files if _LABEL.search(f.stem)]
        images = [f for f in files if is_image(f) and f not in set(labels)]
        found = pair_masks(images, labels, str(part))
        lacking = [i for i in images if i not in found]
        if lacking:
            raise UsageError(f"a _label.bmp for every image in {part}", f"none: {shown(lacking)}")
        pairs += found.items()
    with ThreadPoolExecutor() as pool:
        masks = pool.map(lambda pair: read_mask(pair[1], 0), pairs)
        return [
            _sample(image, label, mask, box, class_name)
            for (image, label), mask in zip(pairs, masks, strict=True)
            for box in cut(mask.shape[1], mask.shape[0])
        ]


def _sample(image: Path, label: Path, mask: np.ndarray, box: Box | None, class_name: str) -> Sample:
    left, top, right, bottom = box or (0, 0, mask.shape[1], mask.shape[0])
    if mask[top:bottom, left:right].any():
        return Sample(image, ANOMALOUS, class_name, _DEFECT, label, box)
    return Sample(image, NORMAL, class_name, box=box)


def _whole(width: int, height: int) -> list[Box | None]:
    return [None]


def _thirds(width: int, height: int) -> list[Box | None]:
    cuts = [0, height // 3, height * 2 // 3, height]
    return [(0, top, width, bottom) for top, bottom in pairwise(cuts)]
