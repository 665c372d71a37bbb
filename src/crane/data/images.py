"""Reads images and masks of any kind, in files and memory, and resizes them to the model's size.

Published numbers rest on PIL: images are resized bicubically with its antialiasing while still
8-bit, masks bilinearly and then thresholded at one half (spec: "Published evaluation").
"""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
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
from crane.samples import label_regions as label_regions
from crane_runtime.reading import (
    MAX_16_BIT,
    TURNED,
    Box,
    check_unit,
    from_numbers,
    is_deep,
    naming,
    upright,
)
from crane_runtime.reading import UNREADABLE as UNREADABLE
from crane_runtime.reading import as_rgb as as_rgb
from crane_runtime.reading import read_rgb as read_rgb

EXACT = "pil"
"""The resizer that published numbers rest on."""


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
    with naming(path, "mask"):
        mask = upright(path, box)
        if values == "alpha" and not mask.has_transparency_data:
            raise UsageError(f"mask {path} has no alpha channel; change mask_values")
        if values == "index" and mask.mode != "P":
            raise UsageError(f"mask {path} has no palette; change mask_values")
        if values == "alpha":
            return np.asarray(mask.convert("RGBA").getchannel("A"))
        if values == "index":
            return np.asarray(mask)
        if is_deep(mask):
            return np.asarray(mask) / (MAX_16_BIT // 255)
        if mask.mode == "F":
            floats: np.ndarray = np.asarray(mask)
            check_unit(floats, path)
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
    with naming(path, "image"), Image.open(path) as image:
        if image.getexif().get(ExifTags.Base.Orientation, 1) not in TURNED:
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
