"""What a test leaves for reports beside its metrics: curves, and the score of each image."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int

from crane.files import write_text
from crane.metrics import Curve
from crane.types import Sample

CURVES, SCORES = "curves.json", "scores.csv"
"""Their names in the folder of a run."""
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
    found: Iterable[tuple[str, Sequence[Sample], Int[np.ndarray, " n"], Float[np.ndarray, " n"]]],
    path: Path,
) -> Path:
    """Write the score of every image tested, one row each.

    Args:
        found: For each data set its name, its samples, the indices of those tested and their
            scores.
        path: The file.
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("dataset", "class", "defect", "label", "score", "image"))
    for dataset, samples, index, score in found:
        for number, value in zip(index.tolist(), score.tolist(), strict=True):
            one = samples[number]
            image = str(one.image) if one.box is None else f"{one.image} {one.box}"
            facts = (dataset, one.class_name, one.defect, one.label)
            table.writerow((*facts, f"{value:.6g}", image))
    return write_text(path, text.getvalue())
