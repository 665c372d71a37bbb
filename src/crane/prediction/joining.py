"""The files that join the parts of a prediction: scores, regions, counts and `predictions.html`."""

import base64
import heapq
import json
import shutil
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from importlib.resources import files
from itertools import islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryFile
from typing import IO
from urllib.parse import quote

import numpy as np
import torch

from crane.data.roles import Roles
from crane.errors import UsageError, counted
from crane.files import replacing, write_text
from crane.metrics import auroc
from crane.pictures import ColourScale, heat_map
from crane.prediction.calibration import Threshold
from crane.prediction.inputs import ImageList
from crane.prediction.table import PredictSummary, Row, ScoreTable
from crane.runs import processor_name
from crane.samples import ANOMALOUS, NORMAL

MAX_JSON_ROWS = 100_000
"""With more images, `scores.json` holds the counts and what was skipped, but not every score."""
MAX_LABELLED = 1_000_000
"""With more images, names of folders are not compared with scores, which stay out of memory."""


def join_parts(
    table: ScoreTable,
    images: ImageList,
    output: Path,
    threshold: Threshold | None,
    scale: ColourScale,
) -> PredictSummary:
    """Write `scores.csv` (of CSV parts), `scores.json`, `regions.csv` and `predictions.html`.

    Each part is read once. Every process that finds all parts may do so: the files are the same
    whoever writes them.

    Args:
        table: The table; no part is missing.
        images: All images.
        output: Folder of all outputs.
        threshold: What decided which images are called anomalous.
        scale: The colours of the overlays.

    Raises:
        UsageError: A part is damaged, or none of the images could be read.
    """
    is_csv, names = table.format == "csv", images.names()
    scores = output / "scores.csv" if is_csv else table.folder
    summary = PredictSummary(output, scores, table.num_images, threshold, output / "scores.json")
    page, labels = PredictionsPage(output, threshold, scale), _FolderLabels()
    with ExitStack() as stack:
        whole = stack.enter_context(_replaced(scores)) if is_csv else None
        regions = None
        if table.has_regions:
            summary.regions = output / "regions.csv"
            regions = stack.enter_context(_replaced(summary.regions))
        skipped, rows = (
            _JsonArray(stack.enter_context(TemporaryFile(dir=output))) for _ in range(2)
        )
        for number in range(table.num_parts):
            part, content = table.read(number, list(islice(names, table.size(number))))
            summary.count(part)
            page.add(part)
            if table.num_images <= MAX_LABELLED:
                labels.add(part)
            unread = (row for row in part if row["score"] is None)
            skipped.extend({"image": row["image"], "error": row["error"]} for row in unread)
            if whole is not None:
                _append(whole, content, number)
                rows.extend(part if table.num_images <= MAX_JSON_ROWS else ())
            if regions is not None:
                _append(regions, table.regions_path(number).read_bytes(), number)
            del part, content  # so that no two parts are in memory
        if summary.num_scored == 0:
            image, reason = summary.skipped[0]
            raise UsageError(f"none of the images can be read; {image}: {reason}", key="input")
        summary.label_auroc = labels.auroc()
        _write_json(summary, images.root, skipped, rows)
    summary.page = page.write(summary.num_images)
    return summary


def _append(whole: IO[bytes], content: bytes, number: int) -> None:
    """Add a table to another, its heading only once."""
    whole.write(content if number == 0 else content[content.index(b"\n") + 1 :])


class _FolderLabels:
    """Scores by what the names of folders say: a folder of normal images, and those beside it."""

    def __init__(self) -> None:
        self.scores: dict[PurePosixPath, array[float]] = {}

    def add(self, rows: Sequence[Row]) -> None:
        """Take the scores of some rows in."""
        for row in rows:
            if isinstance(row["score"], float):
                folder = PurePosixPath(str(row["image"])).parent
                self.scores.setdefault(folder, array("d")).append(row["score"])

    def auroc(self) -> float | None:
        """How well scores separate the folders; None if their names say nothing."""
        roles = Roles()
        says = {folder: roles.says(folder.name) for folder in self.scores}
        beside = {folder.parent for folder, label in says.items() if label == NORMAL}
        labels: list[int] = []
        scores: list[float] = []
        for folder, label in says.items():
            is_anomalous = label == ANOMALOUS or (label is None and folder.parent in beside)
            if label != NORMAL and (not is_anomalous or roles.is_mask(folder.name)):
                continue
            scores += self.scores[folder]
            labels += [int(is_anomalous)] * len(self.scores[folder])
        if len(set(labels)) < 2:
            return None
        return float(auroc(torch.tensor(scores, dtype=torch.float64), torch.tensor(labels)))


