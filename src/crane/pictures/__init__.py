"""Pictures of results: anomaly maps, overlays, panels and the galleries made of them."""

from crane.pictures.findings import (
    CURVES,
    GALLERY,
    KINDS,
    SCORES,
    GalleryKeeper,
    Picture,
    read_gallery,
    write_curves,
    write_gallery,
    write_scores,
)
from crane.pictures.maps import read_map, resize_map, save_map
from crane.pictures.overlays import ColourScale, colour_bar, heat_map, outlined, overlay
from crane.pictures.panels import Panel, PanelStyle, draw_panel, gallery
from crane.pictures.writer import OverlayWriter

__all__ = [
    "CURVES",
    "GALLERY",
    "KINDS",
    "SCORES",
    "ColourScale",
    "GalleryKeeper",
    "OverlayWriter",
    "Panel",
    "PanelStyle",
    "Picture",
    "colour_bar",
    "draw_panel",
    "gallery",
    "heat_map",
    "outlined",
    "overlay",
    "read_gallery",
    "read_map",
    "resize_map",
    "save_map",
    "write_curves",
    "write_gallery",
    "write_scores",
]
