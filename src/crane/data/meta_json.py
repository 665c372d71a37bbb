"""Data sets that a list describes: the `meta.json` of this field, a CSV, JSON lines, Parquet.

    {"train": {CLASS: [...]}, "test": {CLASS: [
        {"img_path": "bottle/test/broken/000.png",
         "mask_path": "bottle/ground_truth/broken/000_mask.png",
         "cls_name": "bottle", "specie_name": "broken", "anomaly": 1}, ...]}}

Paths are relative to the data set's folder. Columns may go by other usual names, see
`crane.data.lists`. A key `box`, specific to crane, gives the part of a file that is the image:
left, top, right, bottom in pixels. Some published files hold absolute paths of the machine they
were made on; the files are then found by the last parts of these paths.
"""

import logging
import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Literal

from crane.checks import PathText
from crane.data.filenames import first_few, list_images, loose_stem, mask_stem
from crane.data.index import (
    ClassNames,
    Index,
    MaskThreshold,
    MaskValues,
    Readers,
    Request,
    WhiteLevel,
    missing_split,
)
from crane.data.lists import COLUMNS, Listing, Row, column, read_listing
from crane.data.roles import DOUBTFUL, Names, Roles, label_of, same_name, split_of
from crane.errors import UsageError, counted
from crane.samples import NORMAL, Sample

logger = logging.getLogger(__name__)

META_NAME = "meta.json"


def index_meta_json(
    name: str,
    root: PathText | Path | None,
    split: str,
    *,
    mask_threshold: MaskThreshold,
    classes: ClassNames = None,
    fetch: str = "",
    file: PathText | Path = META_NAME,
    normal: Names = None,
    anomalous: Names = None,
    mask_values: MaskValues = "luminance",
    mask_invert: bool = False,
    white_level: WhiteLevel = None,
) -> Index:
    """Read a data set that a list describes.

    Args:
        name: As in `Request`; so are `split`, `mask_threshold`, `classes`, `fetch`, `mask_values`,
            `mask_invert` and `white_level`.
        root: The folder that paths are relative to; None for that of the list.
        split: A top-level key of a JSON file, or a value of the column `split`; without either,
            every image is of split `test`.
        mask_threshold: See `Request`.
        classes: The classes to read; None for all.
        fetch: Where to get the data, for errors.
        file: The list, in `root` or anywhere: JSON, JSON lines, CSV or Parquet.
        normal: Labels that are normal; None for the usual ones.
        anomalous: Labels that are anomalous, others being left out; None for all not normal.
        mask_values: See `Request`.
        mask_invert: See `Request`.
        white_level: See `Request`.

    Returns:
        The images with their labels and masks. An anomalous image has no mask if its mask path is
        empty or, as in published files, a folder (but a folder of the image's name holds several).

    Raises:
        UsageError: The file is missing or malformed, lists a file that does not exist or is listed
            twice, states no clear label, or gives an image the mask that bears another's name.
    """
    path = Path(file).expanduser()
    request = Request(
        *(name, path.parent if root is None else root, split, mask_threshold, classes, fetch),
        *(mask_values, mask_invert, white_level),
    )
    folder = request.folder()
    path = path if root is None else folder / path
    if not path.is_file():
        raise request.refusal(f"holds no {path.name}", folder)
    readers = _readers(name, folder, path, split, Roles.of(normal, anomalous))
    return request.index(folder, readers, listed_in=path.name)


def listed(name: str, root: Path, split: str, *, file: str) -> Readers | None:
    """The layout of a list `file` beside the data (see `index_meta_json`)."""
    path = root / file
    return _readers(name, root, path, split, Roles()) if path.is_file() else None