def _write_json(
    summary: PredictSummary, root: Path, skipped: "_JsonArray", rows: "_JsonArray"
) -> None:
    threshold = summary.threshold
    head = {
        "num_images": summary.num_images,
        "num_scored": summary.num_scored,
        "num_skipped": summary.num_skipped,
        "num_anomalous": summary.num_anomalous,
        "root": str(root),
        "image_auroc": summary.label_auroc,
        "processor": processor_name(),  # with the threads, decides the last bits of scores
        "threads": torch.get_num_threads(),
        "threshold": None if threshold is None else asdict(threshold),
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


MAX_ROWS = 5000
"""Images listed, at most: those with the highest scores."""
MAX_PICTURES = 400
"""Images shown with a thumbnail, at most; 10 kB each."""
STEPS = 1000
"""Steps of the threshold between 0 and 1."""


def thumbnail_of(overlay: str) -> str:
    """The thumbnail that belongs to an overlay; both are relative to the folder of all outputs.

    >>> thumbnail_of("overlays/left/1.png.jpg")
    'thumbnails/left/1.png.jpg'
    """
    return f"thumbnails/{overlay.partition('/')[2]}"


class PredictionsPage:
    """Collects rows and writes the page; memory does not grow with the number of images.

    Args:
        output: Folder of all outputs, which holds the thumbnails.
        threshold: What decided; the page starts there.
        scale: The colours of the overlays.
    """

    def __init__(self, output: Path, threshold: Threshold | None, scale: ColourScale) -> None:
        self.output, self.threshold, self.scale = output, threshold, scale
        self._edges = np.arange(STEPS + 1) / STEPS
        self._above = np.zeros(STEPS + 1, dtype=np.int64)
        self._highest: list[tuple[float, int, Row]] = []
        self._num_rows = self._num_scored = 0

    def add(self, rows: Sequence[Row]) -> None:
        """Take rows in."""
        scores = []
        for row in rows:
            self._num_rows += 1
            score = row["score"]
            if isinstance(score, float):
                scores.append(score)
                shown = {key: row.get(key) for key in ("image", "score", "regions", "overlay")}
                entry = (score, -self._num_rows, shown)
                if len(self._highest) < MAX_ROWS:
                    heapq.heappush(self._highest, entry)
                else:
                    heapq.heappushpop(self._highest, entry)
        ordered = np.sort(np.array(scores, dtype=np.float64))
        self._above += len(ordered) - np.searchsorted(ordered, self._edges, side="left")
        self._num_scored += len(ordered)

    def write(self, num_images: int) -> Path:
        """Write the page and return its path.

        Args:
            num_images: Images in the list, those that could not be read included.
        """
        listed = [row for _, _, row in sorted(self._highest, reverse=True)]
        data = {
            "rows": [self._entry(row, place) for place, row in enumerate(listed)],
            "above": self._above.tolist(),
            "scored": self._num_scored,
            "skipped": num_images - self._num_scored,
            "threshold": None if self.threshold is None else self.threshold.value,
            "how": self._how(),
        }
        # In a script of this type, only these characters could end it or begin another.
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
        head = (files("crane.pictures") / "page_head.html").read_text(encoding="utf-8")
        template = files("crane.prediction") / "templates" / "predictions.html"
        page = template.read_text(encoding="utf-8").replace("@head@", head)
        return write_text(
            self.output / "predictions.html",
            page.replace("@gradient@", self._gradient()).replace("@data@", text),
        )

    def _entry(self, row: Row, place: int) -> dict[str, object]:
        entry: dict[str, object] = {"name": row["image"], "score": row["score"]}
        if row.get("regions") is not None:
            entry["regions"] = row["regions"]
        overlay = row.get("overlay")
        if isinstance(overlay, str):
            entry["link"] = quote(overlay)
            file = self.output / thumbnail_of(overlay)
            if place < MAX_PICTURES and file.is_file():
                kind = "png" if file.suffix == ".png" else "jpeg"
                content = base64.b64encode(file.read_bytes()).decode()
                entry["picture"] = f"data:image/{kind};base64,{content}"
        return entry

    def _how(self) -> str:
        if self.threshold is None:
            return "No threshold was given; this one is the middle of the scale and means little."
        if self.threshold.false_alarm_rate is None:
            return "This threshold was given."
        return (
            "This threshold was calibrated on "
            f"{counted(self.threshold.num_normals or 0, 'normal image')} for a false-alarm rate of "
            f"{self.threshold.false_alarm_rate:g}."
        )

    def _gradient(self) -> str:
        stops = heat_map(
            np.linspace(self.scale.vmin, self.scale.vmax, 16, dtype=np.float32)[None], self.scale
        )[0]
        return ",".join("#" + bytes(stop.tolist()).hex() for stop in stops)
