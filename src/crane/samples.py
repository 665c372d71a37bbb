"""Labelled image files and masks, apart from `crane.types` so that listing them needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int32

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
    more_masks: tuple[Path, ...] = ()
    """Further masks of the same image, such as one a region, which are united with the first."""

    @property
    def masks(self) -> tuple[Path, ...]:
        """All mask files."""
        return self.more_masks if self.mask is None else (self.mask, *self.more_masks)

    def masked(self, masks: Sequence[Path]) -> "Sample":
        """The same sample with these masks."""
        return replace(self, mask=masks[0] if masks else None, more_masks=tuple(masks[1:]))


def label_regions(mask: Bool[np.ndarray, "H W"]) -> Int32[np.ndarray, "H W"]:
    """Label the 8-connected regions of a mask from 1 on, in reading order; 0 is normal.

    >>> label_regions(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=bool))
    array([[1, 0, 0],
           [0, 1, 0],
           [0, 0, 0],
           [0, 0, 2]], dtype=int32)
    """
    from scipy import ndimage

    regions, _ = ndimage.label(mask, structure=np.ones((3, 3), dtype=np.int8), output=np.int32)
    return regions
