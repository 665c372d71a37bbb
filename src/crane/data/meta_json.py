"""The `meta.json` that repositories of this field publish beside their data.

    {"train": {CLASS: [...]}, "test": {CLASS: [
        {"img_path": "bottle/test/broken/000.png",
         "mask_path": "bottle/ground_truth/broken/000_mask.png",
         "cls_name": "bottle", "specie_name": "broken", "anomaly": 1}, ...]}}

Paths are relative to the file's folder. A key `box`, specific to crane, gives the part of a file
that is the image: left, top, right, bottom in pixels. Some published files hold absolute paths of
the machine they were made on; the files are then found by the last parts of these paths.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from crane.checks import PathText
from crane.data.filenames import first_few, loose_stem, mask_stem
from crane.data.index import (
    ClassNames,
    Index,
    MaskThreshold,
    Readers,
    Request,
    missing_split,
)
from crane.errors import UsageError, counted
from crane.samples import ANOMALOUS, NORMAL, Sample

META_NAME = "meta.json"


@dataclass(frozen=True)
class _Entry:
    """One image of the list, before its files are looked up."""

    img_path: str
    anomaly: Literal[0, 1]
    mask_path: str | None = None
    cls_name: str | None = None
    specie_name: str | None = None
    box: tuple[int, int, int, int] | None = None


def index_meta_json(
    name: str,
    root: PathText | Path,
    split: str,
    *,
    mask_threshold: MaskThreshold,
    classes: ClassNames = None,
    fetch: str = "",
) -> Index:
    """Read a data set listed in `root/meta.json`.

    The arguments are the fields of `Request`; `split` is a top-level key of the file.

    Returns:
        The images with their labels and masks. An anomalous image has no mask if its `mask_path` is
        empty or, as in published files, a folder.

    Raises:
        UsageError: The file is missing or malformed, lists a file that does not exist or is listed
            twice, or gives an image the mask that bears another image's name.
    """
    request = Request(name, root, split, mask_threshold, classes, fetch)
    folder = request.folder()
    readers = listed(name, folder, split, file=META_NAME)
    if readers is None:
        raise request.refusal(f"holds no {META_NAME}", folder)
    return request.index(folder, readers)


def listed(name: str, root: Path, split: str, *, file: str) -> Readers | None:
    """The layout of a list `file` beside the data (see `index_meta_json`)."""
    path = root / file
    if not path.is_file():
        return None
    entries = _read_entries(path, name, split)
    return {c: partial(_read_class, path, name, c, found) for c, found in entries.items()}


def _read_entries(path: Path, name: str, split: str) -> Mapping[str, list[_Entry]]:
    """Read and check the entries of one split, class by class."""
    from pydantic import TypeAdapter, ValidationError

    try:
        meta = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if not isinstance(meta, dict):
        raise UsageError(f"{path} must hold an object of splits, not a {type(meta).__name__}")
    if not meta.get(split):
        raise missing_split(name, path, split, [key for key, classes in meta.items() if classes])
    try:
        entries = TypeAdapter(dict[str, list[_Entry]]).validate_python(meta[split])
    except ValidationError as error:
        first = error.errors()[0]
        raise _wrong(path, split, first["loc"], first["msg"]) from None
    if not any(entries.values()):
        raise missing_split(name, path, split, [s for s in meta if s != split and meta[s]])
    for class_name, found in entries.items():
        for number, entry in enumerate(found):
            if entry.cls_name not in (None, class_name):
                problem = f"is {entry.cls_name}, but it is listed under {class_name}"
                raise _wrong(path, split, (class_name, number, "cls_name"), problem)
    return entries


def _wrong(path: Path, split: str, place: Sequence[Any], problem: str) -> UsageError:
    """The error for a class, an entry, or a field of an entry."""
    where = "/".join([split, *map(str, place[:1])])
    where = f"entry {place[1]} of {where}" if len(place) > 1 else where
    field = f"{place[2]}: " if len(place) > 2 else ""
    return UsageError(f"{path}, {where}: {field}{problem}")


def _read_class(path: Path, name: str, class_name: str, entries: Sequence[_Entry]) -> list[Sample]:
    """Find the files of one class; one error names all that are missing."""
    root = path.parent
    samples, missing = [], []
    for entry in entries:
        is_anomalous = entry.anomaly == ANOMALOUS
        image = _find(root, entry.img_path)
        mask = _find(root, entry.mask_path) if is_anomalous and entry.mask_path else None
        if image is None or not image.is_file():
            missing.append(entry.img_path)
            continue
        if is_anomalous and entry.mask_path and mask is None:
            missing.append(entry.mask_path)
        defect = entry.specie_name or "anomalous" if is_anomalous else "good"
        mask = mask if mask is not None and mask.is_file() else None
        label = ANOMALOUS if is_anomalous else NORMAL
        samples.append(Sample(image, label, class_name, defect, mask, entry.box))
    if missing:
        raise UsageError(
            f"data set {name}: "
            + counted(len(missing), f"file listed in {path} is", f"files listed in {path} are")
            + f" missing: {first_few(missing)}; the list and the images may be of "
            "different versions"
        )
    _check_names_agree(samples)
    return samples


def _find(root: Path, text: str) -> Path | None:
    """The file or folder that a path of the list names, None if there is none.

    Raises:
        UsageError: A relative path leaves the root.
    """
    slashed = text.replace("\\", "/")
    parts = PurePosixPath(slashed).parts
    absolute = slashed.startswith("/") or slashed[1:3] == ":/"
    if ".." in parts:
        raise UsageError(f"the list in {root} names a path outside that folder: {text}")
    tails = range(1, len(parts)) if absolute else range(1)
    candidates = (root.joinpath(*parts[start:]) for start in tails)
    return next((path for path in candidates if path.exists()), None)


def _check_names_agree(samples: Sequence[Sample]) -> None:
    """Refuse masks that bear another image's name, which scripts that pair by order produce.

    A mask whose name is not that of any image is accepted.
    """
    groups: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    for sample in samples:
        if sample.mask is not None:
            groups[sample.defect].append((sample.image, sample.mask))
    for pairs in groups.values():
        owners = {loose_stem(image.stem): image for image, _ in pairs}
        for image, mask in pairs:
            names = (loose_stem(mask.stem), loose_stem(mask_stem(mask)))
            others = [owners[n] for n in names if n in owners]
            if loose_stem(image.stem) not in names and others:
                raise UsageError(
                    f"{image} is listed with the mask {mask.name}, which bears the name of "
                    f"{others[0].name}; a list paired by order has shifted, make it again"
                )
