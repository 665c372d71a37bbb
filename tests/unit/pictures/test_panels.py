from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from crane.errors import UsageError
from crane.pictures.overlays import heat_map
from crane.pictures.panels import (
    GAP,
    OverlayOptions,
    Panel,
    draw_tiles,
    gallery_sheet,
    make_panel,
    panel_sheet,
)


@pytest.fixture
def options(make_options: Callable[..., OverlayOptions]) -> OverlayOptions:
    return make_options(tile=80, num_columns=3)


def panel_of(height: int, width: int, value: float = 0.3, caption: str = "nut / bent") -> Panel:
    return make_panel(
        Image.new("RGB", (width, height), (120, 120, 120)),
        np.full((37, 37), value, dtype=np.float32),
        0.625,
        caption,
        np.zeros((37, 37), dtype=bool),
        tile=80,
    )


def sheet_of(panel: Panel, options: OverlayOptions) -> Image.Image:
    return panel_sheet(panel, draw_tiles(panel, options), options)


@pytest.mark.parametrize(("height", "width"), [(60, 60), (300, 100), (100, 300), (1, 1), (2, 900)])
def test_any_image_shape_fits_a_panel(height: int, width: int, options: OverlayOptions) -> None:
    sheet = sheet_of(panel_of(height, width), options)
    assert sheet.width == 3 * 80 + 2 * GAP
    assert sheet.height <= 80 + 20


def test_the_third_tile_is_the_map_in_the_colour_of_the_scale(options: OverlayOptions) -> None:
    pixels = np.asarray(sheet_of(panel_of(50, 50, value=0.8), options))
    wanted = heat_map(np.full((1, 1), 0.8, np.float32), options.scale)[0, 0]
    assert np.array_equal(pixels[40, 2 * (80 + GAP) + 40], wanted)


def test_small_regions_survive_shrinking() -> None:
    mask = np.zeros((1000, 1000), dtype=bool)
    mask[501, 733] = True
    image = Image.new("RGB", (1000, 1000))
    panel = make_panel(image, np.zeros((37, 37), np.float32), 0.5, "", mask, tile=80)
    assert panel.mask is not None
    assert panel.mask.sum() == 1
    assert panel.mask[40, 58]


def test_a_sheet_holds_all_panels_and_long_captions(options: OverlayOptions) -> None:
    panels = [panel_of(50, 50 + 30 * n, caption="x" * 20 * n) for n in range(5)]
    sheets = [sheet_of(panel, options) for panel in panels]
    one = gallery_sheet(sheets[:1], options, title="one")
    five = gallery_sheet(sheets, options, title="five")
    assert five.width > 2.5 * one.width
    assert five.height > one.height
    with pytest.raises(UsageError, match="at least one panel"):
        gallery_sheet([], options, title="none")
