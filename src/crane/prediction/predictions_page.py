"""`predictions.html`: every verdict of a prediction in one file, with a threshold to move."""

import base64
import heapq
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from urllib.parse import quote

import numpy as np

from crane.errors import counted
from crane.files import write_text
from crane.pictures import ColourScale, heat_map
from crane.prediction.calibration import Threshold
from crane.prediction.table import Row

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
