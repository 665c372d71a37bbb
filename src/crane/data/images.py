"""Reads images and masks of any kind and resizes them to the model's input size.

Published numbers rest on PIL: images are resized bicubically with its antialiasing while still
8-bit, masks bilinearly and then thresholded at one half (spec: "Published evaluation").
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from crane.data.filenames import first_few
from crane.errors import UsageError
from crane.files import stand_in
from crane.samples import label_regions as label_regions

Box = tuple[int, int, int, int]
"""Left, top, right and bottom of a part of an image, in pixels."""

EXACT = "pil"
"""The resizer that published numbers rest on."""

_MAX_16_BIT = 65535
_TURNED = (5, 6, 7, 8)
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
    with _naming(path, "image"):
        return as_rgb(_upright(path, box), path, white_level)


def as_rgb(image: Image.Image, name: str | Path, white_level: int | None = None) -> Image.Image:
    """Convert an opened, upright image to 8-bit RGB as `read_rgb` does.

    Args:
        image: Of any mode.
        name: What to call it in errors.
        white_level: The 16-bit value that is white, and all above it; None for 65535.

    Raises:
        UsageError: Its values have no known scale.
    """
    if _is_deep(image):
        values: np.ndarray = np.asarray(image)
        grey = _eight_bits(values, name, white_level or _MAX_16_BIT)
        if "transparency" in image.info:
            grey[values == image.info["transparency"]] = 255
        return _from_grey(grey)
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode == "F":
        return _from_grey(_eight_bits_of_unit(np.asarray(image), name))
    return image.convert("RGB")


def read_mask(
    path: str | Path | Sequence[Path],
    threshold: int,
    box: Box | None = None,
    *,
    values: str = "luminance",
    invert: bool = False,
) -> Bool[np.ndarray, "H W"]:
    """Open a mask: true where the luminance (PIL mode "L") exceeds a threshold.

    The published loaders use 0, so that masks holding defect ids (VisA: 1, 2, ...) and masks
    holding 255 both work; 127 suits masks stored as JPEG, whose compression rings around regions.
    16-bit masks are compared with 257 times the threshold, float masks with threshold / 255.

    Args:
        path: The mask file, or several of one image, which are united.
        threshold: 0 to 254, on the 8-bit scale.
        box: The part to read of the upright mask; None for all.
        values: What is compared with the threshold (`crane.data.index.MaskValues`).
        invert: Whether the mask marks what is normal.

    Returns:
        True on anomalous pixels, at the mask's own size, upright like its image.

    Raises:
        UsageError: As in `read_rgb`; or the mask has no such values, or masks of one image differ
            in size.
    """
    return (mask_levels(path, box, values, invert=invert) > threshold) != invert


def mask_levels(
    path: str | Path | Sequence[Path], box: Box | None, values: str, *, invert: bool = False
) -> np.ndarray:
    """The values of a mask on the scale from 0 to 255; arguments and errors as in `read_mask`.

    Of several masks, the most anomalous value of each pixel.
    """
    if isinstance(path, (str, Path)):
        return _levels(path, box, values)
    masks = [_levels(file, box, values) for file in path]
    if len({mask.shape for mask in masks}) > 1:
        raise UsageError(f"masks of one image differ in size: {first_few(map(str, path))}")
    return np.minimum.reduce(masks) if invert else np.maximum.reduce(masks)


def _levels(path: str | Path, box: Box | None, values: str) -> np.ndarray:
    with _naming(path, "mask"):
        mask = _upright(path, box)
        if values == "alpha" and not mask.has_transparency_data:
            raise UsageError(f"mask {path} has no alpha channel; change mask_values")
        if values == "index" and mask.mode != "P":
            raise UsageError(f"mask {path} has no palette; change mask_values")
        if values == "alpha":
            return np.asarray(mask.convert("RGBA").getchannel("A"))
        if values == "index":
            return np.asarray(mask)
        if _is_deep(mask):
            return np.asarray(mask) / (_MAX_16_BIT // 255)
        if mask.mode == "F":
            floats: np.ndarray = np.asarray(mask)
            _check_unit(floats, path)
            return np.round(floats.astype(np.float64) * 255, 3)
        if values == "brightest":
            return np.asarray(mask.convert("RGB")).max(axis=-1)
        return np.asarray(mask.convert("L"))


def upright_size(path: str | Path, box: Box | None = None) -> tuple[int, int]:
    """Width and height of what `read_rgb` returns, from the file's header alone.

    Raises:
        UsageError: The file is missing or not an image.
    """
    if box is not None:
        return box[2] - box[0], box[3] - box[1]
    with _naming(path, "image"), Image.open(path) as image:
        if image.getexif().get(ExifTags.Base.Orientation, 1) not in _TURNED:
            return image.size
        if image.format == "TIFF":  # some versions of PIL turn it themselves
            image.load()
            return ImageOps.exif_transpose(image).size
        return image.height, image.width


def image_to_tensor(
    image: Image.Image, size: int, resizer: str = EXACT
) -> Float[Tensor, "3 {size} {size}"]:
    """Resize an RGB image to a square, antialiased, and scale it to [0, 1].

    With PIL, the result equals that of torchvision's `Resize` and `ToTensor` on a PIL image.
    Torch's resizing of 8-bit images is much faster and differs by at most two of 255 levels
    (measured in benchmarks/loading.md).

    Args:
        image: Of mode RGB.
        size: Side in pixels.
        resizer: One of `RESIZERS`.

    Returns:
        float32, not normalised, since each tower has its own mean and standard deviation.
    """
    return RESIZERS[resizer](image, size).float() / 255


def _resized_by_pil(
    image: Image.Image, size: int, kernel: Image.Resampling = Image.Resampling.BICUBIC
) -> UInt8[Tensor, "3 {size} {size}"]:
    resized = image.resize((size, size), kernel)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


def _resized_by_torch(image: Image.Image, size: int) -> UInt8[Tensor, "3 {size} {size}"]:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    resized = F.interpolate(pixels[None], (size, size), mode="bicubic", antialias=True)
    return resized[0].contiguous()


RESIZERS: Mapping[str, Callable[[Image.Image, int], Tensor]] = MappingProxyType(
    {
        EXACT: _resized_by_pil,
        "pil_bilinear": partial(_resized_by_pil, kernel=Image.Resampling.BILINEAR),
        "torch": _resized_by_torch,
    }
)
"""Ways to resize images, by name; published numbers rest on the first, AnoVL's on the second."""


