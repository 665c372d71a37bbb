"""The table of scores: parts that are written whole or not at all while prediction runs."""

import csv
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from crane.errors import UsageError
from crane.prediction.calibration import Threshold

Cells = dict[str, str | float | int | None]
"""A row by column; what does not apply is None."""

TYPES: Mapping[str, tuple[pa.DataType, type]] = MappingProxyType(
    {
        "image": (pa.string(), str),
        "score": (pa.float64(), float),
        "anomalous": (pa.int8(), int),
        "height": (pa.int32(), int),
        "width": (pa.int32(), int),
        "map": (pa.string(), str),
        "overlay": (pa.string(), str),
        "error": (pa.string(), str),
    }
)
"""Columns that a table may have, in their order, as Parquet and Python have them."""


@dataclass(frozen=True)
class ScoreRow:
    """What is said about one image."""

    image: str
    """The file as it was named or found."""
    score: float | None
    """Anomaly score in [0, 1]; None for an image that could not be read."""
    height: int | None = None
    """Its own height in pixels."""
    width: int | None = None
    """Its own width."""
    pictures: tuple[tuple[str, str], ...] = ()
    """(kind, file relative to the output folder) of each picture written."""
    error: str | None = None
    """Why it could not be read, or why a picture of it could not be written."""


@dataclass(frozen=True)
class TableOptions:
    """How the table is written.

    Raises:
        UsageError: for an unknown format or a part of no images.
    """

    format: str
    """`csv` or `parquet`."""
    part_size: int
    """Images a part: what an interruption loses at most."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UsageError(" or ".join(FORMATS), self.format, key="scores")
        if self.part_size < 1:
            raise UsageError("parts of at least one image", self.part_size, key="part_size")


class ScoreTable:
    """The scores of a list of images as a folder of parts, each the rows of consecutive images.

    Which images are in which part depends on nothing but the list, so that parts written by several
    processes, on several machines or at several times make the same table. Columns: image, score,
    anomalous (only with a threshold), height, width, one for each kind of picture, error. Scores
    have full precision.

    Args:
        folder: where parts are.
        options: how they are written.
        num_images: how many images there are.
        pictures: kinds of pictures.
        with_decision: whether there is a column `anomalous`.
    """

    def __init__(
        self,
        folder: Path,
        options: TableOptions,
        *,
        num_images: int,
        pictures: Sequence[str],
        with_decision: bool,
    ) -> None:
        self.folder, self.options, self.num_images = folder, options, num_images
        left_out = {"map", "overlay", "anomalous"} - {*pictures}
        left_out -= {"anomalous"} if with_decision else set()
        self.columns = [name for name in TYPES if name not in left_out]
        self.num_parts = -(-num_images // options.part_size)

    def path(self, number: int) -> Path:
        """Name a part; sorted by name, parts are in the images' order."""
        return self.folder / f"part-{number:08d}.{self.options.format}"

    def size(self, number: int) -> int:
        """Count the images of a part."""
        return min(self.options.part_size, self.num_images - number * self.options.part_size)

    def present(self) -> set[int]:
        """Find the parts that have been written."""
        name = re.compile(rf"part-(\d+)\.{self.options.format}")
        files = self.folder.iterdir() if self.folder.is_dir() else ()
        found = (name.fullmatch(file.name) for file in files)
        return {int(match[1]) for match in found if match}

    def write(self, number: int, rows: Sequence[ScoreRow], threshold: Threshold | None) -> None:
        """Write a part: it is on disk, whole, when this returns."""
        cells = [self._cells(row, threshold) for row in rows]
        self.folder.mkdir(parents=True, exist_ok=True)
        # Unlike a part's, this name does not match *.csv: readers pass over what a kill leaves.
        unfinished = self.folder / f".{self.path(number).name}.{uuid4().hex}"
        try:
            FORMATS[self.options.format].write(unfinished, self.columns, cells)
            with unfinished.open("rb") as file:
                os.fsync(file.fileno())
            unfinished.replace(self.path(number))
        finally:
            unfinished.unlink(missing_ok=True)

    def rows(self, number: int) -> list[Cells]:
        """Read a part.

        Raises:
            UsageError: if it is not as it was written.
        """
        path, wanted = self.path(number), f"a part of {self.size(number)} images"
        hint = "remove it and run the command again to predict on these images again"
        try:
            rows = FORMATS[self.options.format].read(path)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(wanted, f"{path}: {error}", hint=hint) from error
        if len(rows) != self.size(number) or list(rows[0]) != self.columns:
            raise UsageError(wanted, f"{path} with {len(rows)} or other columns", hint=hint)
        return rows

    def _cells(self, row: ScoreRow, threshold: Threshold | None) -> Cells:
        cells: Cells = dict.fromkeys(self.columns)
        cells |= {"score": row.score, "height": row.height, "width": row.width}
        for name, text in (("image", row.image), ("error", row.error), *row.pictures):
            # File names are bytes; those that are no text are shown with escapes.
            cells[name] = text and text.encode("utf-8", "backslashreplace").decode("utf-8")
        if threshold is not None and row.score is not None:
            cells["anomalous"] = int(threshold.is_anomalous(row.score))
        return cells


@dataclass(frozen=True)
class Format:
    """How parts are written and read."""

    write: Callable[[Path, Sequence[str], Sequence[Cells]], None]
    """From a file to be, its columns and its rows."""
    read: Callable[[Path], list[Cells]]
    """Rows of a file, numbers as numbers, what does not apply as None."""


def read_scores(path: Path) -> Iterator[Cells]:
    """Read a `scores.csv`, or a part of one, row by row; empty cells are None."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {
                column: None if cell == "" else TYPES[column][1](cell)
                for column, cell in row.items()
            }


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Cells]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _read_csv(path: Path) -> list[Cells]:
    return list(read_scores(path))


def _write_parquet(path: Path, columns: Sequence[str], rows: Sequence[Cells]) -> None:
    schema = pa.schema([(name, TYPES[name][0]) for name in columns])
    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)


def _read_parquet(path: Path) -> list[Cells]:
    rows: list[Cells] = pq.ParquetFile(path).read().to_pylist()
    return rows


FORMATS: Mapping[str, Format] = MappingProxyType(
    {"csv": Format(_write_csv, _read_csv), "parquet": Format(_write_parquet, _read_parquet)}
)
"""Formats of the table."""
