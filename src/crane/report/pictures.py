"""The page's gallery: which pictures of which runs, and the scale they share."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from crane.pictures import GALLERY, Picture, read_gallery
from crane.report.runs import Run

NUM_COLOURS = 32
"""Stops of the legend's gradient."""


@dataclass(frozen=True)
class Shown:
    """A picture of the page's gallery."""

    setting: str
    picture: Picture
    choices: tuple[str, ...]
    """Best, worst or random: all that it was chosen as."""
    path: Path
    """Its file."""

    @property
    def source(self) -> str:
        """The picture itself, as a data URL."""
        return f"data:image/webp;base64,{base64.b64encode(self.path.read_bytes()).decode()}"


@dataclass(frozen=True)
class Gallery:
    """What the page shows of the pictures of some runs."""

    pictures: tuple[Shown, ...]
    """The same image under every setting stands side by side."""
    num_left_out: int
    """Pictures there was no room for."""
    scales: tuple[Mapping[str, Any], ...]
    """The colour scales in use: one, unless runs were made with several."""


def gather_pictures(first: Mapping[str, Run], max_pictures: int) -> Gallery:
    """Bring the galleries of settings together, evenly thinned where they are too many.

    Args:
        first: the run of each setting whose pictures are shown.
        max_pictures: at most as many are kept: whole images, under every setting that shows them.
    """
    by_image: dict[tuple[str, str, int, str, str], list[Shown]] = {}
    scales: list[Mapping[str, Any]] = []
    for setting, run in first.items():
        folder = run.folder / GALLERY
        if not (folder / "gallery.json").is_file():
            continue
        scale, pictures = read_gallery(folder)
        scales += [scale] if pictures and scale not in scales else []
        for one in _shown(setting, folder, pictures):
            picture = one.picture
            place = (picture.dataset, picture.class_name, -picture.label)  # anomalous ones first
            by_image.setdefault((*place, picture.defect, picture.name), []).append(one)
    groups = [by_image[key] for key in sorted(by_image)]
    kept = _thinned(groups, max_pictures)
    num_all = sum(map(len, groups))
    return Gallery(tuple(kept), num_all - len(kept), tuple(scales))


def _shown(setting: str, folder: Path, pictures: Sequence[Picture]) -> list[Shown]:
    """Each file once, with all that it was chosen as; files that are gone are left out."""
    choices: dict[str, tuple[Picture, list[str]]] = {}
    for picture in pictures:
        choices.setdefault(picture.file, (picture, []))[1].append(picture.choice)
    return [
        Shown(setting, picture, tuple(chosen), folder / file)
        for file, (picture, chosen) in choices.items()
        if (folder / file).is_file()
    ]


def _thinned(groups: Sequence[Sequence[Shown]], max_pictures: int) -> list[Shown]:
    """Groups evenly spread, as many as there is room for."""
    num_groups = len(groups)
    while num_groups > 0:
        places = np.linspace(0, len(groups) - 1, num_groups).round().astype(int)
        kept = [one for place in places for one in groups[int(place)]]
        if len(kept) <= max_pictures:
            return kept
        num_groups -= 1
    return list(groups[0][:max_pictures]) if groups else []


def legend(scale: Mapping[str, Any]) -> dict[str, object]:
    """The legend of the maps: a gradient, and the values at its ends and middle.

    >>> legend({"vmin": 0.0, "vmax": 1.0, "colormap": "inferno"})["values"]
    ['0', '0.5', '1']
    """
    colours = mpl.colormaps[str(scale["colormap"])](np.linspace(0, 1, NUM_COLOURS))
    stops = [mpl.colors.to_hex(colour) for colour in colours]
    ends = (float(scale["vmin"]), float(scale["vmax"]))
    return {
        "gradient": ", ".join(stops),
        "values": [f"{value:.3g}" for value in (ends[0], sum(ends) / 2, ends[1])],
    }
