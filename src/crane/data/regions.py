"""Numbering the regions of a mask, done in the workers that load it."""

import numpy as np
from jaxtyping import Bool, Int32
from scipy import ndimage

_NEIGHBOURS = np.ones((3, 3), dtype=np.int8)


def label_regions(mask: Bool[np.ndarray, "H W"]) -> Int32[np.ndarray, "H W"]:
    """Label the 8-connected regions of a mask from 1 on, in reading order; 0 is normal.

    >>> label_regions(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 1]], dtype=bool))
    array([[1, 0, 0],
           [0, 1, 0],
           [0, 0, 0],
           [0, 0, 2]], dtype=int32)
    """
    regions, _ = ndimage.label(mask, structure=_NEIGHBOURS, output=np.int32)
    return regions