def _readers(name: str, root: Path, path: Path, split: str, roles: Roles) -> Readers:
    listing = read_listing(path)
    splits = {s: [row for row in rows if _has_path(row)] for s, rows in listing.splits.items()}
    wanted = split if split in splits else split_of(split, splits)
    if not splits.get(wanted):
        num_empty = len(listing.splits.get(wanted, ()))
        note = f" (no entry of {wanted} has a path)" if num_empty else ""
        raise missing_split(name, path, split + note, [s for s, rows in splits.items() if rows])
    num_empty = len(listing.splits[wanted]) - len(splits[wanted])
    if num_empty:
        number = counted(num_empty, "entry", "entries")
        logger.warning("%s: left out %s of %s without a path", name, number, wanted)
    if roles.normal is None and listing.normal is not None:
        roles = Roles.of(listing.normal, roles.anomalous)
    by_class: dict[str, list[Row]] = defaultdict(list)
    for row in splits[wanted]:
        by_class[_class_name(row, path, root)].append(row)
    _check_labels(name, path, splits[wanted], roles)
    return {
        c: partial(_read_class, root, path, name, c, rows, listing, roles)
        for c, rows in by_class.items()
    }


def _has_path(row: Row) -> bool:
    named = column(row.values, "image")
    return named is None or bool(row.values[named] or str(row.values[named]).strip() == "0")


def _class_name(row: Row, path: Path, root: Path) -> str:
    """The class that a row is listed under, or that its column names."""
    named = column(row.values, "class")
    if named is None and column(row.values, "label") and "class" in row.values:
        named = "class"
    own = row.values[named] if named else None
    if row.class_name is not None:
        if own is not None and str(own) != row.class_name:
            raise _wrong(path, row, f"{named}: is {own}, but it is listed under {row.class_name}")
        return row.class_name
    return str(own) if own not in (None, "") else root.resolve().name


def _label_column(row: Row) -> str | None:
    own = column(row.values, "label")
    own = own or next((name for name in row.values if same_name(name) == "class"), None)
    return own or column(row.values, "defect")


def _check_labels(name: str, path: Path, rows: Sequence[Row], roles: Roles) -> None:
    """Refuse labels of text, none of which is known to be normal."""
    if roles.normal is not None or roles.anomalous is not None:
        return
    named = {row: column for row in range(len(rows)) if (column := _label_column(rows[row]))}
    texts = dict.fromkeys(same_name(rows[row].values[column]) for row, column in named.items())
    words = [text for text in texts if text[:1].isalpha() and text not in DOUBTFUL]
    if len(words) > 1 and not any(map(roles.is_normal, words)):
        key = f"source.{name}.normal or targets.{name}.normal"
        raise UsageError(
            f"{path}: it is unclear which of the labels {first_few(words)} is normal; set "
            f"normal=[LABEL] ({key})",
            key=key,
        )


def _wrong(path: Path, row: Row, problem: str) -> UsageError:
    return UsageError(f"{path}, {row.where}: {problem}")


def _read_class(
    root: Path,
    path: Path,
    name: str,
    class_name: str,
    rows: Sequence[Row],
    listing: Listing,
    roles: Roles,
) -> list[Sample]:
    """Find the files of one class; one error names all that are missing."""
    samples, missing, num_left, num_normal_masks = [], [], 0, 0
    for row in rows:
        image_text = "".join(_texts(path, row, "image"))
        if not image_text:
            shown = ", ".join(map(str, row.values)) or "none"
            raise _wrong(path, row, f"no column of paths ({COLUMNS['image'][0]}), only {shown}")
        label, defect = _label(path, name, row, roles)
        if label is None:
            num_left += 1
            continue
        image = _find(root, path, listing.prefix + image_text)
        texts = _texts(path, row, "mask", several=True)
        num_normal_masks += 0 if label else len(texts)
        masks = [_find(root, path, listing.prefix + text) for text in texts if label]
        if image is None or not image.is_file():
            missing.append(image_text)
            continue
        missing += [text for text, mask in zip(texts, masks, strict=False) if mask is None]
        files = [file for mask in masks if mask for file in _mask_files(mask, image)]
        samples.append(Sample(image, label, class_name, defect, box=_box(path, row)).masked(files))
    if missing:
        raise UsageError(
            f"data set {name}: "
            + counted(len(missing), f"file listed in {path} is", f"files listed in {path} are")
            + f" missing: {first_few(missing)}; the list and the images may be of "
            f"different versions, or paths relative to another folder (targets.{name}.root)"
        )
    for what, number in (("image", num_left), ("mask", num_normal_masks)):
        if number:
            of = "other labels" if what == "image" else "normal images"
            logger.warning("%s/%s: left out %s of %s", name, class_name, counted(number, what), of)
    _check_names_agree(samples)
    return samples


