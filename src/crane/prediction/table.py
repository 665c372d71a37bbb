"""The table of scores: parts written while prediction runs, and the files that join them."""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from crane.errors import UsageError, counted
from crane.files import csv_text, replacing, uncell, write_text
from crane.prediction.calibration import Threshold
from crane.prediction.image_scoring import ImageScore
from crane_runtime import Region

Row = dict[str, str | float | int | None]
"""A row by column; what does not apply is None."""

COLUMNS: Mapping[str, tuple[str, type]] = MappingProxyType(
    {
        "image": ("string", str),
        "score": ("float64", float),
        "anomalous": ("int8", int),
        "regions": ("int32", int),
        "height": ("int32", int),
        "width": ("int32", int),
        "map": ("string", str),
        "overlay": ("string", str),
        "error": ("string", str),
    }
)
"""Columns that a table may have, in their order, with their types in Parquet and in Python."""

REGION_COLUMNS = ("image", "left", "top", "right", "bottom", "area", "peak")
"""Columns of `regions.csv`: pixels, and the highest probability of the region."""

MAX_SHOWN = 10
"""Unreadable images named in a summary, at most; the files name all."""


class WrittenImage(NamedTuple):
    """An image whose pictures are on the disk."""

    row: Row
    """Its row of the table."""
    regions: tuple[Region, ...] = ()
    """Its anomalous regions."""


def table_row(
    image: ImageScore,
    name: str,
    pictures: Mapping[str, str],
    error: str | None,
    threshold: Threshold | None,
    num_regions: int | None = None,
) -> Row:
    """The row of an image.

    Args:
        image: The scored image.
        name: Its path relative to the root of the input.
        pictures: Kind of picture to the file written, relative to the folder of all outputs.
        error: Why a picture could not be written.
        threshold: Decides whether the image is called anomalous; None decides nothing.
        num_regions: Its anomalous regions; None without a map.
    """
    row: Row = {"score": image.score, "height": image.height, "width": image.width}
    row["regions"] = num_regions
    for column, text in (("image", name), ("error", image.error or error), *pictures.items()):
        row[column] = None if text is None else printable(text)
    if threshold is not None and image.score is not None:
        row["anomalous"] = int(threshold.is_anomalous(image.score))
    return row


def printable(text: str) -> str:
    """File names are bytes; those that are not valid UTF-8 are shown with escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class ScoreTable:
    """The scores of a list of images as a folder of parts, each the rows of consecutive images.

    Which images are in which part depends on nothing but the list, so that parts written by several
    processes, on several machines or at several times make the same table. Columns: image, score,
    anomalous (only with a threshold), height, width, regions and one for each kind of picture (only
    with pictures), error. Scores have full precision. The regions themselves lie beside, in
    `regions/`.

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
        self.has_regions = bool(pictures)
        left_out = {"map", "overlay", "anomalous", "regions"} - {*pictures}
        left_out -= {"anomalous"} if with_decision else set()
        left_out -= {"regions"} if self.has_regions else set()
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

    def regions_path(self, number: int) -> Path:
        """File of the regions of a part."""
        return self.folder.parent / "regions" / f"part-{number:08d}.csv"

    def write(self, number: int, images: Sequence[WrittenImage]) -> None:
        """Write a part; it is whole and on the disk when this returns."""
        ordered = [{column: one.row.get(column) for column in self.columns} for one in images]
        if self.has_regions:
            cells = [
                [one.row["image"], *region.box, region.area, region.peak]
                for one in images
                for region in one.regions
            ]
            write_text(self.regions_path(number), csv_text([REGION_COLUMNS, *cells]), durable=True)
        with replacing(self.path(number), durable=True, suffix="") as part:
            if self.format == "csv":
                lines = [[*row.values()] for row in ordered]
                part.write_text(csv_text([self.columns, *lines]), encoding="utf-8", newline="")
            else:
                _write_parquet(part, self.columns, ordered)

    def read(
        self, number: int, names: Sequence[str], *, is_undecided: bool = False
    ) -> tuple[list[Row], bytes]:
        """Read a part.

        Args:
            number: Which.
            names: Names of its images.
            is_undecided: Whether it may have been written with or without a threshold.

        Returns:
            Its rows, and the content of its file.

        Raises:
            UsageError: It is damaged, or its rows are those of other images.
        """
        path = self.path(number)
        rows, content = self._content(path)
        columns = [list(columns) for columns in (rows[0] if rows else (), self.columns)]
        if is_undecided:
            columns = [[c for c in one if c != "anomalous"] for one in columns]
        if len(rows) != self.size(number) or columns[0] != columns[1]:
            raise _damaged(path, f"holds {counted(len(rows), 'row')} or other columns")
        if [row["image"] for row in rows] != list(map(printable, names)):
            raise _damaged(path, "holds rows of other images")
        return rows, content

    def rows(self, number: int) -> list[Row]:
        """The rows of a part, whatever its images.

        Raises:
            UsageError: It is damaged.
        """
        return self._content(self.path(number))[0]

    def _content(self, path: Path) -> tuple[list[Row], bytes]:
        try:
            content = path.read_bytes()
            return list(_parsed(content)) if self.format == "csv" else _read_parquet(
                content
            ), content
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _damaged(path, f"cannot be read ({error})") from error


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
    """Images in parts that have not been written yet: those of other processes."""
    num_scored: int = 0
    """Images with a score."""
    num_skipped: int = 0
    """Images that could not be read."""
    regions: Path | None = None
    """`regions.csv`; None without maps, and while parts are missing."""
    page: Path | None = None
    """`predictions.html`; None while parts are missing."""
    label_auroc: float | None = None
    """Image AUROC if names of folders say which images are normal; None if they do not."""
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
