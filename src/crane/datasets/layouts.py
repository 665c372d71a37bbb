"""How data sets lie on disk: one function per layout (see `crane.data.index.Layout`).

First those that tell labels by folders or by masks (Br35H, polyp sets, KolektorSDD), then those
that tell them by a table beside the images (VisA, HeadCT, ELPV, DAGM2007).
"""

import csv
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from math import ceil
from pathlib import Path, PurePosixPath

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
from crane.errors import UsageError, counted
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


VISA_LABELS = {"normal": NORMAL, "anomaly": ANOMALOUS}
_CELLS = ("mono", "poly")
_DAGM_FOLDERS = {"train": "Train", "test": "Test"}


def visa_csv(name: str, root: Path, split: str) -> Readers | None:
    """VisA as unpacked, by its table `split_csv/1cls.csv` (one class at a time)."""
    table = root / "split_csv/1cls.csv"
    if not table.is_file():
        return None
    rows = _rows(table, ("object", "split", "label", "image", "mask"))
    splits = sorted({row["split"] for row in rows})
    if split not in splits:
        raise missing_split(name, root, split, splits)
    by_class: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_class.setdefault(row["object"], []).append(row)
    return {c: partial(_read_visa, root, table, found, split) for c, found in by_class.items()}


def _read_visa(
    root: Path, table: Path, rows: Sequence[Mapping[str, str]], split: str
) -> list[Sample]:
    wrong = [row["label"] for row in rows if row["label"] not in VISA_LABELS]
    if wrong:
        labels = " or ".join(VISA_LABELS)
        raise UsageError(f"labels in {table} must be {labels}, not {first_few(wrong)}")
    files = {row["image"] for row in rows} | {row["mask"] for row in rows if row["mask"]}
    outside = [f for f in files if ".." in PurePosixPath(f).parts or f.startswith("/")]
    if outside:
        raise UsageError(f"{table} names paths outside {root}: {first_few(outside)}")
    _check_files(table, [root / f for f in sorted(files)])
    samples = []
    for row in rows:
        if row["split"] == split:
            label = VISA_LABELS[row["label"]]
            mask = root / row["mask"] if row["mask"] and label == ANOMALOUS else None
            defect = "good" if label == NORMAL else "anomaly"
            samples.append(Sample(root / row["image"], label, row["object"], defect, mask))
    return samples


def headct_csv(
    name: str, root: Path, split: str, *, class_name: str, images: Iterable[str]
) -> Readers | None:
    """HeadCT as unpacked: numbered images, their labels in `labels.csv`.

    Args:
        name: The data set.
        root: The folder of `labels.csv`.
        split: Only `test`.
        class_name: Name of the only class.
        images: Where the images may lie, relative to `root`.
    """
    table = root / "labels.csv"
    folders = [root / f for f in images if (root / f).is_dir() and list_images(root / f)]
    if not table.is_file() or not folders:
        return None
    if split != "test":
        raise missing_split(name, root, split, ["test"])
    return {class_name: partial(_read_headct, table, folders[0], class_name)}


def _read_headct(table: Path, folder: Path, class_name: str) -> list[Sample]:
    rows = _rows(table, ("id", "hemorrhage"))
    try:
        labels = {int(row["id"]): int(row["hemorrhage"]) for row in rows}
        numbers = {int(image.stem): image for image in list_images(folder)}
    except ValueError as error:
        raise UsageError(
            f"{table} and the names of images in {folder} must hold integers: {error}"
        ) from None
    if len(labels) < len(rows) or not set(labels.values()) <= {NORMAL, ANOMALOUS}:
        raise UsageError(f"{table} must list each image once, labelled 0 or 1")
    _check_files(table, [numbers.get(n, folder / f"{n:03d}.png") for n in sorted(labels)])
    return [
        Sample(numbers[n], label, class_name, "hemorrhage" if label else "good")
        for n, label in labels.items()
    ]


def elpv_csv(name: str, root: Path, split: str) -> Readers | None:
    """ELPV as its package holds it: `labels.csv` with path, probability of a defect, kind of cell.

    Cells of probability 0 are normal and those of 1 anomalous; others, of which the experts were
    not sure, are left out. The kinds, `mono` and `poly`, are the classes.

    Args:
        name: The data set.
        root: The folder of `labels.csv`.
        split: Only `test`.
    """
    table = root / "labels.csv"
    lines = table.read_text(encoding="utf-8").splitlines() if table.is_file() else []
    rows = [line.split() for line in lines]
    if not rows or any(len(row) != 3 or row[2] not in _CELLS for row in rows):
        return None
    if split != "test":
        raise missing_split(name, root, split, ["test"])
    return {kind: partial(_read_elpv, root, table, rows, kind) for kind in _CELLS}


