"""Pictures of a few images of each class, chosen while a test runs."""

import heapq
import logging
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from crane.data.images import read_rgb
from crane.errors import UsageError
from crane.files import file_name, file_names, replacing
from crane.pictures.findings import Picture
from crane.pictures.panels import (
    OverlayOptions,
    Panel,
    draw_tiles,
    gallery_sheet,
    make_panel,
    panel_sheet,
    strip,
)
from crane.samples import ANOMALOUS, NORMAL, Sample

logger = logging.getLogger(__name__)

QUALITY = 82
"""Of the WebP pictures, which take a few kilobytes each."""

Rank = Callable[[Sample, float], float]
"""Rank of a sample from its score; the lowest ranks are shown."""


def by_chance(sample: Sample, score: float) -> float:
    """Rank samples by a hash of their names: the same choice in every run and on every machine."""
    name = f"{sample.class_name}/{sample.defect}/{sample.image.name}"
    return float(
        int.from_bytes(sha256(name.encode("utf-8", "surrogateescape")).digest()[:6], "big")
    )


def by_success(sample: Sample, score: float) -> float:
    """Rank anomalous samples by falling and normal samples by rising score."""
    return -score if sample.label == ANOMALOUS else score


def by_failure(sample: Sample, score: float) -> float:
    """Rank anomalous samples by rising and normal samples by falling score."""
    return -by_success(sample, score)


RANKS: Mapping[str, Rank] = MappingProxyType(
    {"random": by_chance, "best": by_success, "worst": by_failure}
)


class Chosen(NamedTuple):
    """A sample that is shown."""

    sample: Sample
    panel: Panel
    place: int
    """Its rank within its class and label, from 0."""


class Written(NamedTuple):
    """What `Gallery.write` wrote."""

    overlays: list[Path]
    """The sheet of all panels, then each panel; empty if there are none."""
    pictures: list[Picture]
    """The entries for `write_gallery`."""


