"""What a test leaves for reports, beside its numbers: curves, scores, pictures."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from crane.errors import UsageError
from crane.files import replacing, write_json, write_text
from crane.metrics import Curve
from crane.pictures.overlays import heat_map, outlined, overlay
from crane.pictures.panels import Panel, PanelStyle
from crane.pictures.shortlist import RANKS, Shortlist
from crane.types import Sample

CURVES, SCORES, GALLERY = "curves.json", "scores.csv", "gallery"
"""Their names in a run's folder."""
NUM_POINTS = 200
"""Points kept of a curve: more than the eye tells apart in a figure."""
QUALITY = 82
"""Of the WebP pictures, a few kilobytes each."""

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "pro": "PRO",
        "image_roc": "image ROC",
        "image_pr": "image precision-recall",
        "pixel_roc": "pixel ROC",
        "pixel_pr": "pixel precision-recall",
    }
)
"""Kinds of curves, and what they are called."""

Curves = Mapping[str, Mapping[str, Sequence[Curve]]]
"""Data set to kind of curve to a curve a class."""


def write_curves(curves: Curves, classes: Mapping[str, Sequence[str]], path: Path) -> Path:
    """Write curves, thinned to `NUM_POINTS` points and five digits.

    Args:
        curves: of each data set; one without points, where it is not defined, is left out.
        classes: names of each data set's classes, in the order of its curves.
        path: the file.
    """
    content = {
        dataset: {
            kind: {
                name: _columns(curve.thinned(NUM_POINTS))
                for name, curve in zip(classes[dataset], lines, strict=True)
                if len(curve.x)
            }
            for kind, lines in kinds.items()
        }
        for dataset, kinds in curves.items()
    }
    return write_text(path, json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n")


def _columns(curve: Curve) -> dict[str, object]:
    x, y = (np.round(values.astype(float), 5).tolist() for values in (curve.x, curve.y))
    return {"x_name": curve.x_name, "y_name": curve.y_name, "x": x, "y": y}


def write_scores(
    found: Iterable[tuple[str, Sequence[Sample], Int[np.ndarray, " n"], Float[np.ndarray, " n"]],],
    path: Path,
) -> Path:
    """Write the score of every image that was tested, one row each.

    Args:
        found: name, samples, indices of those tested and their scores, of each data set.
        path: the file.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("dataset", "class", "defect", "label", "score", "image"))
    for dataset, samples, index, score in found:
        for number, value in zip(index.tolist(), score.tolist(), strict=True):
            one = samples[number]
            box = "" if one.box is None else f" {one.box}"
            table.writerow(
                (
                    dataset,
                    one.class_name,
                    one.defect,
                    one.label,
                    f"{value:.6g}",
                    f"{one.image}{box}",
                )
            )
    return write_text(path, text.getvalue())


@dataclass(frozen=True)
class Picture:
    """One entry of a run's gallery: image, overlay and map side by side in one file."""

    dataset: str
    class_name: str
    defect: str
    label: int
    score: float
    name: str
    """The image's file name."""
    choice: str
    """Why it is shown: best, worst or random."""
    file: str
    """The picture, below the gallery's folder."""


class GalleryKeeper:
    """Keeps the best, the worst and some random images of each class of one data set.

    Args:
        dataset: its name.
        style: colours and sizes.
        num_anomalous: anomalous images a class, of each choice.
        num_normal: normal images a class, of each choice.
    """

    def __init__(
        self, dataset: str, *, style: PanelStyle, num_anomalous: int, num_normal: int
    ) -> None:
        self.dataset, self.style = dataset, style
        self.lists = {
            choice: Shortlist(
                choose=choice,
                num_anomalous=num_anomalous,
                num_normal=num_normal,
                tile=style.tile,
            )
            for choice in RANKS
        }

    def add(
        self,
        sample: Sample,
        score: float,
        map: Float[Tensor, "H W"],
        mask: Int[Tensor, "H W"] | None = None,
    ) -> None:
        """Consider one sample; see `Shortlist.add`."""
        for shortlist in self.lists.values():
            shortlist.add(sample, score, map, mask)

    def close(self, folder: Path) -> list[Picture]:
        """Write the pictures into a gallery's folder, and forget them.

        An image chosen twice is one file.
        """
        files: dict[tuple[Path, object], str] = {}
        pictures = []
        for choice, shortlist in self.lists.items():
            for sample, panel, _ in shortlist.chosen():
                key = (sample.image, sample.box)
                if key not in files:
                    files[key] = f"{self.dataset}/{len(files):04d}.webp"
                    with replacing(folder / files[key]) as part:
                        Image.fromarray(_strip(panel, self.style)).save(part, quality=QUALITY)
                pictures.append(
                    Picture(
                        dataset=self.dataset,
                        class_name=sample.class_name,
                        defect=sample.defect,
                        label=sample.label,
                        score=panel.score,
                        name=sample.image.name,
                        choice=choice,
                        file=files[key],
                    )
                )
            shortlist.clear()
        return pictures


def _strip(panel: Panel, style: PanelStyle) -> UInt8[np.ndarray, "H W 3"]:
    """Image with the true region outlined, overlay, and map."""
    over = overlay(panel.image, panel.map, scale=style.scale, alpha=style.alpha)
    tiles = [panel.image, np.asarray(over), heat_map(panel.map, style.scale)]
    if panel.mask is not None:
        tiles[0] = outlined(tiles[0], panel.mask)
        tiles[2] = outlined(tiles[2], panel.mask)
    strip: np.ndarray = np.concatenate(tiles, axis=1)
    return strip


def write_gallery(pictures: Sequence[Picture], style: PanelStyle, folder: Path) -> Path:
    """Write what the pictures of a gallery show, and on which scale, beside them."""
    scale = asdict(style.scale)
    entries = [asdict(picture) for picture in pictures]
    return write_json(folder / "gallery.json", {"scale": scale, "pictures": entries})


def read_gallery(folder: Path) -> tuple[dict[str, object], list[Picture]]:
    """Read the scale and the entries of a gallery.

    Raises:
        UsageError: for a file that holds something else.
    """
    path = folder / "gallery.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return content["scale"], [Picture(**entry) for entry in content["pictures"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            "a gallery.json that a test wrote", str(path), hint=f"{error!r}"
        ) from error
