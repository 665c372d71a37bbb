"""Layouts whose labels stand in a table beside the images."""

import csv
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath

from crane.data.files import list_images, shown
from crane.datasets.layouts.kinds import ReadClass, missing_split
from crane.errors import UsageError
from crane.types import ANOMALOUS, NORMAL, Sample

VISA_TABLE = "split_csv/1cls.csv"
VISA_COLUMNS = ("object", "split", "label", "image", "mask")
VISA_LABELS = {"normal": NORMAL, "anomaly": ANOMALOUS}
HEADCT_TABLE = "labels.csv"
HEADCT_COLUMNS = ("id", "hemorrhage")


def visa_csv(name: str, root: Path, split: str) -> Mapping[str, ReadClass] | None:
    """Read VisA as it is unpacked, by its table `split_csv/1cls.csv` (one class at a time)."""
    table = root / VISA_TABLE
    if not table.is_file():
        return None
    rows = _rows(table, VISA_COLUMNS)
    splits = sorted({row["split"] for row in rows})
    if split not in splits:
        raise missing_split(name, root, split, splits)
    by_class: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_class.setdefault(row["object"], []).append(row)
    return {c: partial(_read_visa, root, c, found, split) for c, found in by_class.items()}


def _read_visa(root: Path, class_name: str, rows: list[dict[str, str]], split: str) -> list[Sample]:
    table = root / VISA_TABLE
    wrong = [row["label"] for row in rows if row["label"] not in VISA_LABELS]
    if wrong:
        raise UsageError(f"labels {', '.join(VISA_LABELS)} in {table}", shown(wrong))
    files = {row["image"] for row in rows} | {row["mask"] for row in rows if row["mask"]}
    outside = [f for f in files if ".." in PurePosixPath(f).parts or f.startswith("/")]
    if outside:
        raise UsageError(f"paths inside {root} in {table}", shown(outside))
    _check_files(table, [root / f for f in sorted(files)])
    samples = []
    for row in rows:
        if row["split"] == split:
            label = VISA_LABELS[row["label"]]
            mask = root / row["mask"] if row["mask"] and label == ANOMALOUS else None
            defect = "good" if label == NORMAL else "anomaly"
            samples.append(Sample(root / row["image"], label, class_name, defect, mask))
    return samples


def headct_csv(
    name: str, root: Path, split: str, *, class_name: str, images: Iterable[str]
) -> Mapping[str, ReadClass] | None:
    """Read HeadCT as it is unpacked: numbered images, their labels in `labels.csv`.

    Args:
        name: of the data set.
        root: the folder of `labels.csv`.
        split: only `test`.
        class_name: what to call the one class.
        images: where the images may lie, relative to `root`.
    """
    table = root / HEADCT_TABLE
    folders = [root / f for f in images if (root / f).is_dir() and list_images(root / f)]
    if not table.is_file() or not folders:
        return None
    if split != "test":
        raise missing_split(name, root, split, ["test"])
    return {class_name: partial(_read_headct, table, folders[0], class_name)}


def _read_headct(table: Path, folder: Path, class_name: str) -> list[Sample]:
    rows = _rows(table, HEADCT_COLUMNS)
    try:
        labels = {int(row["id"]): int(row["hemorrhage"]) for row in rows}
        numbers = {int(image.stem): image for image in list_images(folder)}
    except ValueError as error:
        raise UsageError(f"whole numbers in {table} and as names in {folder}", str(error)) from None
    if len(labels) < len(rows) or not set(labels.values()) <= {NORMAL, ANOMALOUS}:
        raise UsageError(f"each image once, labelled 0 or 1, in {table}", "something else")
    _check_files(table, [folder / f"{n:03d}.png" for n in sorted(labels) if n not in numbers])
    extra = [image for number, image in numbers.items() if number not in labels]
    if extra:
        raise _unlisted(folder, table, extra)
    return [
        Sample(numbers[n], label, class_name, "hemorrhage" if label else "good")
        for n, label in labels.items()
    ]


def _rows(table: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Read a table; spaces around names and values do not count."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = [
            {(k or "").strip(): (v or "").strip() for k, v in row.items() if isinstance(v, str)}
            for row in csv.DictReader(file)
        ]
    lacking = [c for c in columns if not rows or c not in rows[0]]
    if lacking:
        raise UsageError(f"columns {', '.join(columns)} in {table}", f"no {', '.join(lacking)}")
    return rows


def _check_files(table: Path, files: list[Path]) -> None:
    """Refuse files that are not there, and images beside those listed that are not listed."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise UsageError(
            f"every file listed in {table}",
            f"{len(missing)} missing: {shown(['/'.join(f.parts[-3:]) for f in missing])}",
            hint="a copy cut short or renamed; unpack it again",
        )
    listed = set(files)
    for folder in sorted({file.parent for file in files}):
        extra = [image for image in list_images(folder) if image not in listed]
        if extra:
            raise _unlisted(folder, table, extra)


def _unlisted(folder: Path, table: Path, extra: list[Path]) -> UsageError:
    return UsageError(
        f"every image in {folder} in {table}", f"{len(extra)} not listed: {shown(extra)}"
    )