def resize_mask(
    mask: Bool[np.ndarray, "H W"], width: int, height: int
) -> Bool[np.ndarray, "{height} {width}"]:
    """Resize a mask, bilinear with PIL's antialiasing, and threshold it at one half.

    A defect smaller than half a target pixel can vanish, as it does in the published evaluation.

    Args:
        mask: True on anomalous pixels.
        width: Of the result, in pixels.
        height: Of the result, in pixels.

    Returns:
        True on anomalous pixels.
    """
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) > 127


@contextmanager
def _naming(path: str | Path, kind: str) -> Iterator[None]:
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
        reason = error or type(error).__name__ if what is None else f"it is {what}"
        raise UsageError(f"cannot read {kind} {path}: {reason}") from error


def _upright(path: str | Path, box: Box | None) -> Image.Image:
    """Decode the first frame, apply its EXIF orientation and crop it to the box."""
    with Image.open(path) as image:
        image.load()
        whole = ImageOps.exif_transpose(image)
    if box is None:
        return whole
    left, top, right, bottom = box
    if not (0 <= left < right <= whole.width and 0 <= top < bottom <= whole.height):
        raise UsageError(f"box {box} is not inside {path}, {whole.width} x {whole.height} pixels")
    return whole.crop(box)


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith("I")


def _on_white(image: Image.Image) -> Image.Image:
    straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)
    layer = image.convert(straight).convert("RGBA")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(layer)
    return page.convert("RGB")


def _eight_bits(values: np.ndarray, path: str | Path, white: int) -> UInt8[np.ndarray, "H W"]:
    """Scale 16-bit values to 8 bits, rounded to the nearest; those above white are white."""
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > _MAX_16_BIT:
        raise UsageError(
            f"{path} has pixel values from {lowest} to {highest}, expected 0 to {_MAX_16_BIT}; "
            "save it with 8 or 16 bits per channel"
        )
    scaled = (np.minimum(values, white).astype(np.uint32) * 255 + white // 2) // white
    return scaled.astype(np.uint8)


def _eight_bits_of_unit(values: np.ndarray, path: str | Path) -> UInt8[np.ndarray, "H W"]:
    """Scale values in [0, 1] to 8 bits, rounded to the nearest."""
    _check_unit(values, path)
    return np.rint(values * 255).astype(np.uint8)


def _check_unit(values: np.ndarray, path: str | Path) -> None:
    # Written so that NaN fails.
    if not (values.min() >= 0 and values.max() <= 1):
        raise UsageError(
            f"{path} has float pixels from {values.min()} to {values.max()}, expected 0 to 1; "
            "scale it, or save it with 8 or 16 bits per channel"
        )


def _from_grey(values: UInt8[np.ndarray, "H W"]) -> Image.Image:
    return Image.fromarray(values).convert("RGB")
