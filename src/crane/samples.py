"""Labelled image files, apart from `crane.types` so that listing them does not import torch."""

from dataclasses import dataclass
from pathlib import Path

NORMAL, ANOMALOUS = 0, 1
"""Image labels, and the order of the two text embeddings."""


@dataclass(frozen=True)
class Sample:
    """One image of a data set, before it is opened."""

    image: Path
    """The image file."""
    label: int
    """`NORMAL` or `ANOMALOUS`."""
    class_name: str
    """The object or texture shown; metrics are computed per class, then averaged."""
    defect: str = "good"
    """Kind of defect, `good` for normal images."""
    mask: Path | None = None
    """Mask file; None for a normal image, and if the place of the defect is not known."""
    box: tuple[int, int, int, int] | None = None
    """The part of both files that is the image, in pixels of the upright file: left, top, right and
    bottom; None for all of it."""
