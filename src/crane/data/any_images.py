"""Images in memory, of any kind that Python users have, as RGB."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from crane.data.images import UNREADABLE, as_rgb, read_rgb
from crane.errors import UsageError
from crane_runtime.reading import from_numbers

AnyImage = str | Path | Image.Image | np.ndarray | Tensor
"""A file, a PIL image, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a tensor (3, H, W),
(1, H, W) or (H, W). Numbers are uint8 from 0 to 255, uint16 from 0 to 65535, or floats from 0 to 1.
"""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""What is decoded from bytes: Pillow's names of the formats whose files crane finds in folders."""


def is_one_image(images: object) -> bool:
    """Whether this is one image in memory rather than several.

    >>> is_one_image(np.zeros((9, 9, 3))), is_one_image(np.zeros((2, 9, 9, 3)))
    (True, False)
    """
    if isinstance(images, (np.ndarray, Tensor)):
        return images.ndim < 4
    return isinstance(images, Image.Image)


def any_rgb(image: object, name: str, *, white_level: int | None = None) -> Image.Image:
    """An image of any kind as 8-bit RGB, upright.

    Args:
        image: The image.
        name: What to call it in errors.
        white_level: The 16-bit value that is white; None for 65535.

    Returns:
        An image of mode RGB; floats are rounded to 256 levels, as files have.

    Raises:
        UsageError: It is of another type, shape or range, or a file that cannot be read.

    >>> any_rgb(np.full((2, 3), 0.5), "image 1").getpixel((0, 0))
    (128, 128, 128)
    """
    if isinstance(image, (str, Path)):
        return read_rgb(image, white_level=white_level)
    if isinstance(image, Image.Image):
        try:
            return as_rgb(ImageOps.exif_transpose(image), name, white_level)
        except OSError as error:  # opened lazily: a broken file shows here
            raise UsageError(f"cannot read {name}: {error}") from error
    if isinstance(image, Tensor):
        return from_numbers(_channels_last(image, name), name, white_level)
    if isinstance(image, np.ndarray):
        return from_numbers(image, name, white_level)
    raise UsageError(
        f"{name} must be a path, a PIL image, an array (H, W, 3) or a tensor (3, H, W), "
        f"not {type(image).__name__}"
    )


def rgb_from_bytes(
    content: bytes, name: str, *, max_pixels: int, white_level: int | None = None
) -> Image.Image:
    """Decode the bytes of an image file that someone else sent, as 8-bit RGB, upright.

    Args:
        content: A file in one of `FORMATS`.
        name: What to call it in errors.
        max_pixels: The size in its header is compared with this before anything is decoded.
        white_level: The 16-bit value that is white; None for 65535.

    Raises:
        UsageError: It is larger (its key is `max_pixels`), or no such image.

    >>> rgb_from_bytes(b"GIF89a", "upload", max_pixels=1)
    Traceback (most recent call last):
    crane.errors.UsageError: cannot read upload: it is not a PNG, JPEG, BMP, TIFF or WEBP image
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=FORMATS)
        width, height = image.size
        if width * height > max_pixels:
            size = f"{width:,} x {height:,} pixels"
            raise UsageError(f"{name} has {size}; max_pixels={max_pixels}", key="max_pixels")
        image.load()
        return as_rgb(ImageOps.exif_transpose(image), name, white_level)
    except Image.UnidentifiedImageError:
        known = " or ".join((", ".join(FORMATS[:-1]), FORMATS[-1]))
        raise UsageError(f"cannot read {name}: it is not a {known} image") from None
    except Image.DecompressionBombError as error:
        limit = f"{2 * (Image.MAX_IMAGE_PIXELS or 0)} pixels that Pillow decodes"
        raise UsageError(f"{name} is above the {limit}; shrink it", key="max_pixels") from error
    except UsageError:
        raise
    except UNREADABLE as error:
        raise UsageError(f"cannot read {name}: {error or type(error).__name__}") from error


def _channels_last(tensor: Tensor, name: str) -> np.ndarray:
    values = tensor.detach().cpu()
    values = values.float() if values.is_floating_point() else values  # numpy has no bfloat16
    if values.ndim == 3:
        if values.shape[0] not in (1, 3, 4):
            raise UsageError(
                f"{name} must be a tensor (3, H, W), not {tuple(values.shape)}; "
                "an array (H, W, 3) goes in as numpy"
            )
        values = values.permute(1, 2, 0)
    return values.numpy()
