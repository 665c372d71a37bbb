"""Opening images and masks of any kind, and bringing them to the model's size.

Published numbers rest on PIL: images are resized bicubically with its antialiasing while they are
still 8-bit, masks bilinearly and then cut at one half (spec: "Published evaluation").
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from crane.errors import UsageError

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of an image, in pixels."""

EXACT = "pil"
"""The resizer that published numbers rest on."""

_DEEP = 65535
_TURNED = (5, 6, 7, 8)
"""EXIF orientations that lay an image on its side."""
_UNREADABLE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    IndexError,
    struct.error,
    zlib.error,
)
"""What PIL's decoders raise on files that are cut short or are not what their name says."""


def read_rgb(path: str | Path, box: Box | None = None) -> Image.Image:
    """Open an image as 8-bit RGB, upright.

    RGB, grey and CMYK files become what `PIL.Image.convert("RGB")` makes of them, as in the
    published evaluation. Beyond these: the EXIF orientation is applied (masks must fit the upright
    image); transparent images are laid on white, not stripped of their alpha; 16-bit grey is scaled
    by its full range of 65535, and float images, which must lie in [0, 1], by 1. Of files with
    several frames or pages the first is taken.

    Args:
        path: the image file.
        box: the part wanted of the upright image; None for all of it.

    Returns:
        An image of mode RGB.

    Raises:
        UsageError: if the file is missing, unreadable, cut short, larger than PIL's limit against
            decompression bombs, smaller than the box, or of values that have no known scale. Names
            the file.
    """
    with _naming(path, "image"):
        image = _upright(path, box)
        if image.has_transparency_data:
            return _on_white(image)
        if _is_deep(image):
            return _from_grey(_eight_bits(np.asarray(image), path))
        if image.mode == "F":
            return _from_grey(_eight_bits_of_unit(np.asarray(image), path))
        return image.convert("RGB")


def read_mask(path: str | Path, threshold: int, box: Box | None = None) -> Bool[np.ndarray, "H W"]:
    """Open a mask: true where the luminance (PIL mode "L") exceeds a threshold.

    The published loaders use 0, so that masks holding defect ids (VisA: 1, 2, ...) and masks
    holding 255 both work; 127 suits masks stored as JPEG, whose compression rings around regions.
    16-bit masks are compared with 257 times the threshold, float masks with threshold / 255.

    Args:
        path: the mask file.
        threshold: 0 to 254, on the 8-bit scale.
        box: the part wanted of the upright mask; None for all of it.

    Returns:
        True on anomalous pixels, at the mask's own size, upright like its image.

    Raises:
        UsageError: as `read_rgb`.
    """
    with _naming(path, "mask"):
        mask = _upright(path, box)
        if _is_deep(mask):
            return np.asarray(mask) > threshold * (_DEEP // 255)
        if mask.mode == "F":
            values: np.ndarray = np.asarray(mask)
            _check_unit(values, path)
            return values > threshold / 255
        return np.asarray(mask.convert("L")) > threshold


def upright_size(path: str | Path, box: Box | None = None) -> tuple[int, int]:
    """Width and height of what `read_rgb` gives, from the file's header alone.

    Raises:
        UsageError: if the file is missing or no image.
    """
    if box is not None:
        return box[2] - box[0], box[3] - box[1]
    with _naming(path, "image"), Image.open(path) as image:
        is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) in _TURNED
        return (image.height, image.width) if is_turned else image.size


def image_to_tensor(
    image: Image.Image, size: int, resizer: str = EXACT
) -> Float[Tensor, "3 {size} {size}"]:
    """Resize an RGB image to a square, bicubic and antialiased, and scale it to [0, 1].

    With PIL, the same numbers as torchvision's `Resize` and `ToTensor` give on a PIL image. With
    torch's resizing of 8-bit images, much faster, they differ by two of 255 levels at most
    (measured in benchmarks/loading.md).

    Args:
        image: mode RGB.
        size: side S in pixels.
        resizer: one of `RESIZERS`.

    Returns:
        float32, not normalised: each tower does that for itself.
    """
    return RESIZERS[resizer](image, size).float() / 255


