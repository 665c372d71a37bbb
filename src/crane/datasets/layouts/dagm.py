"""DAGM2007 as it is unpacked: ClassN/{Train,Test}/NNNN.PNG, .../Label/NNNN_label.PNG, Labels.txt.

An image is anomalous if it has a label file; `Labels.txt` says which should.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from crane.data.files import list_folders, list_images, shown
from crane.data.pairing import check_unique_stems, pair_masks
from crane.datasets.layouts.kinds import ReadClass, missing_split
from crane.errors import UsageError
from crane.types import ANOMALOUS, NORMAL, Sample

_STATES = {"train": "Train", "test": "Test"}
_LABELS, _TABLE = "Label", "Labels.txt"


def dagm(name: str, root: Path, split: str) -> Mapping[str, ReadClass] | None:
    """Read the splits as they are."""
    classes = _classes(name, root, split)
    if classes is None:
        return None
    return {c: partial(_read_state, f / _STATES[split], c) for c, f in classes.items()}


def dagm_balanced(name: str, root: Path, split: str) -> Mapping[str, ReadClass] | None:
    """Read splits with as many normal as anomalous test images, after AdaCLIP's preparation.

    All anomalous images, of `Train` and of `Test`, are tested, with as many normal ones of each;
    the other normal ones are of split `train`. The published choice took the order in which a file
    system listed the images; this one goes by name.
    """
    classes = _classes(name, root, split)
    if classes is None:
        return None
    return {c: partial(_read_balanced, folder, c, split) for c, folder in classes.items()}


def _classes(name: str, root: Path, split: str) -> dict[str, Path] | None:
    found = {
        folder.name: folder
        for folder in list_folders(root)
        if all((folder / state / _LABELS).is_dir() for state in _STATES.values())
    }
    if found and split not in _STATES:
        raise missing_split(name, root, split, _STATES)
    return found or None


def _read_balanced(folder: Path, class_name: str, split: str) -> list[Sample]:
    chosen = []
    for state in _STATES.values():
        samples = _read_state(folder / state, class_name)
        anomalous = [s for s in samples if s.label == ANOMALOUS]
        normal = [s for s in samples if s.label == NORMAL]
        num = len(anomalous)
        chosen += [*anomalous, *normal[:num]] if split == "test" else normal[num:]
    return chosen


def _read_state(folder: Path, class_name: str) -> list[Sample]:
    images = list_images(folder)
    check_unique_stems(images, str(folder))
    masks = pair_masks(images, list_images(folder / _LABELS), str(folder / _LABELS))
    _check_table(folder / _LABELS / _TABLE, images, {i.name for i in masks})
    return [
        Sample(i, ANOMALOUS, class_name, "defect", masks[i])
        if i in masks
        else Sample(i, NORMAL, class_name)
        for i in images
    ]


def _check_table(table: Path, images: list[Path], labelled: set[str]) -> None:
    """Compare with `Labels.txt`: a line names an image, then its label file if it is anomalous."""
    if not table.is_file():
        return
    lines = [
        [word for word in line.split() if word.casefold().endswith(".png")]
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    listed = {names[0] for names in lines if names}
    if not listed:
        return
    wanted = {names[0] for names in lines if len(names) > 1}
    there = {image.name for image in images}
    complaints = {
        "a label file for every defective image": sorted(wanted - labelled),
        "no label file for a normal image": sorted(labelled - wanted),
        "every image listed": sorted(
            names[0] for names in lines if names and names[0] not in there
        ),
        "no image that is not listed": sorted(there - {names[0] for names in lines if names}),
    }
    for complaint, names in complaints.items():
        if names:
            raise UsageError(f"{complaint}, by {table}", f"{len(names)} not so: {shown(names)}")
