"""Folders as data sets: MVTec AD's layout, and a user's own `good` beside anything else.

root/bottle/test/good/000.png                 one folder a class
root/bottle/test/broken/000.png               any name but good, normal, ok, no: a defect
root/bottle/ground_truth/broken/000_mask.png  optional; or directly in ground_truth
root/test/good/000.png                        one class only: its level may be missing
root/good/000.png, root/scratched/7.jpg       no splits: everything is `test`
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crane.data.files import (
    MissingSplitError,
    checked_classes,
    checked_root,
    list_folders,
    list_images,
    logger,
    shown,
)
from crane.data.index import Index, sorted_samples
from crane.data.pairing import check_unique_stems, pair_masks
from crane.errors import UsageError
from crane.types import ANOMALOUS, NORMAL, Sample

NORMAL_FOLDERS = ("good", "normal", "ok", "no")
"""Folder names, in any case, whose images are normal."""
MASK_FOLDERS = ("ground_truth", "masks")
"""Folder names, in any case, that hold masks, in one folder a defect."""
SPLITS = ("train", "test")
RESERVED = "mean"
"""No class is called so: in tables and the results store it is the mean over classes."""


@dataclass(frozen=True)
class _LabelFolder:
    """The images of one folder, all normal or all of one defect."""

    path: Path
    images: tuple[Path, ...]

    @property
    def is_normal(self) -> bool:
        return self.path.name.casefold() in NORMAL_FOLDERS


def index_folder(
    name: str,
    root: str | Path,
    split: str,
    *,
    mask_threshold: int,
    classes: str | Sequence[str] | None = None,
    fetch: str = "",
) -> Index:
    """Read a data set whose folders say what is normal.

    Args:
        name: what to call the data set.
        root: its folder, with or without a level of classes, with or without splits.
        split: `test` (in MVTec AD the one with anomalies) or `train`.
        mask_threshold: a mask's pixel is anomalous where its 8-bit luminance exceeds this.
        classes: the classes to keep; None keeps all.
        fetch: where the data can be got, for the message if they are not there.

    Returns:
        The images with their labels and masks. Anomalous images without a mask in a data set with
        masks are kept, and a warning names them.

    Raises:
        UsageError: if the folder, the split, a class or any image is missing, or if masks and
            images cannot be paired by name.
    """
    folder = checked_root(name, root, fetch)
    class_folders = find_classes(name, folder)
    if not class_folders:
        inside = shown([f.name + "/" for f in list_folders(folder)]) or "no folders"
        raise UsageError(
            f"{root} to hold folders named train, test or {', '.join(NORMAL_FOLDERS)}, "
            "or classes that do, or a meta.json",
            inside,
            key=f"source.{name}.root or targets.{name}.root",
            hint=f"to get the data: {fetch}" if fetch else None,
        )
    samples: list[Sample] = []
    for class_name in checked_classes(name, classes, tuple(class_folders)):
        samples += read_class(name, class_name, class_folders[class_name], split)
    index = Index(name, folder, sorted_samples(samples), mask_threshold)
    return checked_index(index)


def checked_index(index: Index) -> Index:
    """Refuse an empty data set and warn of anomalous images whose masks are missing.

    Raises:
        UsageError: if there is no image, one image or mask stands for two, or a class is called
            as the mean over classes is.
    """
    if not index.samples:
        raise UsageError(f"images in data set {index.name}", f"none under {index.root}")
    if RESERVED in index.class_names:
        raise UsageError(
            f"no class of data set {index.name} to be called as the mean over classes is",
            RESERVED,
            hint=f"rename its folder under {index.root}, or the class in meta.json",
        )
    files = [(path, s.box) for s in index.samples for path in (s.image, s.mask) if path]
    repeated = [path for (path, _), number in Counter(files).items() if number > 1]
    if repeated:
        raise UsageError(f"each file once in a split of {index.name}", shown(repeated))
    lacking = [s.image for s in index.samples if s.label == ANOMALOUS and s.mask is None]
    if lacking and index.has_masks:
        logger.warning(
            "%s: %d of %d anomalous images have no mask and count in the image metrics only: %s",
            index.name,
            len(lacking),
            index.num_anomalous,
            shown([index.relative(path) for path in lacking]),
        )
    return index


def find_classes(name: str, root: Path) -> dict[str, Path]:
    """Find each class's folder: `root` if it holds splits or labels, else those inside that do.

    Empty where there is none.
    """
    if _is_class(root):
        return {root.resolve().name: root}
    folders = list_folders(root)
    found = {folder.name: folder for folder in folders if _is_class(folder)}
    others = [f for f in folders if f.name not in found]
    if found and others:
        logger.warning("%s: ignored folders that are no classes: %s", name, shown(others))
    return found


def _is_class(folder: Path) -> bool:
    names = {child.name.casefold() for child in list_folders(folder)}
    return not names.isdisjoint((*SPLITS, *NORMAL_FOLDERS))


def read_class(name: str, class_name: str, folder: Path, split: str) -> list[Sample]:
    """Make the samples of one class.

    Raises:
        UsageError: as `index_folder`; a `MissingSplitError` if there is no such split.
    """
    if split not in SPLITS:
        raise UsageError(
            "a split, train or test", split, key=f"source.{name}.split or targets.{name}.split"
        )
    by_split = {s: path for s in SPLITS if (path := _child(folder, (s,))) is not None}
    if not by_split:
        by_split = {"test": folder}
    if split not in by_split:
        raise MissingSplitError(
            f"split {split} of class {class_name} in {folder}",
            f"only {', '.join(by_split)}",
            key=f"source.{name}.split or targets.{name}.split",
        )
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
    """List the folders of one split of one class, each with its images."""
    found = []
    for folder in list_folders(base):
        if folder.name.casefold() in MASK_FOLDERS:
            continue
        images = list_images(folder)
        nested = [f for f in list_folders(folder) if any(map(list_images, (f, *list_folders(f))))]
        if nested:
            raise UsageError(
                f"the images of {folder} directly in it",
                f"more in {shown(nested)}",
                hint="a copy of the data set inside itself would be counted twice; remove it",
            )
        check_unique_stems(images, str(folder))
        if not images:
            logger.warning("No images in %s", folder)
        found.append(_LabelFolder(folder, tuple(images)))
    stray = list_images(base)
    if stray:
        logger.warning("Ignored in %s, in no folder that labels them: %s", base, shown(stray))
    return found


def _pair_class(folder: Path, label_folders: Sequence[_LabelFolder]) -> dict[Path, Path]:
    """Pair the masks of one class; masks of normal images say nothing and are left out."""
    mask_root = _child(folder, MASK_FOLDERS)
    if mask_root is None:
        return {}
    flat, mask_folders = list_images(mask_root), list_folders(mask_root)
    if flat and mask_folders:
        raise UsageError(
            f"masks either directly in {mask_root} or in one folder a defect",
            f"both: {shown(flat)} and {shown(mask_folders)}",
        )
    if flat:
        images = [i for f in label_folders if not f.is_normal for i in f.images]
        return pair_masks(images, flat, str(mask_root))
    pairs: dict[Path, Path] = {}
    for mask_folder in mask_folders:
        defect = mask_folder.name.casefold()
        if defect in NORMAL_FOLDERS:
            continue
        images = [i for f in label_folders if f.path.name.casefold() == defect for i in f.images]
        pairs |= pair_masks(images, list_images(mask_folder), str(mask_folder))
    return pairs


def _child(folder: Path, names: Sequence[str]) -> Path | None:
    """Find the one folder inside with one of the names, in any case."""
    found = [child for child in list_folders(folder) if child.name.casefold() in names]
    if len(found) > 1:
        raise UsageError(f"one folder {' or '.join(names)} in {folder}", shown(found))
    return found[0] if found else None
