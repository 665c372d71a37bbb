"""Pictures of results: anomaly maps, overlays, panels and the galleries made of them."""

from crane.pictures.findings import CURVES, KINDS, SCORES, write_curves, write_scores
from crane.pictures.gallery import GALLERY, Gallery, Picture, read_gallery, write_gallery
from crane.pictures.maps import read_map, resize_map, save_map
from crane.pictures.overlays import ColourScale, colour_bar, heat_map, outlined, overlay
from crane.pictures.panels import OverlayOptions, Panel, PerClass

__all__ = [
    "CURVES",
    "GALLERY",
    "KINDS",
    "SCORES",
    "ColourScale",
    "Gallery",
    "OverlayOptions",
    "Panel",
    "PerClass",
    "Picture",
    "colour_bar",
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
