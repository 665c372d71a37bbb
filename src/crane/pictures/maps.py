"""Anomaly maps as files, and at other sizes."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image

from crane.errors import UsageError
from crane.files import write_bytes

LEVELS = 65535
"""Steps of a 16-bit map between 0 and 1: a map read back is at most 0.5 / 65535 off."""


def resize_map(
    map: Float[np.ndarray, "h w"], height: int, width: int
) -> Float[np.ndarray, "{height} {width}"]:
    """Resize a map bilinearly; where it shrinks, pixels are averaged.

    >>> resize_map(np.array([[0.0, 1.0]], dtype=np.float32), 1, 4).tolist()
    [[0.0, 0.25, 0.75, 1.0]]
    >>> resize_map(np.array([[0.0, 1.0, 0.0, 1.0]], dtype=np.float32), 1, 1).tolist()
    [[0.5]]
    """
    if map.shape == (height, width):
        return map
    grid = torch.from_numpy(np.ascontiguousarray(map))[None, None]
    resized = F.interpolate(
        grid, size=(height, width), mode="bilinear", align_corners=False, antialias=True
    )
    # Weights that sum to one up to rounding may leave [0, 1] by one float.
    bounded: np.ndarray = resized[0, 0].clamp(float(map.min()), float(map.max())).numpy()
    return bounded


def stored_map(map: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """A map as `read_map` gives it after `save_map` wrote it as PNG."""
    stored: np.ndarray = np.empty(map.shape, dtype=np.float32)
    for rows in _bands(map):
        stored[rows] = np.rint(map[rows].astype(np.float64) * LEVELS) / LEVELS
    return stored


def _bands(map: Float[np.ndarray, "H W"]) -> Iterator[slice]:
    """Bands of rows, so that temporary copies stay small however large a map is."""
    return (slice(top, top + 512) for top in range(0, len(map), 512))


def save_map(map: Float[np.ndarray, "H W"], path: Path) -> Path:
    """Write a map as 16-bit grey PNG (0 to 65535 stand for 0 to 1) or as float32 `.npy`.

    Args:
        map: Anomaly probabilities from 0 to 1.
        path: The file; its suffix, `.png` or `.npy`, chooses the format.

    Returns:
        The path written.

    Raises:
        UsageError: The suffix is another one, or values are not from 0 to 1 (NaN among them).
    """
    low, high = float(map.min()), float(map.max())
    if not (low >= 0 and high <= 1):  # written so that NaN fails it
        raise UsageError(f"the map for {path.name} must lie from 0 to 1, not from {low} to {high}")
    if _is_png(path):
        return write_bytes(path, png_map(map))
    content = io.BytesIO()  # numpy's own error of a full disk does not say what it is
    np.save(content, map.astype(np.float32))
    return write_bytes(path, content.getvalue())


def png_map(map: Float[np.ndarray, "H W"]) -> bytes:
    """A map as the content of a 16-bit grey PNG, in which 0 to 65535 stand for 0 to 1."""
    levels, content = np.empty(map.shape, dtype=np.uint16), io.BytesIO()
    for rows in _bands(map):
        levels[rows] = np.rint(map[rows].astype(np.float64) * LEVELS)
    # Level 1 is five times faster than the default and a few per cent larger on smooth maps.
    Image.fromarray(levels).save(content, "png", compress_level=1)
    return content.getvalue()


def read_map(path: Path) -> Float[np.ndarray, "H W"]:
    """Read a map that `save_map` wrote.

    Returns:
        float32 values from 0 to 1; exact from `.npy`, within 0.5 / 65535 from `.png`.

    Raises:
        UsageError: The file is not such a map.
    """
    if _is_png(path):
        with Image.open(path) as image:
            if not image.mode.startswith("I"):
                raise UsageError(f"{path} is not a map: its mode is {image.mode}, not 16-bit grey")
            return (np.asarray(image).astype(np.float64) / LEVELS).astype(np.float32)
    map: np.ndarray = np.load(path, allow_pickle=False)
    if map.ndim != 2 or map.dtype != np.float32:
        raise UsageError(
            f"{path} is not a map: it holds {map.dtype} of shape {map.shape}, not a float32 image"
        )
    return map


def _is_png(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in (".png", ".npy"):
        raise UsageError(f"unknown map format {path.name}; maps end in .png or .npy")
    return suffix == ".png"
