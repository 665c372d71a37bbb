"""What a prediction comes to: counts, and once all parts are there, files that hold all of it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from crane.files import replacing
from crane.prediction.calibration import Threshold
from crane.prediction.table import Cells, ScoreTable

MAX_SHOWN = 10
"""Unreadable images named in a summary, at most; the files name all."""
MAX_JSON_ROWS = 100_000
"""Of more images, `scores.json` holds the counts and what was skipped, but not every score."""


@dataclass(frozen=True)
class PredictSummary:
    """How a prediction stands."""

    num_images: int
    """Images in the list."""
    num_scored: int
    """Images with a score."""
    num_skipped: int
    """Images that could not be read."""
    num_anomalous: int | None
    """Images at or above the threshold; None without one."""
    skipped: tuple[tuple[str, str], ...]
    """(image, reason) of the first that could not be read."""
    threshold: Threshold | None
    """The threshold."""
    scores: Path
    """`scores.csv`, or the folder of parts: for Parquet, and while some are missing."""
    json: Path | None
    """`scores.json`; None while parts are missing."""

    @property
    def num_missing(self) -> int:
        """Images that nothing has been said about yet: those of other shards."""
        return self.num_images - self.num_scored - self.num_skipped


def summarise(output: Path, table: ScoreTable, threshold: Threshold | None) -> PredictSummary:
    """Count what the parts say, and if none is missing write `scores.csv` and `scores.json`.

    Any process that finds all parts may do so: the files are the same whoever writes them.

    Raises:
        UsageError: if a part is not as it was written.
    """
    num_scored = num_skipped = num_anomalous = 0
    skipped: list[tuple[str, str]] = []
    present = table.present()
    for row in _rows(table, sorted(present)):
        num_scored += row["score"] is not None
        num_skipped += row["score"] is None
        num_anomalous += row.get("anomalous") == 1
        if row["score"] is None and len(skipped) < MAX_SHOWN:
            skipped.append((str(row["image"]), str(row["error"])))
    summary = PredictSummary(
        num_images=table.num_images,
        num_scored=num_scored,
        num_skipped=num_skipped,
        num_anomalous=None if threshold is None else num_anomalous,
        skipped=tuple(skipped),
        threshold=threshold,
        scores=table.folder,
        json=None,
    )
    if len(present) < table.num_parts or num_scored == 0:
        return summary
    scores = _write_csv(output, table) if table.options.format == "csv" else table.folder
    written = {"scores": scores, "json": _write_json(output, table, summary)}
    return PredictSummary(**{**vars(summary), **written})


def _rows(table: ScoreTable, parts: range | list[int]) -> Iterator[Cells]:
    for number in parts:
        yield from table.rows(number)


def _write_csv(output: Path, table: ScoreTable) -> Path:
    with replacing(output / "scores.csv") as unfinished, unfinished.open("wb") as whole:
        for number in range(table.num_parts):
            with table.path(number).open("rb") as part:
                header = part.readline()
                if number == 0:
                    whole.write(header)
                shutil.copyfileobj(part, whole)
    return output / "scores.csv"


def _write_json(output: Path, table: ScoreTable, summary: PredictSummary) -> Path:
    """Write the counts, the threshold, what was skipped and the rows, in constant memory."""
    head = {
        "num_images": summary.num_images,
        "num_scored": summary.num_scored,
        "num_skipped": summary.num_skipped,
        "num_anomalous": summary.num_anomalous,
        "threshold": None if summary.threshold is None else asdict(summary.threshold),
    }
    skipped = (
        {"image": row["image"], "error": row["error"]}
        for row in _rows(table, range(table.num_parts))
        if row["score"] is None
    )
    with (
        replacing(output / "scores.json") as unfinished,
        unfinished.open("w", encoding="utf-8") as file,
    ):
        file.write(json.dumps(head, indent=2, ensure_ascii=False)[:-2])
        file.write(',\n  "skipped": ')
        for text in _array(skipped):
            file.write(text)
        if summary.num_images <= MAX_JSON_ROWS and table.options.format == "csv":
            file.write(',\n  "scores": ')
            for text in _array(_rows(table, range(table.num_parts))):
                file.write(text)
        file.write("\n}\n")
    return output / "scores.json"


def _array(rows: Iterator[Cells]) -> Iterator[str]:
    before = "["
    for row in rows:
        yield f"{before}\n    {json.dumps(row, ensure_ascii=False)}"
        before = ","
    yield "[]" if before == "[" else "\n  ]"