def _texts(path: Path, row: Row, kind: str, *, several: bool = False) -> list[str]:
    """The paths in a cell, at most one unless there may be several."""
    named = column(row.values, kind)
    value = row.values[named] if named else None
    values = value if several and isinstance(value, list) else [value]
    for one in values:
        if one is not None and (not isinstance(one, str) or "\0" in one):
            raise _wrong(path, row, f"{named}: must be a path, not {one!r}")
    return [text for one in values if one and (text := one.strip())]


def _mask_files(mask: Path, image: Path) -> list[Path]:
    """The files of a mask; a folder holds some only if it is named after the image."""
    if not mask.is_dir():
        return [mask]
    return list_images(mask) if loose_stem(mask.name) == loose_stem(image.stem) else []


def _label(path: Path, name: str, row: Row, roles: Roles) -> tuple[int | None, str]:
    """The label of a row and its kind of defect; no label if keys leave it out."""
    named = _label_column(row)
    if named is None:
        names = ", ".join(map(str, row.values))
        raise _wrong(path, row, f"no column of labels ({', '.join(COLUMNS['label'])}) in {names}")
    value = row.values[named]
    if isinstance(value, (list, dict)):
        raise _wrong(path, row, f"{named}: must be one label, not {value!r}")
    label = label_of(value, named, roles)
    is_left_out = roles.anomalous is not None and roles.label(str(value)) is None
    if label is None and not is_left_out:
        key = f"source.{name}.normal or targets.{name}.normal"
        raise UsageError(
            f"{path}, {row.where}: {named}: it is unclear whether {value!r} is normal or "
            f"anomalous; set normal=[LABEL] ({key})",
            key=key,
        )
    if label == NORMAL:
        return label, "good"
    kind = column(row.values, "defect")
    own = str(row.values[kind] or "") if kind else ""
    text = str(value) if same_name(value)[:1].isalpha() else ""
    return label, own or ("" if same_name(text) in DOUBTFUL else text) or "anomalous"


def _box(path: Path, row: Row) -> tuple[int, int, int, int] | None:
    named = column(row.values, "box")
    box = row.values[named] if named else None
    if box in (None, ""):
        return None
    is_box = isinstance(box, list) and len(box) == 4 and all(type(value) is int for value in box)
    if not is_box:
        raise _wrong(path, row, f"box: must be [left, top, right, bottom] in pixels, not {box!r}")
    left, top, right, bottom = box
    return left, top, right, bottom


def _find(root: Path, list_path: Path, text: str) -> Path | None:
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
    forms = dict.fromkeys((parts, *(_normal_form(form, parts) for form in ("NFC", "NFD"))))
    bases = dict.fromkeys((root, list_path.parent if root in list_path.parents else root))
    candidates = (base.joinpath(*p[t:]) for base in bases for t in tails for p in forms)
    # Path.exists raises on names that are too long.
    return next((path for path in candidates if os.path.exists(path)), None)  # noqa: PTH110


def _normal_form(form: Literal["NFC", "NFD"], parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(unicodedata.normalize(form, part) for part in parts)


def _check_names_agree(samples: Sequence[Sample]) -> None:
    """Refuse masks that bear another image's name, which scripts that pair by order produce.

    A mask whose name is not that of any image is accepted.
    """
    groups: dict[str, list[tuple[Path, Path]]] = defaultdict(list)
    for sample in samples:
        groups[sample.defect] += [(sample.image, mask) for mask in sample.masks]
    for pairs in groups.values():
        owners = {loose_stem(image.stem): image for image, _ in pairs}
        for image, mask in pairs:
            names = [loose_stem(t) for t in (mask.stem, mask_stem(mask), mask.parent.name)]
            others = [owners[n] for n in names[:2] if n in owners]
            if loose_stem(image.stem) not in names and others:
                raise UsageError(
                    f"{image} is listed with the mask {mask.name}, which bears the name of "
                    f"{others[0].name}; a list paired by order has shifted, make it again"
                )