def _read_elpv(
    root: Path, table: Path, rows: Sequence[Sequence[str]], class_name: str
) -> list[Sample]:
    files = [path for path, *_ in rows]
    if outside := [f for f in files if ".." in PurePosixPath(f).parts or f.startswith("/")]:
        raise UsageError(f"{table} names paths outside {root}: {first_few(outside)}")
    _check_files(table, [root / f for f in files])
    kinds = {"0.0": (NORMAL, "good"), "1.0": (ANOMALOUS, "defective")}
    return [
        Sample(root / path, kinds[probability][0], class_name, kinds[probability][1])
        for path, probability, kind in rows
        if kind == class_name and probability in kinds
    ]


def dagm(name: str, root: Path, split: str) -> Readers | None:
    """DAGM2007 as unpacked: ClassN/{Train,Test}/NNNN.PNG and .../Label/NNNN_label.PNG.

    An image is anomalous if it has a label file; `Label/Labels.txt` must agree.
    """
    classes = _dagm_classes(name, root, split)
    folder = _DAGM_FOLDERS.get(split, "")
    return {c: partial(_read_dagm, f / folder, c) for c, f in classes.items()} or None


def dagm_balanced(name: str, root: Path, split: str) -> Readers | None:
    """DAGM2007 with as many normal as anomalous test images, after AdaCLIP's preparation.

    All anomalous images of `Train` and `Test` are in split `test`, with as many normal ones of
    each; the other normal ones are in split `train`. The published choice took the order in which a
    file system listed the images; this one goes by name.
    """
    classes = _dagm_classes(name, root, split)
    return {c: partial(_read_balanced, folder, c, split) for c, folder in classes.items()} or None


def _dagm_classes(name: str, root: Path, split: str) -> dict[str, Path]:
    found = {
        folder.name: folder
        for folder in list_folders(root)
        if all((folder / state / "Label").is_dir() for state in _DAGM_FOLDERS.values())
    }
    if found and split not in _DAGM_FOLDERS:
        raise missing_split(name, root, split, _DAGM_FOLDERS)
    return found


def _read_balanced(folder: Path, class_name: str, split: str) -> list[Sample]:
    chosen = []
    for state in _DAGM_FOLDERS.values():
        samples = _read_dagm(folder / state, class_name)
        anomalous = [s for s in samples if s.label == ANOMALOUS]
        normal = [s for s in samples if s.label == NORMAL]
        num = len(anomalous)
        chosen += [*anomalous, *normal[:num]] if split == "test" else normal[num:]
    return chosen


def _read_dagm(folder: Path, class_name: str) -> list[Sample]:
    images, labels = list_images(folder), folder / "Label"
    check_unique_stems(images, str(folder))
    masks = pair_masks(images, list_images(labels), str(labels))
    _check_dagm_table(labels / "Labels.txt", {i.name for i in images}, {i.name for i in masks})
    return [
        Sample(i, ANOMALOUS, class_name, "defect").masked(masks[i])
        if i in masks
        else Sample(i, NORMAL, class_name)
        for i in images
    ]


def _check_dagm_table(table: Path, images: set[str], labelled: set[str]) -> None:
    """Compare with `Labels.txt`: a line names an image, then its label file if it is anomalous."""
    if not table.is_file():
        return
    lines = table.read_text(encoding="utf-8", errors="replace").splitlines()
    names = [[word for word in line.split() if word.casefold().endswith(".png")] for line in lines]
    rows = {row[0]: len(row) > 1 for row in names if row}
    defective = {name for name, is_defective in rows.items() if is_defective}
    problems = {
        ("image listed as defective lacks", "a label file"): defective - labelled,
        ("image listed as normal has", "a label file"): labelled - defective,
        ("listed image is", "missing"): rows.keys() - images,
        ("image is", "not listed"): images - rows.keys(),
    }
    several = {"lacks": "lack", "has": "have", "is": "are"}
    for (one, rest), wrong in problems.items():
        if rows and wrong:
            *words, verb = one.replace("image", "images").split()
            number = counted(len(wrong), one, " ".join([*words, several[verb]]))
            raise UsageError(f"{table}: {number} {rest}: {first_few(sorted(wrong))}")


def _rows(table: Path, columns: Collection[str]) -> list[dict[str, str]]:
    """Read a table; spaces around names and values are ignored."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = [
            {(k or "").strip(): (v or "").strip() for k, v in row.items() if isinstance(v, str)}
            for row in csv.DictReader(file)
        ]
    lacking = [c for c in columns if not rows or c not in rows[0]]
    if lacking:
        raise UsageError(
            f"{table} needs the columns {', '.join(columns)}, but has no {', '.join(lacking)}"
        )
    return rows


def _check_files(table: Path, files: Sequence[Path]) -> None:
    """Refuse listed files that are missing, and images beside them that are not listed."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        names = first_few("/".join(f.parts[-3:]) for f in missing)
        raise UsageError(
            counted(len(missing), f"file listed in {table} is", f"files listed in {table} are")
            + f" missing: {names}; the copy is incomplete or was renamed, unpack it again"
        )
    listed = set(files)
    for folder in sorted({file.parent for file in files}):
        extra = [image for image in list_images(folder) if image not in listed]
        if extra:
            raise UsageError(
                counted(len(extra), f"image in {folder} is", f"images in {folder} are")
                + f" not listed in {table}: {first_few(extra)}"
            )
