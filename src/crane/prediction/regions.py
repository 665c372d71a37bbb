"""Anomalous regions of a map: where they are, how large, and how sure."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from crane.samples import label_regions


@dataclass(frozen=True)
class Region:
    """A connected part of an image whose pixels lie at or above the pixel threshold."""

    box: tuple[int, int, int, int]
    """Left, top, right and bottom in pixels; right and bottom lie just outside."""
    area: int
    """Pixels in it."""
    peak: float
    """The highest probability in it."""


def find_regions(map: Float[np.ndarray, "H W"], threshold: float) -> tuple[Region, ...]:
    """Find the 8-connected regions of a map, those with the highest peak first.

    Args:
        map: Anomaly probabilities.
        threshold: Pixels with at least this probability belong to a region.

    >>> map = np.zeros((4, 6), dtype=np.float32)
    >>> map[1:3, 1:3], map[0, 5] = 0.75, 0.5
    >>> find_regions(map, 0.5)
    (Region(box=(1, 1, 3, 3), area=4, peak=0.75), Region(box=(5, 0, 6, 1), area=1, peak=0.5))
    """
    from scipy import ndimage

    labels = label_regions(map >= threshold)
    areas = np.bincount(labels.ravel())
    found = []
    for number, place in enumerate(ndimage.find_objects(labels), start=1):
        rows, columns = place
        peak = float(map[place][labels[place] == number].max())
        box = (columns.start, rows.start, columns.stop, rows.stop)
        found.append(Region(box, int(areas[number]), peak))
    return tuple(sorted(found, key=lambda region: (-region.peak, -region.area, region.box)))
