"""Layouts that several data sets share."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from crane.data.files import list_images
from crane.data.folder import find_classes, read_class
from crane.data.meta_json import listed_classes, read_listed
from crane.data.pairing import check_unique_stems, pair_masks
from crane.datasets.layouts.kinds import ReadClass, missing_split
from crane.types import ANOMALOUS, NORMAL, Sample


def folders(name: str, root: Path, split: str) -> Mapping[str, ReadClass] | None:
    """Read MVTec AD's layout and its relatives (see `index_folder`)."""
    found = find_classes(name, root)
    if not found:
        return None
    return {c: partial(read_class, name, c, folder, split) for c, folder in found.items()}


def listed(name: str, root: Path, split: str, *, file: str) -> Mapping[str, ReadClass] | None:
    """Read the list `file` beside the data (see `index_meta_json`)."""
    path = root / file
    if not path.is_file():
        return None
    entries = listed_classes(path, name, split)
    if not any(entries.values()):
        raise missing_split(name, path, split, ["others"])
    return {c: partial(read_listed, path, name, split, {c: entries[c]}) for c in entries}


def label_folders(
    name: str, root: Path, split: str, *, class_name: str, normal: str, anomalous: str
) -> Mapping[str, ReadClass] | None:
    """Read one folder of normal and one of anomalous images, without masks.

    Whatever lies beside the two is no part of the data set, such as `pred` of Br35H (not labelled)
    and the copy of BrainMRI inside itself.

    Args:
        name: of the data set.
        root: the folder of both.
        split: only `test`.
        class_name: what to call the one class.
        normal: name of the folder of normal images.
        anomalous: name of the folder of anomalous images.
    """
    if not ((root / normal).is_dir() and (root / anomalous).is_dir()):
        return None
    if split != "test":
        raise missing_split(name, root, split, ["test"])

    def read() -> list[Sample]:
        samples = []
        kinds = ((normal, NORMAL, "good"), (anomalous, ANOMALOUS, anomalous))
        for folder, label, defect in kinds:
            images = list_images(root / folder)
            check_unique_stems(images, str(root / folder))
            samples += [Sample(image, label, class_name, defect) for image in images]
        return samples

    return {class_name: read}


def pairs(
    name: str, root: Path, split: str, *, class_name: str, splits: Mapping[str, Sequence[str]]
) -> Mapping[str, ReadClass] | None:
    """Read a folder of anomalous images and one of their masks; there are no normal images.

    Args:
        name: of the data set.
        root: the folder of both.
        split: which of `splits`.
        class_name: what to call the one class.
        splits: split to the names of its two folders, images first.
    """
    there = {
        s: (root / images, root / masks)
        for s, (images, masks) in splits.items()
        if (root / images).is_dir() and (root / masks).is_dir()
    }
    if not there:
        return None
    if split not in there:
        raise missing_split(name, root, split, there)

    def read() -> list[Sample]:
        image_folder, mask_folder = there[split]
        images = list_images(image_folder)
        masks = pair_masks(images, list_images(mask_folder), str(mask_folder))
        return [Sample(i, ANOMALOUS, class_name, "anomalous", masks.get(i)) for i in images]

    return {class_name: read}
