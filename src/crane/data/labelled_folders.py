"""Folders whose names are labels: MVTec AD's layout, and a user's own `good` beside other names.

root/bottle/test/good/000.png                 one folder per class
root/bottle/test/broken/000.png               any name but good, normal, ok, no: a defect
root/bottle/ground_truth/broken/000_mask.png  optional; or directly in ground_truth
root/test/good/000.png                        one class only: its level may be missing
root/good/000.png, root/scratched/7.jpg       no splits: everything is `test`
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from crane.checks import PathText
from crane.data.filenames import (
    check_unique_stems,
    first_few,
    list_folders,
    list_images,
    logger,
    pair_masks,
)
from crane.data.index import (
    ClassNames,
    Index,
    MaskThreshold,
    Readers,
    Request,
    missing_split,
)
from crane.errors import UsageError
from crane.samples import ANOMALOUS, NORMAL, Sample

NORMAL_FOLDERS = ("good", "normal", "ok", "no")
"""Folder names, in any case, whose images are normal."""
MASK_FOLDERS = ("ground_truth", "masks")
"""Folder names, in any case, that hold masks, in one folder per defect."""
SPLITS = ("train", "test")


class _LabelFolder(NamedTuple):
    """The images of one folder, all normal or all of one defect."""

    path: Path
    images: list[Path]

    @property
    def is_normal(self) -> bool:
        return self.path.name.casefold() in NORMAL_FOLDERS


def index_folder(
    name: str,
    root: PathText | Path,
    split: str,
    *,
    mask_threshold: MaskThreshold,
    classes: ClassNames = None,
    fetch: str = "",
) -> Index:
    """Read a data set whose folders say what is normal.

    The arguments are the fields of `Request`; classes and splits may each lack their level.

    Returns:
        The images with their labels and masks. Anomalous images without a mask in a data set with
        masks are kept, and a warning names them.

    Raises:
        UsageError: The folder, the split, a class or any image is missing, or masks and images
            cannot be paired by name.
    """
    request = Request(name, root, split, mask_threshold, classes, fetch)
    folder = request.folder()
    readers = folders(name, folder, split)
    if readers is None:
        inside = first_few(f.name + "/" for f in list_folders(folder)) or "no folders"
        names = ", ".join((*SPLITS, *NORMAL_FOLDERS))
        raise request.refusal(
            f"holds {inside}; expected one of {names}, or a folder per class that holds one", folder
        )
    return request.index(folder, readers)


def folders(name: str, root: Path, split: str) -> Readers | None:
    """The layout of MVTec AD and its relatives (see `index_folder`)."""
    if _is_class(root):
        return {root.resolve().name: partial(_read_class, name, root.resolve().name, root, split)}
    inside = list_folders(root)
    found = [folder for folder in inside if _is_class(folder)]
    others = [folder for folder in inside if folder not in found]
    if found and others:
        logger.warning("%s: ignored folders that are not classes: %s", name, first_few(others))
    return {f.name: partial(_read_class, name, f.name, f, split) for f in found} or None


def _is_class(folder: Path) -> bool:
    names = {child.name.casefold() for child in list_folders(folder)}
    return not names.isdisjoint((*SPLITS, *NORMAL_FOLDERS))


def _read_class(name: str, class_name: str, folder: Path, split: str) -> list[Sample]:
    by_split = {s: path for s in SPLITS if (path := _child(folder, (s,))) is not None}
    by_split = by_split or {"test": folder}
    if split not in by_split:
        raise missing_split(name, folder, split, by_split)
    label_folders = {s: _label_folders(path) for s, path in by_split.items()}
    masks = _pair_class(folder, [f for found in label_folders.values() for f in found])
    samples = []
    for label_folder in label_folders[split]:
        label = NORMAL if label_folder.is_normal else ANOMALOUS
        defect = "good" if label_folder.is_normal else label_folder.path.name
        samples += [
            Sample(image, label, class_name, defect, masks.get(image))
            for image in label_folder.images
        ]
    return samples


def _label_folders(base: Path) -> list[_LabelFolder]:
    """The folders of one split of one class, each with its images."""
    found = []
    for folder in list_folders(base):
        if folder.name.casefold() in MASK_FOLDERS:
            continue
        images = list_images(folder)
        nested = [f for f in list_folders(folder) if any(map(list_images, (f, *list_folders(f))))]
        if nested:
            raise UsageError(
                f"{folder} has images in the folders {first_few(nested)}; if this is a copy of "
                "the data set inside itself, remove it, since its images would be counted twice"
            )
        check_unique_stems(images, str(folder))
        if not images:
            logger.warning("No images in %s", folder)
        found.append(_LabelFolder(folder, images))
    stray = list_images(base)
    if stray:
        logger.warning("Ignored in %s, not in a labelled folder: %s", base, first_few(stray))
    return found


def _pair_class(folder: Path, label_folders: Sequence[_LabelFolder]) -> dict[Path, Path]:
    """Pair the masks of one class; masks of normal images are left out."""
    mask_root = _child(folder, MASK_FOLDERS)
    if mask_root is None:
        return {}
    flat, mask_folders = list_images(mask_root), list_folders(mask_root)
    if flat and mask_folders:
        raise UsageError(
            f"{mask_root} holds both masks ({first_few(flat)}) and folders of masks "
            f"({first_few(mask_folders)}); keep one of the two"
        )
    if flat:
        images = [i for f in label_folders if not f.is_normal for i in f.images]
        return pair_masks(images, flat, str(mask_root))
    pairs: dict[Path, Path] = {}
    for mask_folder in mask_folders:
        defect = mask_folder.name.casefold()
        if defect not in NORMAL_FOLDERS:
            same = [f for f in label_folders if f.path.name.casefold() == defect]
            images = [image for found in same for image in found.images]
            pairs |= pair_masks(images, list_images(mask_folder), str(mask_folder))
    return pairs


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    """The one folder inside with one of the names, in any case."""
    found = [child for child in list_folders(folder) if child.name.casefold() in names]
    if len(found) > 1:
        raise UsageError(f"{folder} holds several of {', '.join(names)}: {first_few(found)}")
    return found[0] if found else None