class Gallery:
    """Keeps the best, the worst and some random images of each class of a data set.

    What is kept does not depend on the order of the samples, and its size does not depend on their
    number. Each image that is kept is opened and resized once, and drawn once.

    Args:
        dataset: Name of the data set.
        options: Which images are shown, and how.
        white_level: The white of 16-bit images, as the model sees them; see `read_rgb`.
    """

    def __init__(
        self, dataset: str, options: OverlayOptions, *, white_level: int | None = None
    ) -> None:
        self.dataset, self.options, self.white_level = dataset, options, white_level
        self.room = {choice: _room(options, choice) for choice in RANKS}
        self._kept: dict[tuple[str, str, int], list[tuple[float, str, int, Sample, Panel]]] = {}
        self._serial = count()

    def add(
        self,
        sample: Sample,
        score: float,
        map: Float[Tensor, "H W"],
        mask: Int[Tensor, "H W"] | None = None,
    ) -> None:
        """Consider one sample; its image is opened and its map copied only if it is kept.

        An image that cannot be read any more is left out with a warning.

        Args:
            sample: The sample.
            score: Its anomaly score.
            map: Its anomaly probabilities, on any device.
            mask: Non-zero where anomalous; None where not known.
        """
        name = f"{sample.image} {sample.box or ''}"
        wanted = []
        for choice, rank_of in RANKS.items():
            # heapq keeps the smallest first, so ranks are negated: the first is replaced first.
            rank = -rank_of(sample, score)
            kept = self._kept.setdefault((choice, sample.class_name, sample.label), [])
            room = self.room[choice][sample.label]
            if len(kept) < room or (room > 0 and (rank, name) > kept[0][:2]):
                wanted.append((kept, rank, room))
        if not wanted:
            return
        try:
            image = read_rgb(sample.image, sample.box, white_level=self.white_level)
        except UsageError as error:
            logger.warning("no picture of %s: %s", sample.image, error)
            return
        panel = make_panel(
            image,
            map.detach().float().cpu().numpy(),
            score,
            f"{sample.class_name} / {sample.defect}",
            None if mask is None else mask.cpu().numpy() > 0,
            tile=self.options.tile,
        )
        for kept, rank, room in wanted:
            entry = (rank, name, next(self._serial), sample, panel)
            if len(kept) < room:
                heapq.heappush(kept, entry)
            else:
                heapq.heapreplace(kept, entry)

    def overlays(self) -> list[Chosen]:
        """The samples that `overlay.choose` shows.

        Classes come in the order of their names, normal samples before anomalous ones.
        """
        options = self.options
        return self._chosen(options.choose, options.num_anomalous, options.num_normal)

    def write(self, overlays: Path, gallery: Path) -> Written:
        """Draw everything that was kept and forget it.

        A picture that cannot be written is left out with a warning.

        Args:
            overlays: Folder for `CLASS/NN_DEFECT_NAME.png`, and `gallery.png` with all of them.
            gallery: Folder of this data set for pictures without captions, `NNNN.webp`, in the
                folder of `write_gallery`; an image that is chosen twice is one file.
        """
        shown, extra = self.overlays(), self.options.gallery
        entries = {
            choice: self._chosen(choice, extra.num_anomalous, extra.num_normal) for choice in RANKS
        }
        paths = _panel_paths(shown, overlays, self.options.num_normal)
        strips = {id(one.panel): one.panel for chosen in entries.values() for one in chosen}
        files: dict[int, str] = {}
        sheets: dict[Path, Image.Image] = {}
        for panel in {**strips, **{id(one.panel): one.panel for one in shown}}.values():
            tiles = draw_tiles(panel, self.options)
            if id(panel) in strips:
                file = f"{gallery.name}/{len(files):04d}.webp"
                if _save(strip(panel, tiles), gallery.parent / file):
                    files[id(panel)] = file
            if (path := paths.get(id(panel))) is not None:
                sheets[path] = panel_sheet(panel, tiles, self.options)
        self._kept.clear()
        pictures = [
            _picture(self.dataset, one, choice, files[id(one.panel)])
            for choice, chosen in entries.items()
            for one in chosen
            if id(one.panel) in files
        ]
        return Written(self._write_overlays(sheets, list(paths.values()), overlays), pictures)

    def _write_overlays(
        self, sheets: Mapping[Path, Image.Image], paths: Sequence[Path], folder: Path
    ) -> list[Path]:
        if not sheets:
            return []
        ordered = [sheets[path] for path in paths]
        page = gallery_sheet(ordered, self.options, title=self.dataset)
        drawn = [(folder / "gallery.png", page), *zip(paths, ordered, strict=True)]
        return [path for path, image in drawn if _save(image, path)]

    def _chosen(self, choice: str, num_anomalous: int, num_normal: int) -> list[Chosen]:
        num = {ANOMALOUS: num_anomalous, NORMAL: num_normal}
        return [
            Chosen(sample, panel, place)
            for (listed, _, label), kept in sorted(self._kept.items(), key=lambda item: item[0])
            if listed == choice
            for place, (*_, sample, panel) in enumerate(sorted(kept, reverse=True)[: num[label]])
        ]


def _room(options: OverlayOptions, choice: str) -> dict[int, int]:
    """How many samples of each label a list keeps, for overlays and gallery together."""
    room = {ANOMALOUS: options.gallery.num_anomalous, NORMAL: options.gallery.num_normal}
    if choice == options.choose:
        room[ANOMALOUS] = max(room[ANOMALOUS], options.num_anomalous)
        room[NORMAL] = max(room[NORMAL], options.num_normal)
    return room


def _panel_paths(shown: Sequence[Chosen], folder: Path, num_normal: int) -> dict[int, Path]:
    """The file of each panel, in the order of the sheet; normal images are numbered first."""
    folders = file_names(one.sample.class_name for one in shown)
    paths = {}
    for sample, panel, place in shown:
        number = place + (0 if sample.label == NORMAL else num_normal)
        name = f"{number:02d}_{sample.defect}_{sample.image.stem}"
        paths[id(panel)] = folder / folders[sample.class_name] / file_name(name, ".png")
    return paths


def _picture(dataset: str, one: Chosen, choice: str, file: str) -> Picture:
    return Picture(
        dataset=dataset,
        class_name=one.sample.class_name,
        defect=one.sample.defect,
        label=one.sample.label,
        score=one.panel.score,
        name=one.sample.image.name,
        choice=choice,
        file=file,
    )


def _save(image: Image.Image, path: Path) -> bool:
    try:
        with replacing(path) as part:
            image.save(part, quality=QUALITY)  # PNG ignores it
    except (OSError, ValueError) as error:  # encoders raise either for a size they cannot take
        logger.warning("cannot write the picture %s: %s", path, error)
        return False
    return True
