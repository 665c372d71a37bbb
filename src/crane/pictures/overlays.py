"""Anomaly maps as colours on one fixed scale, with or without contour and verdict.

A map is never stretched to its own minimum and maximum: the same probability has the same colour in
every picture, so that pictures of different images and methods can be compared.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from crane.checks import Fraction, checked, shown
from crane.errors import UsageError

OUTLINE = (0, 229, 255)
"""Colour of a mask's outline: cyan, which no value of inferno, magma or cividis comes near."""
INK, PAPER = (38, 38, 38), (255, 255, 255)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@checked
@dataclass(frozen=True)
class ColourScale:
    """Assigns a colour to each probability.

    Raises:
        UsageError: The range is empty or reversed, or the colour map is unknown.

    >>> ColourScale(vmin=0.0, vmax=1.0, colormap="inferno").position(np.float32([[0.25, 2.0]]))
    array([[0.25, 1.  ]], dtype=float32)
    """

    vmin: float
    """Probability shown in the first colour; lower ones share it."""
    vmax: float
    """Probability shown in the last colour; higher ones share it."""
    colormap: str
    """Name of a matplotlib colour map."""

    def __post_init__(self) -> None:
        from matplotlib import colormaps  # half a second, needed only where pictures are drawn

        if not self.vmin < self.vmax:
            raise UsageError(
                f"overlay.scale.vmin must be below overlay.scale.vmax, not {self.vmin} "
                f"and {self.vmax}",
                key="overlay.scale.vmin",
            )
        if self.colormap not in colormaps:
            raise UsageError(
                f"unknown colour map {shown(self.colormap)}; choose inferno, magma, cividis, "
                "viridis or another of matplotlib's",
                key="overlay.scale.colormap",
            )

    def position(self, map: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
        """Position of each value between the first colour (0) and the last (1)."""
        return np.clip((map - self.vmin) / (self.vmax - self.vmin), 0, 1)


def heat_map(map: Float[np.ndarray, "H W"], scale: ColourScale) -> UInt8[np.ndarray, "H W 3"]:
    """Colour a map; the colour of a value depends on the value and the scale alone.

    Raises:
        UsageError: The map holds NaN or infinity.
    """
    if not np.isfinite(map).all():
        raise UsageError(
            f"the map holds {int((~np.isfinite(map)).sum())} values of NaN or infinity"
        )
    steps = np.rint(scale.position(map) * 255).astype(np.uint8)
    return _colours(scale.colormap)[steps]


@checked
def overlay(
    image: UInt8[np.ndarray, "H W 3"],
    map: Float[np.ndarray, "H W"],
    *,
    scale: ColourScale,
    alpha: Fraction,
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay a coloured map over its image.

    The opacity of the colours grows from 0 at the start of the scale to `alpha` at its end: normal
    regions stay visible as they are, and the dark end of a colour map does not darken the picture.

    Args:
        image: RGB.
        map: Anomaly probabilities at the size of the image (see `resize_map`).
        scale: The fixed colour scale.
        alpha: Opacity of the highest colour.

    Raises:
        UsageError: `alpha` is not from 0 to 1, or the map holds NaN or infinity.
    """
    opacity = np.rint(255 * alpha * scale.position(map)).astype(np.uint8)
    # PIL blends instead of numpy, whose temporaries take a gigabyte for a photograph of 24 MP.
    colours = Image.fromarray(heat_map(map, scale))
    blended = Image.composite(colours, Image.fromarray(image), Image.fromarray(opacity))
    return np.asarray(blended)


def outlined(
    image: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"] | None
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a line around a region, just outside it, cyan with a dark edge.

    The line is wide enough to be visible when the whole picture is shown. Without a mask the image
    is returned as it is.
    """
    if mask is None:
        return image
    from scipy import ndimage

    width = max(1, round(max(mask.shape) / 150))
    # Distances give a region of a few pixels a ring; dilation would give it a square.
    near = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    drawn = image.copy()
    drawn[(near > width) & (near <= 2 * width)] = OUTLINE
    drawn[(near > 2 * width) & (near <= 2 * width + max(1, width // 2))] = INK
    return drawn


def colour_bar(
    scale: ColourScale, *, width: int, label: str = "anomaly probability"
) -> Image.Image:
    """Draw the scale: its colours, the values at both ends and in the middle, and a label."""
    text = font(max(11, width // 40))
    line = round(1.5 * text.size)
    bar = np.linspace(scale.vmin, scale.vmax, width, dtype=np.float32)[None].repeat(line, axis=0)
    strip = Image.new("RGB", (width, 3 * line + line // 2), PAPER)
    draw = ImageDraw.Draw(strip)
    draw.text((width // 2, line // 2), label, INK, text, anchor="mm")
    strip.paste(Image.fromarray(heat_map(bar, scale)), (0, line))
    middle = (scale.vmin + scale.vmax) / 2
    for value, x, anchor in (
        (scale.vmin, 0, "lm"),
        (middle, width // 2, "mm"),
        (scale.vmax, width, "rm"),
    ):
        draw.text((x, 2 * line + 3 * line // 4), f"{value:.3g}", INK, text, anchor=anchor)
    return strip


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and covers most alphabets.

    Args:
        size: In pixels.
    """
    from matplotlib import get_data_path

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


def fitted(text: str, face: Font, width: float) -> str:
    """Cut a text with an ellipsis if it is wider than `width` pixels."""
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@lru_cache
def _colours(colormap: str) -> UInt8[np.ndarray, "256 3"]:
    from matplotlib import colormaps

    colours = colormaps[colormap](np.linspace(0, 1, 256))[:, :3]
    return np.rint(colours * 255).astype(np.uint8)


MIN_WIDTH = 320
"""Pixels that the texts need; narrower pictures stand in the middle."""
ALARM, CLEAR, OPEN = (192, 38, 45), (24, 122, 66), (84, 84, 84)
"""Colours of the verdicts anomalous, normal, and none without a threshold; white reads on each."""


def contoured(
    image: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a cyan line with a dark edge just outside the regions of a mask.

    >>> mask = np.zeros((7, 7), dtype=bool)
    >>> mask[3, 3] = True
    >>> contoured(np.zeros((7, 7, 3), np.uint8), mask)[3, :, 2].tolist()
    [0, 38, 255, 0, 255, 38, 0]
    """
    from scipy import ndimage

    if not mask.any():
        return image
    width = max(1, round(math.sqrt(mask.size) / 250))
    # Squares in place of distances: some hundred times faster on photographs of 24 MP.
    near = ndimage.maximum_filter(mask, size=2 * width + 1)
    edge = ndimage.maximum_filter(near, size=2 * max(1, width // 2) + 1)
    drawn = image.copy()
    drawn[edge & ~near] = INK
    drawn[near & ~mask] = OUTLINE
    return drawn


def verdict_text(score: float, threshold: float | None) -> str:
    """What a score says.

    >>> verdict_text(0.713, 0.5), verdict_text(0.713, None)
    ('anomalous: score 0.713, threshold 0.5', 'score 0.713, no threshold')
    """
    if threshold is None:
        return f"score {score:.3f}, no threshold"
    verdict = "anomalous" if score >= threshold else "normal"
    return f"{verdict}: score {score:.3f}, threshold {threshold:.3g}"


def with_verdict(
    picture: Image.Image, score: float, threshold: float | None, scale: ColourScale
) -> Image.Image:
    """Put a strip with the verdict and the colour bar below a picture, which stays as it is.

    Args:
        picture: An overlay.
        score: Anomaly score of the image.
        threshold: Scores from here on are called anomalous; None decides nothing.
        scale: What the colours of the overlay mean.
    """
    width = max(MIN_WIDTH, picture.width)
    text = font(min(64, max(13, round(width / 42))))  # a scan may be 60,000 pixels wide and 2 high
    line = round(1.9 * text.size)
    sheet = Image.new("RGB", (width, picture.height + 2 * line), PAPER)
    sheet.paste(picture, ((width - picture.width) // 2, 0))
    draw, top = ImageDraw.Draw(sheet), picture.height
    colour = OPEN if threshold is None else ALARM if score >= threshold else CLEAR
    draw.rectangle((0, top, width, top + line - 1), fill=colour)
    said = fitted(verdict_text(score, threshold), text, width - 2 * text.size)
    draw.text((text.size, top + line // 2), said, PAPER, text, anchor="lm")
    small, middle = font(max(11, round(text.size * 0.85))), top + line + line // 2
    low, high = f"{scale.vmin:.3g}", f"probability {scale.vmax:.3g}"
    left = text.size + small.getlength(low) + small.size
    right = width - text.size - small.getlength(high) - small.size
    draw.text((text.size, middle), low, INK, small, anchor="lm")
    draw.text((width - text.size, middle), high, INK, small, anchor="rm")
    length, height = max(1, round(right - left)), max(4, line // 3)
    bar = np.linspace(scale.vmin, scale.vmax, length, dtype=np.float32)[None].repeat(height, 0)
    sheet.paste(Image.fromarray(heat_map(bar, scale)), (round(left), middle - height // 2))
    return sheet


def side_by_side(image: Image.Image, drawn: Image.Image, side: int) -> Image.Image:
    """An image beside its overlay, each shrunk or enlarged to a longer side of `side` pixels."""
    factor = side / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    sheet = Image.new("RGB", (2 * size[0] + 2, size[1]), PAPER)
    for place, one in enumerate((image, drawn)):
        small = one.resize(size, Image.Resampling.BICUBIC, reducing_gap=2)
        sheet.paste(small, (place * (size[0] + 2), 0))
    return sheet
