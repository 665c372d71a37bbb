"""Panels that show one image with its overlay and map, and sheets of panels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw

from crane.checks import Fraction, NonNegativeInt, PositiveInt, checked
from crane.errors import UsageError
from crane.pictures.maps import resize_map
from crane.pictures.overlays import (
    INK,
    PAPER,
    ColourScale,
    colour_bar,
    fitted,
    font,
    heat_map,
    outlined,
    overlay,
)

COLUMNS = ("image", "overlay, true region outlined", "map")
"""What the three tiles of a panel show."""
GAP = 6
"""Pixels between the tiles of a panel."""


@checked
@dataclass(frozen=True)
class PerClass:
    """How many images of each class are shown."""

    num_anomalous: NonNegativeInt
    """Anomalous images of each class."""
    num_normal: NonNegativeInt
    """Normal images of each class."""


@checked
@dataclass(frozen=True)
class OverlayOptions:
    """How maps are shown, and which test images: the values of `conf/overlay`."""

    scale: ColourScale
    """The fixed colour scale."""
    alpha: Fraction
    """Opacity of the highest colour of an overlay."""
    choose: Literal["random", "best", "worst"]
    """Which test images are drawn: `random` ones (by name, the same in every run), or the `best` or
    `worst` by score, given the label."""
    num_anomalous: NonNegativeInt
    """Anomalous images of each class."""
    num_normal: NonNegativeInt
    """Normal images of each class."""
    tile: PositiveInt
    """Longer side of a tile in pixels."""
    num_columns: PositiveInt
    """Panels in a row of a sheet."""
    gallery: PerClass
    """Images kept for reports: this many of the best, of the worst and of random ones."""


@dataclass(frozen=True)
class Panel:
    """One image, its mask, map and score, at the size of a tile."""

    image: UInt8[np.ndarray, "H W 3"]
    """RGB."""
    map: Float[np.ndarray, "H W"]
    """Anomaly probabilities."""
    score: float
    """Anomaly score of the image."""
    caption: str
    """What the image is, such as its class and defect."""
    mask: Bool[np.ndarray, "H W"] | None = None
    """True region; None where it is not known."""


def make_panel(
    image: Image.Image,
    map: Float[np.ndarray, "h w"],
    score: float,
    caption: str,
    mask: Bool[np.ndarray, "g f"] | None = None,
    *,
    tile: int,
) -> Panel:
    """Resize an image so that its longer side is `tile`, and its map and mask with it.

    A region keeps at least one pixel, however small it becomes.

    Args:
        image: RGB, of any size.
        map: Anomaly probabilities, of any size.
        score: Anomaly score of the image.
        caption: What the image is.
        mask: True region, of any size; None where it is not known.
        tile: In pixels.
    """
    factor = tile / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    if mask is not None:
        covered = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
        mask = np.asarray(covered) > (0 if factor < 1 else 0.5)
    small = np.asarray(image.resize(size, Image.Resampling.LANCZOS))
    return Panel(small, resize_map(map, size[1], size[0]), score, caption, mask)


class Tiles(NamedTuple):
    """The drawn parts of a panel, each of its size."""

    image: UInt8[np.ndarray, "H W 3"]
    overlay: UInt8[np.ndarray, "H W 3"]
    map: UInt8[np.ndarray, "H W 3"]
    """With the true region outlined."""


def draw_tiles(panel: Panel, options: OverlayOptions) -> Tiles:
    """Draw the parts of a panel, from which `panel_sheet` and `strip` put pictures together."""
    over = overlay(panel.image, panel.map, scale=options.scale, alpha=options.alpha)
    return Tiles(panel.image, over, outlined(heat_map(panel.map, options.scale), panel.mask))


def strip(panel: Panel, tiles: Tiles) -> Image.Image:
    """Image with the true region outlined, overlay and map, side by side without a caption."""
    image = outlined(tiles.image, panel.mask)
    return Image.fromarray(np.concatenate([image, tiles.overlay, tiles.map], axis=1))


def panel_sheet(panel: Panel, tiles: Tiles, options: OverlayOptions) -> Image.Image:
    """Image, overlay and map side by side, with caption and score below.

    All sheets drawn with the same options have the same width; narrow images are centred.
    """
    text = font(max(10, options.tile // 14))
    line = round(1.8 * text.size)
    height, tile_width = panel.image.shape[:2]
    width = 3 * options.tile + 2 * GAP
    sheet = Image.new("RGB", (width, height + line), PAPER)
    drawn = (tiles.image, outlined(tiles.overlay, panel.mask), tiles.map)
    for place, tile in enumerate(drawn):
        x = place * (options.tile + GAP) + (options.tile - tile_width) // 2
        sheet.paste(Image.fromarray(tile), (x, 0))
    draw = ImageDraw.Draw(sheet)
    score = f"score {panel.score:.3f}"
    caption = fitted(panel.caption, text, width - 2 * GAP - text.getlength(score))
    draw.text((0, height + line // 2), caption, INK, text, anchor="lm")
    draw.text((width, height + line // 2), score, INK, text, anchor="rm")
    return sheet


def gallery_sheet(
    sheets: Sequence[Image.Image], options: OverlayOptions, *, title: str
) -> Image.Image:
    """Arrange panels in a grid below a title, above the colour bar that they share.

    Args:
        sheets: As `panel_sheet` draws them.
        options: What they were drawn with.
        title: Heading, such as the name of the data set.

    Raises:
        UsageError: There is no panel.
    """
    if not sheets:
        raise UsageError("a gallery needs at least one panel")
    num = options.num_columns
    rows = [sheets[start : start + num] for start in range(0, len(sheets), num)]
    heights = [max(one.height for one in row) for row in rows]
    width, margin = sheets[0].width, options.tile // 8
    head = _head(title, options, num_columns=len(rows[0]), width=width, margin=margin)
    bar = colour_bar(options.scale, width=width)
    total = head.height + sum(heights) + margin * (len(rows) + 1) + bar.height
    page = Image.new("RGB", (head.width, total), PAPER)
    page.paste(head, (0, 0))
    y = head.height
    for row, height in zip(rows, heights, strict=True):
        for column, one in enumerate(row):
            page.paste(one, (margin + column * (width + margin), y))
        y += height + margin
    page.paste(bar, ((page.width - bar.width) // 2, y))
    return page


def _head(
    title: str, options: OverlayOptions, *, num_columns: int, width: int, margin: int
) -> Image.Image:
    large, small = font(max(12, options.tile // 8)), font(max(9, options.tile // 16))
    height = round(2.2 * large.size + 2 * small.size)
    sheet = Image.new("RGB", (num_columns * (width + margin) + margin, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, round(1.1 * large.size)), title, INK, large, anchor="lm")
    for column in range(num_columns):
        for place, name in enumerate(COLUMNS):
            x = margin + column * (width + margin) + place * (options.tile + GAP)
            draw.text((x + options.tile // 2, height - small.size), name, INK, small, anchor="mm")
    return sheet
