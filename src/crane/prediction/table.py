"""The table of scores: parts written while prediction runs, and the files that join them."""

import csv
import io
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from types import MappingProxyType
from typing import IO

import torch

from crane.errors import UsageError, counted
from crane.files import csv_text, replacing, uncell
from crane.prediction.calibration import Threshold
from crane.prediction.image_scoring import ImageScore
from crane.runs import processor_name

Row = dict[str, str | float | int | None]
"""A row by column; what does not apply is None."""

COLUMNS: Mapping[str, tuple[str, type]] = MappingProxyType(
    {
        "image": ("string", str),
        "score": ("float64", float),
        "anomalous": ("int8", int),
        "height": ("int32", int),
        "width": ("int32", int),
        "map": ("string", str),
        "overlay": ("string", str),
        "error": ("string", str),
    }
)
"""Columns that a table may have, in their order, with their types in Parquet and in Python."""

MAX_SHOWN = 10
"""Unreadable images named in a summary, at most; the files name all."""
MAX_JSON_ROWS = 100_000
"""With more images, `scores.json` holds the counts and what was skipped, but not every score."""


def table_row(
    image: ImageScore, pictures: Mapping[str, str], error: str | None, threshold: Threshold | None
) -> Row:
    """The row of an image.

    Args:
        image: The scored image.
        pictures: Kind of picture to the file written, relative to the folder of all outputs.
        error: Why a picture could not be written.
        threshold: Decides whether the image is called anomalous; None decides nothing.
    """
    row: Row = {"score": image.score, "height": image.height, "width": image.width}
    for column, text in (("image", image.path), ("error", image.error or error), *pictures.items()):
        row[column] = None if text is None else _printable(text)
    if threshold is not None and image.score is not None:
        row["anomalous"] = int(threshold.is_anomalous(image.score))
    return row


def _printable(text: str) -> str:
    """File names are bytes; those that are not valid UTF-8 are shown with escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class ScoreTable:
    """The scores of a list of images as a folder of parts, each the rows of consecutive images.

    Which images are in which part depends on nothing but the list, so that parts written by several
    processes, on several machines or at several times make the same table. Columns: image, score,
    anomalous (only with a threshold), height, width, one for each kind of picture, error. Scores
    have full precision.

    Args:
        folder: Folder of the parts.
        scores: Their format, `csv` or `parquet`.
        part_size: Images in a part.
        num_images: Images in the list.
        pictures: Kinds of pictures that have a column.
        with_decision: Whether there is a column `anomalous`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        scores: str,
        part_size: int,
        num_images: int,
        pictures: Sequence[str],
        with_decision: bool,
    ) -> None:
        self.folder, self.format, self.part_size = folder, scores, part_size
        self.num_images = num_images
        left_out = {"map", "overlay", "anomalous"} - {*pictures}
        left_out -= {"anomalous"} if with_decision else set()
        self.columns = [name for name in COLUMNS if name not in left_out]
        self.num_parts = -(-num_images // part_size)

    def path(self, number: int) -> Path:
        """File of a part; sorted by name, parts are in the order of the images."""
        return self.folder / f"part-{number:08d}.{self.format}"

    def size(self, number: int) -> int:
        """Images in a part."""
        return min(self.part_size, self.num_images - number * self.part_size)

    def present(self) -> set[int]:
        """Numbers of the parts that have been written."""
        name = re.compile(rf"part-(\d+)\.{self.format}")
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        found = (name.fullmatch(file.name) for file in files)
        return {int(match[1]) for match in found if match}

    def write(self, number: int, rows: Sequence[Row]) -> None:
        """Write a part; it is whole and on the disk when this returns."""
        ordered = [{column: row.get(column) for column in self.columns} for row in rows]
        with replacing(self.path(number), durable=True, suffix="") as part:
            if self.format == "csv":
                lines = [[*row.values()] for row in ordered]
                part.write_text(csv_text([self.columns, *lines]), encoding="utf-8", newline="")
            else:
                _write_parquet(part, self.columns, ordered)

    def read(self, number: int, images: Sequence[str]) -> tuple[list[Row], bytes]:
        """Read a part.

        Args:
            number: Which.
            images: Paths of its images.

        Returns:
            Its rows, and the content of its file.

        Raises:
            UsageError: It is damaged, or its rows are those of other images.
        """
        path = self.path(number)
        try:
            content = path.read_bytes()
            rows = list(_parsed(content)) if self.format == "csv" else _read_parquet(content)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, f"cannot be read ({error})") from error
        if len(rows) != self.size(number) or list(rows[0]) != self.columns:
            raise _damaged(path, f"holds {counted(len(rows), 'row')} or other columns")
        if [row["image"] for row in rows] != list(map(_printable, images)):
            raise _damaged(path, "holds rows of other images")
        return rows, content


def _damaged(path: Path, problem: str) -> UsageError:
    return UsageError(f"{path} {problem}; remove it and run the command again to predict it again")


def read_scores(path: Path) -> Iterator[Row]:
    """Read a `scores.csv`, or a part of one, row by row; empty cells are None."""
    with path.open(newline="", encoding="utf-8") as file:
        yield from _rows(file)


def _parsed(content: bytes) -> Iterator[Row]:
    return _rows(io.StringIO(content.decode("utf-8"), newline=""))


