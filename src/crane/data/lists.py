"""Lists of images: JSON, JSON lines, CSV and Parquet with usual column names, and object stores.

What comes out is a row for each image, as text and numbers; `crane.data.meta_json` looks up files.
"""

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from crane.data.roles import SPLITS, same_name
from crane.errors import UsageError

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "image": (
        *("img_path", "image_path", "image", "img", "path", "file_path", "filepath", "filename"),
        *("file_name", "file", "image_file", "image_name", "imagepath"),
    ),
    "mask": (
        *("mask_path", "mask", "maskname", "mask_file", "mask_name", "mask_filename", "gt_path"),
        *("gt", "ground_truth", "segmentation"),
    ),
    "label": (
        *("anomaly", "is_anomaly", "anomalous", "is_anomalous", "label", "is_defective"),
        *("defective", "is_defect", "target", "labels", "status", "result"),
    ),
    "class": ("cls_name", "clsname", "class_name", "classname", "category", "object", "product"),
    "defect": (
        "specie_name",
        "label_name",
        "anomaly_class",
        "defect_type",
        "defect",
        "anomaly_type",
    ),
    "split": ("split", "subset", "set", "phase", "partition"),
    "box": ("box",),
}
"""What a column holds, and the names it goes by; the first of them that is there counts."""

TABLES = (".csv", ".tsv", ".txt")
MAX_BYTES = 1 << 30
"""Lists of more bytes are refused: they are something else."""


class Row(NamedTuple):
    """An image of a list."""

    where: str
    """Its place in the list, for errors."""
    class_name: str | None
    """The class it is listed under."""
    values: Mapping[str, Any]
    """Column to value; columns as they are named in the list."""


class Listing(NamedTuple):
    """The content of a list."""

    splits: dict[str, list[Row]]
    prefix: str = ""
    """In front of every path (Real-IAD)."""
    normal: str | None = None
    """The label that is normal, if the list says so (Real-IAD)."""


