"""The pictures that prediction writes: maps and overlays at the image's own size."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from crane.data.images import read_rgb
from crane.errors import UsageError
from crane.files import replacing
from crane.pictures import ColourScale, colour_bar, overlay, save_map
from crane.prediction.inputs import ImageList

SUFFIXES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "maps": {"png": ".png", "npy": ".npy"},
        "overlays": {"jpg": ".jpg", "png": ".png"},
    }
)
"""Formats of each kind of picture; `none` leaves it out."""

Sink = Callable[[ImageList, str, np.ndarray], Path]
"""Writes one picture: the images, the path of one and its map at its own size, to the file written,
relative to the output folder."""


@dataclass(frozen=True)
class OutputOptions:
    """What is written beside the scores.

    Raises:
        UsageError: for an unknown format.
    """

    maps: str
    """`png` (16 bits: 0 to 65535 stand for 0 to 1), `npy` (float32) or `none`."""
    overlays: str
    """`jpg`, `png` or `none`."""
    scale: ColourScale
    """Colours of the overlays, the same for all images."""
    alpha: float
    """Opacity of the highest colour of an overlay, in [0, 1]."""

    def __post_init__(self) -> None:
        for kind, formats in SUFFIXES.items():
            chosen = getattr(self, kind)
            if chosen not in (*formats, "none"):
                raise UsageError(f"{', '.join(formats)} or none", chosen, key=kind)

    @property
    def kinds(self) -> list[str]:
        """The kinds of pictures written, as columns of the table name them."""
        chosen = {"map": self.maps, "overlay": self.overlays}
        return [kind for kind, format in chosen.items() if format != "none"]

    def sinks(self, folder: Path) -> dict[str, Sink]:
        """Give what writes each kind of picture below a folder, by the kind's name."""
        sinks: dict[str, Sink] = {}
        if self.maps != "none":
            sinks["map"] = MapSink(folder, SUFFIXES["maps"][self.maps])
        if self.overlays != "none":
            suffix = SUFFIXES["overlays"][self.overlays]
            sinks["overlay"] = OverlaySink(folder, suffix, self.scale, self.alpha)
        return sinks


@dataclass(frozen=True)
class MapSink:
    """Maps below `maps/`."""

    folder: Path
    suffix: str

    def __call__(self, images: ImageList, path: str, map: Float[np.ndarray, "H W"]) -> Path:
        """Write a map."""
        name = images.output("maps", path, self.suffix)
        save_map(map, self.folder / name)
        return name


@dataclass(frozen=True)
class OverlaySink:
    """Overlays below `overlays/`, and the colour bar they share as `overlays_scale.png`."""

    folder: Path
    suffix: str
    scale: ColourScale
    alpha: float

    def __post_init__(self) -> None:
        with replacing(self.folder / "overlays_scale.png") as part:
            colour_bar(self.scale, width=600).save(part)

    def __call__(self, images: ImageList, path: str, map: Float[np.ndarray, "H W"]) -> Path:
        """Write an overlay; the image is opened again, as keeping it would cost more memory."""
        name = images.output("overlays", path, self.suffix)
        rgb = np.asarray(read_rgb(path))
        with replacing(self.folder / name) as part:
            overlay(rgb, map, scale=self.scale, alpha=self.alpha).save(part, quality=92)
        return name
