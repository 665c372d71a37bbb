"""The table of scores: written row by row while prediction runs, then summed up as JSON."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from crane.prediction.calibration import Threshold
from crane.reporting import replacing


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
    """Why it could not be read."""


class ScoreTable:
    """Stream rows to `scores.csv`; when all are there, write `scores.json` from it.

    The CSV has one row an image, in the images' order. Columns: image, score, anomalous (only with
    a threshold), height, width, one for each kind of picture, error. Scores have full precision;
    what does not apply is empty. A row is on disk as soon as it is written.

    Args:
        folder: where both files go.
        pictures: kinds of pictures.
        threshold: decides the column `anomalous`, 0 or 1; None leaves it out.
    """

    def __init__(self, folder: Path, pictures: Sequence[str], threshold: Threshold | None) -> None:
        self.csv, self.json = folder / "scores.csv", folder / "scores.json"
        self.threshold = threshold
        decision = [] if threshold is None else ["anomalous"]
        self.columns = ["image", "score", *decision, "height", "width", *pictures, "error"]
        self.num_scored = self.num_anomalous = 0
        self.skipped: list[tuple[str, str]] = []

    def __enter__(self) -> "ScoreTable":
        self.csv.parent.mkdir(parents=True, exist_ok=True)
        # A summary of earlier scores would not fit those now being written.
        self.json.unlink(missing_ok=True)
        self._file = self.csv.open("w", newline="", encoding="utf-8", buffering=1)
        self._writer = csv.DictWriter(self._file, self.columns, lineterminator="\n")
        self._writer.writeheader()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, row: ScoreRow) -> None:
        """Write the next row."""
        cells: dict[str, object] = {
            "image": row.image,
            "score": row.score,
            "height": row.height,
            "width": row.width,
            "error": row.error,
            **dict(row.pictures),
        }
        if row.score is None:
            self.skipped.append((row.image, str(row.error)))
        else:
            self.num_scored += 1
            if self.threshold is not None:
                cells["anomalous"] = int(self.threshold.is_anomalous(row.score))
                self.num_anomalous += self.threshold.is_anomalous(row.score)
        self._writer.writerow(cells)

    def write_json(self) -> Path:
        """Write the counts, the threshold, every row and what was skipped, in constant memory."""
        head = {
            "num_images": self.num_scored + len(self.skipped),
            "num_scored": self.num_scored,
            "num_skipped": len(self.skipped),
            "num_anomalous": None if self.threshold is None else self.num_anomalous,
            "threshold": None if self.threshold is None else asdict(self.threshold),
            "skipped": [{"image": image, "error": error} for image, error in self.skipped],
        }
        with replacing(self.json) as part, part.open("w", encoding="utf-8") as file:
            file.write(json.dumps(head, indent=2, ensure_ascii=False)[:-2])
            file.write(',\n  "scores": [')
            for place, row in enumerate(read_scores(self.csv)):
                file.write("," if place else "")
                file.write("\n    " + json.dumps(row, ensure_ascii=False))
            file.write("\n  ]\n}\n")
        return self.json


_TYPES: Mapping[str, type] = {"score": float, "anomalous": int, "height": int, "width": int}


def read_scores(path: Path) -> Iterator[dict[str, str | float | int | None]]:
    """Read a `scores.csv` row by row, numbers as numbers and empty cells as None."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {
                column: None if cell == "" else _TYPES.get(column, str)(cell)
                for column, cell in row.items()
            }
