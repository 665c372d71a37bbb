"""Pictures of results: anomaly maps, overlays, panels and the galleries made of them."""

from typing import TYPE_CHECKING, Any

from crane.pictures.findings import (
    CURVES,
    GALLERY,
    KINDS,
    SCORES,
    Picture,
    read_gallery,
    write_curves,
    write_gallery,
    write_scores,
)
from crane.pictures.overlays import ColourScale, colour_bar, heat_map, outlined, overlay

if TYPE_CHECKING:
    from crane.pictures.gallery import Gallery
    from crane.pictures.maps import png_map, read_map, resize_map, save_map
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
    "png_map",
    "read_gallery",
    "read_map",
    "resize_map",
    "save_map",
    "write_curves",
    "write_gallery",
    "write_scores",
]


def __getattr__(name: str) -> Any:
    """Import what needs torch on first use; reports do without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from crane.pictures import gallery, maps, panels

    return next(getattr(one, name) for one in (gallery, maps, panels) if hasattr(one, name))
