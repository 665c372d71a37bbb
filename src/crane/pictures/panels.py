"""Panels of one image each, and galleries of panels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from crane.errors import UsageError
from crane.pictures.maps import resize_map
from crane.pictures.overlays import (
    INK,
    PAPER,
    ColourScale,
    colour_bar,
    font,
    heat_map,
    outlined,
    overlay,
)

COLUMNS = ("image", "overlay, true region outlined", "map")
"""What the three tiles of a panel show."""
GAP = 6
"""Pixels between the tiles of a panel."""


@dataclass(frozen=True)
class PanelStyle:
    """How panels look: values that belong in the configuration."""

    scale: ColourScale
    """The fixed colour scale."""
    alpha: float
    """Opacity of the highest colour of an overlay."""
    tile: int
    """Longer side of a tile in pixels."""


@dataclass(frozen=True)
class Panel:
    """One image, its mask, map and score, small enough to be kept until a gallery is drawn.

    Masks and maps may have any size: they are brought to the tile's.
    """

    image: UInt8[np.ndarray, "H W 3"]
    """RGB."""
    map: Float[np.ndarray, "h w"]
    """Anomaly probabilities."""
    score: float
    """Anomaly score of the image."""
    caption: str
    """What the image is, such as its class and defect."""
    mask: Bool[np.ndarray, "g f"] | None = None
    """True region; None where it is not known."""

    def shrunk(self, tile: int) -> "Panel":
        """Give the same panel with an image whose longer side is `tile`, and mask and map to it.

        A region keeps at least one pixel, however small it becomes.
        """
        height, width = self.image.shape[:2]
        factor = tile / max(height, width)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        image = Image.fromarray(self.image).resize(size, Image.Resampling.LANCZOS)
        mask = self.mask
        if mask is not None:
            covered = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
            mask = np.asarray(covered) > (0 if factor < 1 else 0.5)
        map = resize_map(self.map, size[1], size[0])
        return Panel(np.asarray(image), map, self.score, self.caption, mask)


def draw_panel(panel: Panel, style: PanelStyle) -> Image.Image:
    """Draw image, overlay and map side by side, with caption and score below.

    Every panel of a style has the same width; narrow images are centred in their tiles.
    """
    small = panel.shrunk(style.tile)
    over = overlay(small.image, small.map, scale=style.scale, alpha=style.alpha, mask=small.mask)
    tiles = [small.image, np.asarray(over), heat_map(small.map, style.scale)]
    if small.mask is not None:
        tiles[2] = outlined(tiles[2], small.mask)

    text = font(max(10, style.tile // 14))
    line = round(1.8 * text.size)
    height, tile_width = small.image.shape[:2]
    width = 3 * style.tile + 2 * GAP
    sheet = Image.new("RGB", (width, height + line), PAPER)
    for place, tile in enumerate(tiles):
        x = place * (style.tile + GAP) + (style.tile - tile_width) // 2
        sheet.paste(Image.fromarray(tile), (x, 0))
    draw = ImageDraw.Draw(sheet)
    score = f"score {panel.score:.3f}"
    room = width - 2 * GAP - draw.textlength(score, text)
    caption = _fitting(panel.caption, room, draw, text)
    draw.text((0, height + line // 2), caption, INK, text, anchor="lm")
    draw.text((width, height + line // 2), score, INK, text, anchor="rm")
    return sheet


def gallery(
    panels: Sequence[Panel], style: PanelStyle, *, num_columns: int, title: str
) -> Image.Image:
    """Draw panels in a grid under one title, over the one colour bar they share.

    Raises:
        UsageError: when there is no panel.
    """
    if not panels:
        raise UsageError("at least one panel for a gallery", 0)
    drawn = [draw_panel(panel, style) for panel in panels]
    rows = [drawn[start : start + num_columns] for start in range(0, len(drawn), num_columns)]
    heights = [max(one.height for one in row) for row in rows]
    width, margin = drawn[0].width, style.tile // 8
    head = _head(title, style, num_columns=len(rows[0]), width=width, margin=margin)
    bar = colour_bar(style.scale, width=width)
    total = head.height + sum(heights) + margin * (len(rows) + 1) + bar.height
    sheet = Image.new("RGB", (head.width, total), PAPER)
    sheet.paste(head, (0, 0))
    y = head.height
    for row, height in zip(rows, heights, strict=True):
        for column, one in enumerate(row):
            sheet.paste(one, (margin + column * (width + margin), y))
        y += height + margin
    sheet.paste(bar, ((sheet.width - bar.width) // 2, y))
    return sheet


def _head(
    title: str, style: PanelStyle, *, num_columns: int, width: int, margin: int
) -> Image.Image:
    large, small = font(max(12, style.tile // 8)), font(max(9, style.tile // 16))
    height = round(2.2 * large.size + 2 * small.size)
    sheet = Image.new("RGB", (num_columns * (width + margin) + margin, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((margin, round(1.1 * large.size)), title, INK, large, anchor="lm")
    for column in range(num_columns):
        for place, name in enumerate(COLUMNS):
            x = margin + column * (width + margin) + place * (style.tile + GAP) + style.tile // 2
            draw.text((x, height - small.size), name, INK, small, anchor="mm")
    return sheet


def _fitting(
    text: str, room: float, draw: ImageDraw.ImageDraw, face: ImageFont.FreeTypeFont
) -> str:
    if draw.textlength(text, face) <= room:
        return text
    while text and draw.textlength(text + "…", face) > room:
        text = text[:-1]
    return text + "…"
