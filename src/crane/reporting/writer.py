"""A few overlays of every data set, chosen while a test runs."""

import heapq
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from itertools import count
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from crane.data.images import read_rgb
from crane.errors import UsageError
from crane.reporting.files import replacing
from crane.reporting.panels import Panel, PanelStyle, draw_panel, gallery
from crane.types import ANOMALOUS, NORMAL, Sample

Rank = Callable[[Sample, float], float]
"""How far down the list a sample stands; the lowest are shown."""


def by_chance(sample: Sample, score: float) -> float:
    """Rank samples by a hash of their names: the same choice in every run and on every machine."""
    name = f"{sample.class_name}/{sample.defect}/{sample.image.name}"
    return float(int.from_bytes(sha256(name.encode()).digest()[:6], "big"))


def by_success(sample: Sample, score: float) -> float:
    """Rank anomalous samples by falling and normal samples by rising score."""
    return -score if sample.label == ANOMALOUS else score


def by_failure(sample: Sample, score: float) -> float:
    """Rank anomalous samples by rising and normal samples by falling score."""
    return -by_success(sample, score)


RANKS: Mapping[str, Rank] = MappingProxyType(
    {"random": by_chance, "best": by_success, "worst": by_failure}
)


class OverlayWriter:
    """Keep a few samples of each class while a test runs, then write their panels and a gallery.

    What is kept does not depend on the order of the samples, and its size does not depend on their
    number. Panels are `FOLDER/CLASS/NN_DEFECT_NAME.png`, the gallery is `FOLDER/gallery.png`.

    Args:
        folder: where to write.
        title: heading of the gallery, such as the method and the data set.
        style: scale, opacity and size of the panels.
        choose: which samples: `random` (by name, the same in every run), `best` or `worst` (by
            score, given the label).
        num_anomalous: anomalous samples of each class.
        num_normal: normal samples of each class.
        num_columns: panels in a row of the gallery.

    Raises:
        UsageError: for an unknown choice.
    """

    def __init__(
        self,
        folder: Path,
        *,
        title: str,
        style: PanelStyle,
        choose: str,
        num_anomalous: int,
        num_normal: int,
        num_columns: int,
    ) -> None:
        if choose not in RANKS:
            raise UsageError(f"one of {', '.join(RANKS)}", choose, key="overlay.choose")
        self.folder, self.title, self.style = folder, title, style
        self.rank = RANKS[choose]
        self.room = {ANOMALOUS: num_anomalous, NORMAL: num_normal}
        self.num_columns = num_columns
        self._kept: dict[tuple[str, int], list[tuple[float, str, int, Sample, Panel]]] = {}
        self._serial = count()

    def add(
        self,
        sample: Sample,
        score: float,
        map: Float[Tensor, "H W"],
        mask: Int[Tensor, "H W"] | None = None,
    ) -> None:
        """Consider one sample; it is opened and its map fetched only if it is to be kept.

        Args:
            sample: the sample; its image file is read.
            score: its anomaly score.
            map: its anomaly probabilities, on any device.
            mask: non-zero where anomalous; None where not known.
        """
        kept = self._kept.setdefault((sample.class_name, sample.label), [])
        room = self.room[sample.label]
        # heapq keeps the smallest first, so ranks are negated: the first is the one to give way.
        rank = -self.rank(sample, score)
        name = f"{sample.image} {sample.box or ''}"
        if room == 0 or (len(kept) == room and (rank, name) <= kept[0][:2]):
            return
        panel = Panel(
            image=np.asarray(read_rgb(sample.image, sample.box)),
            map=map.detach().float().cpu().numpy(),
            score=score,
            caption=f"{sample.class_name} / {sample.defect}",
            mask=None if mask is None else mask.cpu().numpy() > 0,
        ).shrunk(self.style.tile)
        entry = (rank, name, next(self._serial), sample, panel)
        if len(kept) < room:
            heapq.heappush(kept, entry)
        else:
            heapq.heapreplace(kept, entry)

    def close(self) -> list[Path]:
        """Write what was kept, classes in order of their names, and forget it.

        Returns:
            The gallery's path and those of the panels; empty when nothing was added.
        """
        panels: dict[Path, Panel] = {}
        for (class_name, label), kept in sorted(self._kept.items(), key=lambda item: item[0]):
            for place, (*_, sample, panel) in enumerate(sorted(kept, reverse=True)):
                number = place + (0 if label == NORMAL else self.room[NORMAL])
                name = f"{number:02d}_{_plain(sample.defect)}_{_plain(sample.image.stem)}.png"
                panels[self.folder / _plain(class_name) / name] = panel
        self._kept.clear()
        if not panels:
            return []
        for path, panel in panels.items():
            with replacing(path) as part:
                draw_panel(panel, self.style).save(part)
        top = self.folder / "gallery.png"
        sheet = gallery(
            list(panels.values()), self.style, num_columns=self.num_columns, title=self.title
        )
        with replacing(top) as part:
            sheet.save(part)
        return [top, *panels]


def _plain(name: str) -> str:
    return re.sub(r"[^\w.-]+", "_", name)
