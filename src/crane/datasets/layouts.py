"""How data sets lie on disk: one function per layout (see `crane.data.index.Layout`).

Here stand those that tell labels by folders or by masks: Br35H, polyp sets, KolektorSDD.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from math import ceil
from pathlib import Path

import numpy as np

from crane.checks import Fraction, Seed
from crane.data.filenames import (
    check_unique_stems,
    first_few,
    list_folders,
    list_images,
    pair_masks,
)
from crane.data.index import Readers, missing_split
from crane.data.labelled_folders import folders as folders
from crane.data.meta_json import listed as listed
from crane.datasets.table_layouts import dagm as dagm
from crane.datasets.table_layouts import dagm_balanced as dagm_balanced
from crane.datasets.table_layouts import elpv_csv as elpv_csv
from crane.datasets.table_layouts import headct_csv as headct_csv
from crane.datasets.table_layouts import visa_csv as visa_csv
from crane.errors import UsageError
from crane.samples import ANOMALOUS, NORMAL, Sample

Cut = Callable[[int, int], list[tuple[int, int, int, int] | None]]
"""Cuts an image, given its width and height, into boxes; None is the whole image."""

_PART = re.compile(r"kos\d+", re.IGNORECASE)
_LABEL = re.compile(r"_label$", re.IGNORECASE)


def label_folders(
    name: str,
    root: Path,
    split: str,
    *,
    class_name: str,
    normal: str,
    anomalous: str | Sequence[str],
) -> Readers | None:
    """One folder of normal and one or several of anomalous images, without masks.

    Everything else beside them is ignored, such as the unlabelled `pred` of Br35H and the copy
    of BrainMRI inside itself.

    Args:
        name: The data set.
        root: The folder of them.
        split: Only `test`.
        class_name: Name of the only class.
        normal: Folder of normal images.
        anomalous: Folder of anomalous images, or several.
    """
    defects = [anomalous] if isinstance(anomalous, str) else list(anomalous)
    if not all((root / folder).is_dir() for folder in (normal, *defects)):
        return None
    if split != "test":
        raise missing_split(name, root, split, ["test"])

    def read() -> list[Sample]:
        samples = []
        kinds = [(normal, NORMAL, "good"), *((one, ANOMALOUS, one) for one in defects)]
        for folder, label, defect in kinds:
            images = list_images(root / folder)
            check_unique_stems(images, str(root / folder))
            samples += [Sample(image, label, class_name, defect) for image in images]
        return samples

    return {class_name: read}


def pairs(
    name: str, root: Path, split: str, *, class_name: str, splits: Mapping[str, Sequence[str]]
) -> Readers | None:
    """A folder of anomalous images and one of their masks; there are no normal images.

    Args:
        name: The data set.
        root: The folder of both.
        split: One of `splits`.
        class_name: Name of the only class.
        splits: Split to the names of its two folders, images first.
    """
    present = {
        s: (root / images, root / masks)
        for s, (images, masks) in splits.items()
        if (root / images).is_dir() and (root / masks).is_dir()
    }
    if not present:
        return None
    if split not in present:
        raise missing_split(name, root, split, present)

    def read() -> list[Sample]:
        image_folder, mask_folder = present[split]
        images = list_images(image_folder)
        masks = pair_masks(images, list_images(mask_folder), str(mask_folder))
        return [
            Sample(i, ANOMALOUS, class_name, "anomalous").masked(masks.get(i, ())) for i in images
        ]

    return {class_name: read}


def ksdd(name: str, root: Path, split: str, *, class_name: str) -> Readers | None:
    """KolektorSDD as unpacked, whole images: kosNN/PartM.jpg and kosNN/PartM_label.bmp.

    Every image has a label file and is anomalous if that holds anything but zeros. So all label
    files are opened when the data set is read, unless `crane data prepare` has listed them.
    """
    parts = _parts(root)
    if not parts:
        return None
    if split != "test":
        raise missing_split(name, root, split, ["test"])
    return {class_name: partial(_read_ksdd, parts, class_name, lambda width, height: [None])}


def ksdd_thirds(
    name: str,
    root: Path,
    split: str,
    *,
    class_name: str,
    test_fraction: Fraction,
    seed: Seed,
) -> Readers | None:
    """KolektorSDD with each image cut in three at floor(H / 3) and floor(2 H / 3).

    As the published preparation of AdaCLIP does. All anomalous thirds are in split `test`, together
    with a fraction of the normal ones, drawn as scikit-learn's `train_test_split` draws it; the
    others are in split `train`. The published draw depended on the order in which a file system
    listed the folders, this one goes by name; so the numbers agree, but the normal images chosen
    may differ.

    Args:
        name: The data set.
        root: The folder of `kosNN`.
        split: `test` or `train`.
        class_name: Name of the only class.
        test_fraction: Fraction of the normal thirds to test on, rounded up.
        seed: Seed of the draw.
    """
    parts = _parts(root)
    if not parts:
        return None
    if split not in ("train", "test"):
        raise missing_split(name, root, split, ["train", "test"])

    def read() -> list[Sample]:
        samples = _read_ksdd(parts, class_name, _thirds)
        normal = [s for s in samples if s.label == NORMAL]
        # The generator that scikit-learn uses for an integer as random state.
        order = np.random.RandomState(seed).permutation(len(normal))
        num_test = ceil(test_fraction * len(normal))
        if split == "train":
            return [normal[i] for i in order[num_test:]]
        return [s for s in samples if s.label == ANOMALOUS] + [normal[i] for i in order[:num_test]]

    return {class_name: read}


def _parts(root: Path) -> list[Path]:
    return [folder for folder in list_folders(root) if _PART.fullmatch(folder.name)]


def _read_ksdd(parts: Sequence[Path], class_name: str, cut: Cut) -> list[Sample]:
    from crane.data.images import read_mask

    files: list[tuple[Path, tuple[Path, ...]]] = []
    for part in parts:
        labels = [f for f in list_images(part) if _LABEL.search(f.stem)]
        images = [f for f in list_images(part) if f not in labels]
        found = pair_masks(images, labels, str(part))
        lacking = [i for i in images if i not in found]
        if lacking:
            raise UsageError(f"images without a _label.bmp in {part}: {first_few(lacking)}")
        files += found.items()
    with ThreadPoolExecutor() as pool:
        masks = pool.map(lambda pair: read_mask(pair[1], 0), files)
        samples = []
        for (image, truth), mask in zip(files, masks, strict=True):
            for box in cut(mask.shape[1], mask.shape[0]):
                left, top, right, bottom = box or (0, 0, mask.shape[1], mask.shape[0])
                sample = Sample(image, NORMAL, class_name, box=box)
                if mask[top:bottom, left:right].any():
                    sample = Sample(image, ANOMALOUS, class_name, "defect", box=box).masked(truth)
                samples.append(sample)
    return samples


def _thirds(width: int, height: int) -> list[tuple[int, int, int, int] | None]:
    cuts = [0, height // 3, height * 2 // 3, height]
    return [(0, top, width, bottom) for top, bottom in pairwise(cuts)]
