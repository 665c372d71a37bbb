"""Maps as colours, on one fixed scale.

A map is never stretched to its own lowest and highest value: the same probability has the same
colour in every picture, so that pictures of different images and methods can be compared.
"""

from dataclasses import dataclass
from functools import lru_cache

import matplotlib
import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from crane.errors import UsageError

OUTLINE = (0, 229, 255)
"""Colour of a mask's outline: cyan, which no value of inferno, magma or cividis comes near."""
INK, PAPER = (38, 38, 38), (255, 255, 255)


@dataclass(frozen=True)
class ColourScale:
    """Which probability gets which colour.

    Raises:
        UsageError: for an empty or reversed range or an unknown colour map.

    >>> ColourScale(vmin=0.0, vmax=1.0, colormap="inferno").position(np.float32([[0.25, 2.0]]))
    array([[0.25, 1.  ]], dtype=float32)
    """

    vmin: float
    """Probability of the first colour; what lies below has it too."""
    vmax: float
    """Probability of the last colour; what lies above has it too."""
    colormap: str
    """Name of a matplotlib colour map."""

    def __post_init__(self) -> None:
        if not self.vmin < self.vmax:
            raise UsageError(
                "a colour scale with vmin below vmax",
                (self.vmin, self.vmax),
                key="overlay.scale.vmin or overlay.scale.vmax",
            )
        if self.colormap not in matplotlib.colormaps:
            raise UsageError(
                "a matplotlib colour map such as inferno, magma, cividis or viridis",
                self.colormap,
                key="overlay.scale.colormap",
            )

    def position(self, map: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
        """Where each value lies between the first colour (0) and the last (1)."""
        return np.clip((map - self.vmin) / (self.vmax - self.vmin), 0, 1)


def heat_map(map: Float[np.ndarray, "H W"], scale: ColourScale) -> UInt8[np.ndarray, "H W 3"]:
    """Colour a map; a value's colour depends on the value and the scale alone.

    Raises:
        UsageError: for NaN and infinity, which have no colour.
    """
    if not np.isfinite(map).all():
        raise UsageError("a map of finite values", f"{int((~np.isfinite(map)).sum())} that are not")
    steps = np.rint(scale.position(map) * 255).astype(np.uint8)
    return _colours(scale.colormap)[steps]


def overlay(
    image: UInt8[np.ndarray, "H W 3"],
    map: Float[np.ndarray, "H W"],
    *,
    scale: ColourScale,
    alpha: float,
    mask: Bool[np.ndarray, "H W"] | None = None,
) -> Image.Image:
    """Lay a coloured map over its image.

    The colours' opacity grows from 0 at the scale's start to `alpha` at its end: what is normal
    stays visible as it is, and the dark end of a colour map does not darken the picture.

    Args:
        image: RGB.
        map: anomaly probabilities at the image's size (see `resize_map`).
        scale: the fixed colour scale.
        alpha: opacity of the highest colour, in [0, 1].
        mask: true region, drawn as an outline where given.

    Raises:
        UsageError: for an opacity outside [0, 1] and a map that is not finite.
    """
    if not 0 <= alpha <= 1:
        raise UsageError("an opacity in [0, 1]", alpha, key="overlay.alpha")
    opacity = np.rint(255 * alpha * scale.position(map)).astype(np.uint8)
    # PIL blends in place of numpy, whose temporaries take a gigabyte for a photograph of 24 MP.
    shown = Image.composite(
        Image.fromarray(heat_map(map, scale)), Image.fromarray(image), Image.fromarray(opacity)
    )
    return shown if mask is None else Image.fromarray(outlined(np.asarray(shown), mask))


def outlined(
    image: UInt8[np.ndarray, "H W 3"], mask: Bool[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw a line around a region, just outside it, cyan with a dark edge.

    The line is wide enough to be seen when the picture is looked at whole.
    """
    width = max(1, round(max(mask.shape) / 150))
    # A round neighbourhood, so that a region of a few pixels gets a ring and not a square.
    near = ndimage.distance_transform_edt(~mask) if mask.any() else np.full(mask.shape, np.inf)
    drawn = image.copy()
    drawn[(near > width) & (near <= 2 * width)] = OUTLINE
    drawn[(near > 2 * width) & (near <= 2 * width + max(1, width // 2))] = INK
    return drawn


def colour_bar(
    scale: ColourScale, *, width: int, label: str = "anomaly probability"
) -> Image.Image:
    """Draw the scale: the colours with the values at their ends and middle, and a label."""
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
    """Give DejaVu Sans, which comes with matplotlib and knows most alphabets."""
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)


@lru_cache
def _colours(colormap: str) -> np.ndarray:
    colours = matplotlib.colormaps[colormap](np.linspace(0, 1, 256))[:, :3]
    return np.rint(colours * 255).astype(np.uint8)
