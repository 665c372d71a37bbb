"""Reads images of any kind as 8-bit RGB, upright; without PyTorch."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from crane.errors import UsageError
from crane.files import is_remote, stand_in

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of an image, in pixels."""

MAX_16_BIT = 65535
TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""
UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    IndexError,
    struct.error,
    zlib.error,
)
"""What PIL's decoders raise on truncated files and on files that are not images."""


def read_rgb(
    path: str | Path, box: Box | None = None, *, white_level: int | None = None
) -> Image.Image:
    """Open an image as 8-bit RGB, upright.

    RGB, grey and CMYK files are converted by `PIL.Image.convert("RGB")`, as in the published
    evaluation. In addition, the EXIF orientation is applied (masks must fit the upright image),
    transparent images are composited on white, 16-bit grey is scaled by its white level, and float
    images must lie in [0, 1]. Only the first frame or page is read.

    Args:
        path: The image file.
        box: Left, top, right and bottom of the part to read of the upright image; None for all.
        white_level: The 16-bit value that is white, and all above it; None for 65535.

    Returns:
        An image of mode RGB.

    Raises:
        UsageError: The file is missing, unreadable, truncated, larger than PIL's limit against
            decompression bombs, smaller than the box, or its values have no known scale. Names
            the file.
    """
    with naming(path, "image"):
        return as_rgb(upright(path, box), path, white_level)


def as_rgb(image: Image.Image, name: str | Path, white_level: int | None = None) -> Image.Image:
    """Convert an opened, upright image to 8-bit RGB as `read_rgb` does.

    Args:
        image: Of any mode.
        name: What to call it in errors.
        white_level: The 16-bit value that is white, and all above it; None for 65535.

    Raises:
        UsageError: Its values have no known scale.
    """
    if is_deep(image):
        values: np.ndarray = np.asarray(image)
        grey = _eight_bits(values, name, white_level or MAX_16_BIT)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
        return _from_grey(grey)
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode == "F":
        return _from_grey(_eight_bits_of_unit(np.asarray(image), name))
    return image.convert("RGB")


@contextmanager
def naming(path: str | Path, kind: str) -> Iterator[None]:
    """Turn whatever fails while a file is opened into an error that names it."""
    try:
        if Path(path).exists() and not Path(path).is_file():  # a pipe would block
            raise UsageError(f"{kind} {path} is not a regular file")
        yield
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"there is no {kind} {path}") from None
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise UsageError(
            f"{kind} {path} has more than {limit:,} pixels; shrink it or cut it into tiles"
        ) from error
    except UNREADABLE as error:
        what = stand_in(Path(path)) if Path(path).is_file() else None
        told = re.sub(r" <_io\.BytesIO[^>]*>", "", str(error)) or type(error).__name__
        reason = told if what is None else f"it is {what}"
        raise UsageError(f"cannot read {kind} {path}: {reason}") from error


def upright(path: str | Path, box: Box | None) -> Image.Image:
    """Decode the first frame, apply its EXIF orientation and crop it to the box."""
    with Image.open(_opened(path)) as image:
        image.load()
        whole = ImageOps.exif_transpose(image)
    if box is None:
        return whole
    left, top, right, bottom = box
    if not (0 <= left < right <= whole.width and 0 <= top < bottom <= whole.height):
        raise UsageError(f"box {box} is not inside {path}, {whole.width} x {whole.height} pixels")
    return whole.crop(box)


def _opened(path: str | Path) -> Any:
    """What PIL opens; the content of an object in a store, which needs the whole of crane."""
    if not is_remote(path):
        return path
    from crane.data.lists import read_remote

    return read_remote(str(path))


def is_deep(image: Image.Image) -> bool:
    """Whether pixels have more than 8 bits."""
    return image.mode.startswith("I")


def _on_white(image: Image.Image) -> Image.Image:
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
    layer = image.convert(straight).convert("RGBA")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(layer)
    return page.convert("RGB")


def _eight_bits(values: np.ndarray, path: str | Path, white: int) -> np.ndarray:
    """Scale 16-bit values to 8 bits, rounded to the nearest; those above white are white."""
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > MAX_16_BIT:
        raise UsageError(
            f"{path} has pixel values from {lowest} to {highest}, expected 0 to {MAX_16_BIT}; "
            "save it with 8 or 16 bits per channel"
        )
    scaled = (np.minimum(values, white).astype(np.uint32) * 255 + white // 2) // white
    return scaled.astype(np.uint8)


def _eight_bits_of_unit(values: np.ndarray, path: str | Path) -> np.ndarray:
    """Scale values in [0, 1] to 8 bits, rounded to the nearest."""
    check_unit(values, path)
    return np.rint(values * 255).astype(np.uint8)


def check_unit(values: np.ndarray, path: str | Path) -> None:
    """Refuse floats outside [0, 1], NaN among them."""
    # Written so that NaN fails.
    if not (values.min() >= 0 and values.max() <= 1):
        raise UsageError(
            f"{path} has float pixels from {values.min()} to {values.max()}, expected 0 to 1; "
            "scale it, or save it with 8 or 16 bits per channel"
        )


def _from_grey(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values).convert("RGB")


def from_numbers(values: np.ndarray, name: str, white_level: int | None) -> Image.Image:
    """An array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as 8-bit RGB.

    Raises:
        UsageError: It is of another type, shape or range; names it.
    """
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    is_picture = values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))
    if not is_picture or 0 in values.shape:
        raise UsageError(f"{name} must have the shape (H, W, 3) or (H, W), not {values.shape}")
    if values.dtype == np.uint16:
        if values.ndim == 3:
            raise UsageError(f"{name} has 16 bits in several channels; divide it by 65535.0")
        return as_rgb(Image.fromarray(values), name, white_level)
    if np.issubdtype(values.dtype, np.floating):
        values = _levels(values, name)
    if values.dtype != np.uint8:
        raise UsageError(
            f"{name} must hold uint8, uint16 or floats from 0 to 1, not {values.dtype}"
        )
    return as_rgb(Image.fromarray(np.ascontiguousarray(values)), name, white_level)


def _levels(values: np.ndarray, name: str) -> Any:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # written so that NaN fails
        advice = "divide by 255" if 1 < high <= 255 and low >= 0 else "undo its normalisation"
        raise UsageError(f"{name} has floats from {low:g} to {high:g}, not from 0 to 1; {advice}")
    return np.rint(values.astype(np.float64) * 255).astype(np.uint8)
