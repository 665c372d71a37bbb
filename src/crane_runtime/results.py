"""What a model says about one image, and the rules that decide; numpy and pillow only."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np
from PIL import Image

from crane_runtime.reading import read_rgb


@dataclass(frozen=True)
class Threshold:
    """Images that score `value` or more are called anomalous.

    >>> Threshold(0.5).is_anomalous(0.5)
    True
    """

    PIXEL: ClassVar[float] = 0.5
    """The pixel threshold unless one is calibrated: damage is likelier than not."""

    value: float
    """The lowest score that raises an alarm."""
    false_alarm_rate: float | None = None
    """The rate of false alarms it was calibrated for; None for a threshold that was given."""
    num_normals: int | None = None
    """How many normal images it was calibrated on."""
    pixel_value: float = PIXEL
    """The lowest probability with which a pixel belongs to an anomalous region; calibrated so that
    a normal image has such pixels at most as often as false alarms are wanted."""

    def is_anomalous(self, score: float) -> bool:
        """Whether a score raises an alarm."""
        return score >= self.value


@dataclass(frozen=True)
class Region:
    """A connected part of an image whose pixels lie at or above the pixel threshold."""

    box: tuple[int, int, int, int]
    """Left, top, right and bottom in pixels; right and bottom lie just outside."""
    area: int
    """Pixels in it."""
    peak: float
    """The highest probability in it."""


@dataclass(frozen=True, eq=False)
class Result:
    """Score, map and regions of one image."""

    score: float
    """Anomaly score in [0, 1]; it orders images, and means more beside a calibrated threshold."""
    map: np.ndarray
    """Anomaly probability of each pixel, (H, W), float32, at the size of the upright image."""
    threshold: Threshold | None
    """What decides; None until a threshold is given or calibrated."""
    path: str | None = None
    """The file, if the image was one."""
    source: Image.Image | None = field(default=None, repr=False)
    """The image as RGB, if it was in memory."""

    @property
    def is_anomalous(self) -> bool | None:
        """Whether the score reaches the threshold; None without one."""
        return None if self.threshold is None else self.threshold.is_anomalous(self.score)

    @property
    def pixel_threshold(self) -> float:
        """The probability from which pixels belong to a region: calibrated, or one half."""
        return Threshold.PIXEL if self.threshold is None else self.threshold.pixel_value

    @cached_property
    def mask(self) -> np.ndarray:
        """The pixels at or above the pixel threshold, (H, W), bool."""
        reached: np.ndarray = self.map >= self.pixel_threshold
        return reached

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The 8-connected regions of the mask, the highest peak first."""
        return find_regions(self.map, self.pixel_threshold)

    @property
    def image(self) -> Image.Image:
        """The upright image as RGB; a file is read again, since keeping it takes memory."""
        return self.source if self.source is not None else read_rgb(str(self.path))


def find_regions(map: np.ndarray, threshold: float) -> tuple[Region, ...]:
    """Find the 8-connected regions of a map, those with the highest peak first.

    Args:
        map: Anomaly probabilities (H, W).
        threshold: Pixels with at least this probability belong to a region.

    >>> map = np.zeros((4, 6), dtype=np.float32)
    >>> map[1:3, 1:3], map[0, 5] = 0.75, 0.5
    >>> find_regions(map, 0.5)
    (Region(box=(1, 1, 3, 3), area=4, peak=0.75), Region(box=(5, 0, 6, 1), area=1, peak=0.5))
    """
    edges = np.diff(np.pad(map >= threshold, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    _, stops = np.nonzero(edges == -1)
    if not len(rows):
        return ()
    root = _joined(rows, starts, stops, map.shape[1] + 2)
    ends = np.stack([rows * map.shape[1] + starts, rows * map.shape[1] + stops], axis=1).ravel()
    values = np.append(map.ravel(), map.min())  # the last run may end where the map ends
    peaks = np.maximum.reduceat(values, ends)[::2]
    found = []
    order = np.argsort(root, kind="stable")
    for runs in np.split(order, np.flatnonzero(np.diff(root[order])) + 1):
        left, top = int(starts[runs].min()), int(rows[runs].min())
        right, bottom = int(stops[runs].max()), int(rows[runs].max()) + 1
        area = int((stops[runs] - starts[runs]).sum())
        found.append(Region((left, top, right, bottom), area, float(peaks[runs].max())))
    return tuple(sorted(found, key=lambda region: (-region.peak, -region.area, region.box)))


def _joined(rows: np.ndarray, starts: np.ndarray, stops: np.ndarray, width: int) -> np.ndarray:
    """For each run of pixels, the first run of its region; runs lie in reading order."""
    begins, ends = rows * width + starts, rows * width + stops
    # Runs of the row above touch if they end at or after the start, and start at or before the end.
    first = np.searchsorted(ends, begins - width, side="left")
    last = np.searchsorted(begins, ends - width, side="right")
    counts = np.maximum(last - first, 0)
    below = np.repeat(np.arange(len(rows)), counts)
    above = np.arange(len(below)) - np.repeat(np.cumsum(counts) - counts, counts)
    above += np.repeat(first, counts)
    root = np.arange(len(rows))
    while True:  # every round at least halves the number of roots that meet
        one, other = root[below], root[above]
        lowest = np.minimum(one, other)
        joined = root.copy()
        np.minimum.at(joined, one, lowest)
        np.minimum.at(joined, other, lowest)
        while not np.array_equal(jumped := joined[joined], joined):
            joined = jumped
        if (joined == root).all():
            return root
        root = joined