def _rows(lines: Iterable[str]) -> Iterator[Row]:
    for row in csv.DictReader(lines):
        if None in row or None in row.values():
            raise ValueError("a row has more or fewer cells than columns")
        yield {
            column: None if text == "" else COLUMNS[column][1](uncell(text))
            for column, text in row.items()
        }


def _write_parquet(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(COLUMNS[name][0])) for name in columns])
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)


def _read_parquet(content: bytes) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[Row] = pq.ParquetFile(io.BytesIO(content)).read().to_pylist()
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    return rows


@dataclass
class PredictSummary:
    """The state of a prediction; while parts are missing, counts are those of this process."""

    output: Path
    """Folder of all outputs."""
    scores: Path
    """`scores.csv`, or the folder of parts: for Parquet, and while some are missing."""
    num_images: int
    """Images in the list."""
    threshold: Threshold | None
    """What decided which images are called anomalous."""
    json: Path | None = None
    """`scores.json`; None while parts are missing."""
    num_missing: int = 0
    """Images in parts that have not been written yet: those of other shards."""
    num_scored: int = 0
    """Images with a score."""
    num_skipped: int = 0
    """Images that could not be read."""
    num_anomalous: int | None = None
    """Images at or above the threshold; None without one."""
    skipped: list[tuple[str, str]] = field(default_factory=list)
    """(image, reason) of the first `MAX_SHOWN` that could not be read."""

    def count(self, rows: Sequence[Row]) -> None:
        """Count the images of some rows."""
        if self.threshold is not None:
            num_anomalous = sum(row.get("anomalous") == 1 for row in rows)
            self.num_anomalous = (self.num_anomalous or 0) + num_anomalous
        for row in rows:
            self.num_scored += row["score"] is not None
            if row["score"] is None:
                self.num_skipped += 1
                if len(self.skipped) < MAX_SHOWN:
                    self.skipped.append((str(row["image"]), str(row["error"])))


def join_parts(
    table: ScoreTable, images: Iterable[str], output: Path, threshold: Threshold | None
) -> PredictSummary:
    """Write `scores.csv` (of CSV parts) and `scores.json` from all parts, each read once.

    Every process that finds all parts may do so: the files are the same whoever writes them.

    Args:
        table: The table; no part is missing.
        images: Paths of all images.
        output: Folder of all outputs.
        threshold: What decided which images are called anomalous.

    Raises:
        UsageError: A part is damaged, or none of the images could be read.
    """
    is_csv, paths = table.format == "csv", iter(images)
    scores = output / "scores.csv" if is_csv else table.folder
    summary = PredictSummary(output, scores, table.num_images, threshold, output / "scores.json")
    with ExitStack() as stack:
        whole = stack.enter_context(_replaced(scores)) if is_csv else None
        skipped, rows = (
            _JsonArray(stack.enter_context(TemporaryFile(dir=output))) for _ in range(2)
        )
        for number in range(table.num_parts):
            part, content = table.read(number, list(islice(paths, table.size(number))))
            summary.count(part)
            unread = (row for row in part if row["score"] is None)
            skipped.extend({"image": row["image"], "error": row["error"]} for row in unread)
            if whole is not None:
                whole.write(content if number == 0 else content[content.index(b"\n") + 1 :])
                rows.extend(part if table.num_images <= MAX_JSON_ROWS else ())
            del part, content  # so that no two parts are in memory
        if summary.num_scored == 0:
            image, reason = summary.skipped[0]
            raise UsageError(f"none of the images can be read; {image}: {reason}", key="input")
        _write_json(summary, skipped, rows)
    return summary


def _write_json(summary: PredictSummary, skipped: "_JsonArray", rows: "_JsonArray") -> None:
    threshold = summary.threshold
    head = {
        "num_images": summary.num_images,
        "num_scored": summary.num_scored,
        "num_skipped": summary.num_skipped,
        "num_anomalous": summary.num_anomalous,
        "threshold": None if threshold is None else asdict(threshold),
        "processor": processor_name(),  # with the threads, decides the last bits of scores
        "threads": torch.get_num_threads(),
    }
    with _replaced(summary.output / "scores.json") as file:
        file.write(json.dumps(head, indent=2, ensure_ascii=False)[:-2].encode())
        file.write(b',\n  "skipped": ')
        skipped.copy_to(file)
        if rows.num:
            file.write(b',\n  "scores": ')
            rows.copy_to(file)
        file.write(b"\n}\n")


class _JsonArray:
    """A JSON array in a temporary file, where it waits until the counts before it are known."""

    def __init__(self, file: IO[bytes]) -> None:
        self.num, self._file = 0, file

    def extend(self, rows: Iterable[Row]) -> None:
        for row in rows:
            before = "," if self.num else "["
            self._file.write(f"{before}\n    {json.dumps(row, ensure_ascii=False)}".encode())
            self.num += 1

    def copy_to(self, file: IO[bytes]) -> None:
        self._file.seek(0)
        shutil.copyfileobj(self._file, file)
        file.write(b"\n  ]" if self.num else b"[]")


@contextmanager
def _replaced(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that replaces `path` when the block ends well."""
    with replacing(path, suffix="") as part, part.open("wb") as file:
        yield file