def _resized_by_pil(image: Image.Image, size: int) -> UInt8[Tensor, "3 {size} {size}"]:
    resized = image.resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def _resized_by_torch(image: Image.Image, size: int) -> UInt8[Tensor, "3 {size} {size}"]:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    resized = F.interpolate(pixels[None], (size, size), mode="bicubic", antialias=True)
    return resized[0].contiguous()


RESIZERS: Mapping[str, Callable[[Image.Image, int], Tensor]] = MappingProxyType(
    {EXACT: _resized_by_pil, "torch": _resized_by_torch}
)
"""Ways to resize images by name; the first is that of the published numbers."""


def resize_mask(
    mask: Bool[np.ndarray, "H W"], width: int, height: int
) -> Bool[np.ndarray, "{height} {width}"]:
    """Resize a mask, bilinear with PIL's antialiasing, and cut it at one half.

    A defect smaller than half a target pixel can vanish, as it does in the published evaluation.

    Args:
        mask: true on anomalous pixels.
        width: wanted, in pixels.
        height: wanted, in pixels.

    Returns:
        True on anomalous pixels.
    """
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) > 127


@contextmanager
def _naming(path: str | Path, kind: str) -> Iterator[None]:
    """Turn whatever goes wrong while a file is opened into an error that names it."""
    try:
        yield
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(f"a file to open as {kind}", f"nothing at {path}") from None
    except Image.DecompressionBombError as error:
        raise UsageError(
            f"an {kind} of at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels",
            f"{path}: {error}",
            hint="shrink it or cut it into tiles",
        ) from error
    except _UNREADABLE as error:
        raise UsageError(
            f"a whole, readable {kind} file", f"{path}: {error or type(error).__name__}"
        ) from error


def _upright(path: str | Path, box: Box | None) -> Image.Image:
    """Decode the first frame, apply its EXIF orientation and cut the box out."""
    with Image.open(path) as image:
        image.load()
        whole = ImageOps.exif_transpose(image)
    if box is None:
        return whole
    left, top, right, bottom = box
    if not (0 <= left < right <= whole.width and 0 <= top < bottom <= whole.height):
        raise UsageError(f"a box inside {path}, {whole.width} x {whole.height}", box)
    return whole.crop(box)


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I")


def _on_white(image: Image.Image) -> Image.Image:
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
    layer = image.convert(straight).convert("RGBA")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(layer)
    return page.convert("RGB")


def _eight_bits(values: np.ndarray, path: str | Path) -> UInt8[np.ndarray, "H W"]:
    """Bring 16-bit values to the 8-bit scale, to the nearest."""
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > _DEEP:
        raise UsageError(
            "whole-number pixels from 0 to 65535",
            f"{path}: {lowest} to {highest}",
            hint="save the image with 8 or 16 bits a channel",
        )
    return ((values.astype(np.uint32) * 255 + _DEEP // 2) // _DEEP).astype(np.uint8)


def _eight_bits_of_unit(values: np.ndarray, path: str | Path) -> UInt8[np.ndarray, "H W"]:
    """Bring values in [0, 1] to the 8-bit scale, to the nearest."""
    _check_unit(values, path)
    return np.rint(values * 255).astype(np.uint8)


def _check_unit(values: np.ndarray, path: str | Path) -> None:
    # Written so that a NaN fails it.
    if not (values.min() >= 0 and values.max() <= 1):
        raise UsageError(
            "float pixels in [0, 1]",
            f"{path}: {values.min()} to {values.max()}",
            hint="scale the image, or save it with 8 or 16 bits a channel",
        )


def _from_grey(values: UInt8[np.ndarray, "H W"]) -> Image.Image:
    return Image.fromarray(values).convert("RGB")
