import numpy as np
import pytest

from crane.errors import UsageError
from crane.pictures.overlays import ColourScale, heat_map
from crane.pictures.panels import GAP, Panel, PanelStyle, draw_panel, gallery

STYLE = PanelStyle(ColourScale(0.0, 1.0, "inferno"), alpha=0.7, tile=80)


def make_panel(height: int, width: int, value: float = 0.3, caption: str = "nut / bent") -> Panel:
    return Panel(
        image=np.full((height, width, 3), 120, dtype=np.uint8),
        map=np.full((37, 37), value, dtype=np.float32),
        score=0.625,
        caption=caption,
        mask=np.zeros((37, 37), dtype=bool),
    )


@pytest.mark.parametrize(("height", "width"), [(60, 60), (300, 100), (100, 300), (1, 1), (2, 900)])
def test_any_image_shape_fits_a_panel(height: int, width: int) -> None:
    sheet = draw_panel(make_panel(height, width), STYLE)
    assert sheet.width == 3 * 80 + 2 * GAP
    assert sheet.height <= 80 + 20


def test_the_third_tile_is_the_map_in_the_scales_colour() -> None:
    pixels = np.asarray(draw_panel(make_panel(50, 50, value=0.8), STYLE))
    wanted = heat_map(np.full((1, 1), 0.8, np.float32), STYLE.scale)[0, 0]
    assert np.array_equal(pixels[40, 2 * (80 + GAP) + 40], wanted)


def test_small_regions_survive_shrinking() -> None:
    panel = make_panel(1000, 1000)
    mask = np.zeros((1000, 1000), dtype=bool)
    mask[501, 733] = True
    shrunk = Panel(panel.image, panel.map, 0.5, "", mask).shrunk(80)
    assert shrunk.mask is not None
    assert shrunk.mask.sum() == 1
    assert shrunk.mask[40, 58]


def test_gallery_holds_all_panels_and_long_captions() -> None:
    panels = [make_panel(50, 50 + 30 * n, caption="x" * 20 * n) for n in range(5)]
    one = gallery(panels[:1], STYLE, num_columns=3, title="one")
    five = gallery(panels, STYLE, num_columns=3, title="five")
    assert five.width > 2.5 * one.width
    assert five.height > one.height
    with pytest.raises(UsageError, match="at least one panel"):
        gallery([], STYLE, num_columns=3, title="none")