def read_listing(path: Path) -> Listing:
    """Read a list of images.

    Args:
        path: A JSON file of splits, each with classes or rows; a JSON array of rows, or one row a
            line; a table in CSV (separated by commas, semicolons or tabs) or Parquet.

    Raises:
        UsageError: It cannot be read, or is none of these.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UsageError(f"{path} is too large for a list of images")
        if path.suffix.lower() == ".parquet":
            return _of_rows(_parquet(path), path)
        text = path.read_bytes().decode("utf-8-sig")  # a name may hold a line's end
        if path.suffix.lower() in TABLES:
            return _of_rows(_table(text, path), path)
        return _of_json(_json(text, path), path)
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"cannot read {path}: {error}") from error


def column(row: Mapping[str, Any], kind: str) -> str | None:
    """The column of a row that holds something, such as `image`; None if there is none.

    >>> column({"Image Path": "a.png", "class": "good"}, "image")
    'Image Path'
    """
    return _column(tuple(row), kind)


@cache
def _column(names: tuple[str, ...], kind: str) -> str | None:
    plain = {same_name(name).replace(" ", "_").replace("-", "_"): name for name in names}
    return next((plain[name] for name in COLUMNS[kind] if name in plain), None)


def _json(text: str, path: Path) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"{path} holds {twice!r} twice in one object; join or rename them")
        return found

    lines = [line for line in text.split("\n") if line.strip()]
    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError:
        if len(lines) < 2:
            raise
        return [json.loads(line, object_pairs_hook=unique) for line in lines]


def _table(text: str, path: Path) -> list[dict[str, str]]:
    lines = io.StringIO(text, newline="")  # which ends lines at \r, too, without changing it
    separator = max(",;\t|", key=lines.readline().count)
    lines.seek(0)
    reader = csv.DictReader(lines, delimiter=separator, strict=True)
    rows = []
    try:
        for row in reader:
            if None in row or None in row.values():
                problem = "the row has more or fewer cells than the header"
                raise UsageError(f"{path}, line {reader.line_num}: {problem}")
            rows.append({name.strip(): value.strip() for name, value in row.items()})
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}") from error
    names = list(reader.fieldnames or ())
    if len(set(names)) < len(names):
        raise UsageError(f"{path} has two columns of one name: {', '.join(names)}")
    return rows


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    return rows


def _of_json(content: Any, path: Path) -> Listing:
    if isinstance(content, list):
        return _of_rows(content, path)
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UsageError(f"{path} must hold an object of splits or rows of images, not a {kind}")
    meta = content.get("meta")
    about = meta if isinstance(meta, dict) and ("prefix" in meta or "normal_class" in meta) else {}
    splits: dict[str, list[Row]] = {}
    for split, inside in content.items():
        if about and split == "meta":
            continue
        if isinstance(inside, dict):
            splits[split] = [
                row for c, rows in inside.items() for row in _rows(rows, path, f"{split}/{c}", c)
            ]
        else:
            splits[split] = _rows(inside, path, split, None)
    normal = about.get("normal_class")
    return Listing(splits, str(about.get("prefix") or ""), None if normal is None else str(normal))


def _of_rows(rows: Sequence[Any], path: Path) -> Listing:
    """A list without an object of splits: a column may name them, else all are `test`."""
    splits: dict[str, list[Row]] = {}
    for row in _rows(rows, path, "", None):
        named = column(row.values, "split")
        split = "test" if named is None else same_name(row.values[named] or "test")
        splits.setdefault(SPLITS.get(split, split), []).append(row)
    return Listing(splits)


def _rows(rows: Any, path: Path, place: str, class_name: str | None) -> list[Row]:
    of = f" of {place}" if place else ""
    if not isinstance(rows, list):
        kind = type(rows).__name__
        raise UsageError(f"{path}, {place}: must be a list of images, not a {kind}")
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UsageError(
                f"{path}, entry {number}{of}: must be an object with a path and a label, not "
                f"a {type(row).__name__}"
            )
    return [Row(f"entry {number}{of}", class_name, row) for number, row in enumerate(rows)]


def read_remote(path: str) -> io.BytesIO:
    """The content of one object.

    Raises:
        FileNotFoundError: There is no such object.
        OSError: The store does not answer, or refuses.
    """
    store, inside = _place(path)
    with store.open_input_stream(inside) as stream:
        return io.BytesIO(stream.read())


def list_remote(folder: str, key: str) -> Iterator[str]:
    """The objects below a path, or the path itself if it is an object.

    Args:
        folder: Where to look, such as `s3://bucket/photos`.
        key: The configuration key that named it, for errors.

    Raises:
        UsageError: There is nothing, or the store does not answer or refuses.
    """
    from pyarrow.fs import FileSelector, FileType

    try:
        store, inside = _place(folder)
        info = store.get_file_info(inside)
        if info.type is FileType.File:
            yield folder
            return
        found = store.get_file_info(FileSelector(inside, recursive=True))
    except FileNotFoundError:
        raise UsageError(f"there is no object below {folder}", key=key) from None
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"cannot list {folder}: {reason}", key=key) from error
    start = f"{urlsplit(folder).scheme}://"
    yield from (start + one.path for one in found if one.type is FileType.File)


def _place(path: str) -> tuple[Any, str]:
    parts = urlsplit(path)
    return _store(parts.scheme, parts.netloc), f"{parts.netloc}{parts.path}".rstrip("/")


@cache
def _store(scheme: str, bucket: str) -> Any:
    """The file system of a bucket. A store of one's own is named by AWS_ENDPOINT_URL."""
    from pyarrow.fs import FileSystem, S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "s3" and endpoint:
        return S3FileSystem(endpoint_override=endpoint)
    return FileSystem.from_uri(f"{scheme}://{bucket}")[0]
