"""What a test leaves for reports beside its metrics: curves, scores and the list of pictures."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int

from crane.checks import checked
from crane.errors import UsageError
from crane.files import csv_text, write_json, write_text
from crane.metrics.counts import Curve
from crane.pictures.overlays import ColourScale
from crane.samples import Sample

CURVES, SCORES, GALLERY = "curves.json", "scores.csv", "gallery"
"""Their names in the folder of a run; `gallery.json` in the folder `gallery` lists the pictures."""
NUM_POINTS = 200
"""Points kept of a curve: more than the eye tells apart in a figure."""

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "pro": "PRO",
        "image_roc": "image ROC",
        "image_pr": "image precision-recall",
        "pixel_roc": "pixel ROC",
        "pixel_pr": "pixel precision-recall",
    }
)
"""Kinds of curves with their titles."""

Curves = Mapping[str, Mapping[str, Sequence[Curve]]]
"""Data set to kind of curve to the curves of its classes."""


def write_curves(curves: Curves, classes: Mapping[str, Sequence[str]], path: Path) -> Path:
    """Write curves, thinned to `NUM_POINTS` points and five digits.

    Args:
        curves: The curves of each data set; undefined ones, which have no points, are left out.
        classes: Names of the classes of each data set, in the order of its curves.
        path: The file.
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
    found: Iterable[tuple[str, Sequence[Sample], Int[np.ndarray, " _"], Float[np.ndarray, " _"]]],
    path: Path,
) -> Path:
    """Write the score of every image tested, one row each.

    Args:
        found: For each data set its name, its samples, the indices of those tested and their
            scores.
        path: The file.
    """
    rows: list[tuple[object, ...]] = [("dataset", "class", "defect", "label", "score", "image")]
    for dataset, samples, index, score in found:
        for number, value in zip(index.tolist(), score.tolist(), strict=True):
            one = samples[number]
            image = str(one.image) if one.box is None else f"{one.image} {one.box}"
            facts = (dataset, one.class_name, one.defect, one.label)
            rows.append((*facts, f"{value:.6g}", image))
    return write_text(path, csv_text(rows))


@checked
@dataclass(frozen=True)
class Picture:
    """An entry of `gallery.json`: image, overlay and map side by side in one file."""

    dataset: str
    class_name: str
    defect: str
    label: int
    score: float
    name: str
    """File name of the image."""
    choice: str
    """Why it is shown: best, worst or random."""
    file: str
    """The picture, relative to the folder of the gallery."""


def write_gallery(pictures: Sequence[Picture], scale: ColourScale, folder: Path) -> Path:
    """Write the list of the pictures in a folder, and the colour scale that they share."""
    entries = [asdict(picture) for picture in pictures]
    return write_json(folder / "gallery.json", {"scale": asdict(scale), "pictures": entries})


def read_gallery(folder: Path) -> tuple[dict[str, object], list[Picture]]:
    """Read the scale and the entries of a gallery.

    Raises:
        UsageError: The file holds something else.
    """
    path = folder / "gallery.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pictures = [Picture(**entry) for entry in content["pictures"]]
        return asdict(ColourScale(**content["scale"])), pictures
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"cannot read the gallery {path}: {error!r}") from error
