"""Samples to show, chosen while a test runs."""

import heapq
from collections.abc import Callable, Mapping
from hashlib import sha256
from itertools import count
from types import MappingProxyType

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from crane.data.images import read_rgb
from crane.errors import UsageError
from crane.pictures.panels import Panel
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


class Shortlist:
    """Keep a few samples of each class and label while a test runs.

    What is kept does not depend on the order of the samples, and its size does not depend on their
    number.

    Args:
        choose: which samples: `random` (by name, the same in every run), `best` or `worst` (by
            score, given the label).
        num_anomalous: anomalous samples of each class.
        num_normal: normal samples of each class.
        tile: longer side in pixels of what is kept.

    Raises:
        UsageError: for an unknown choice.
    """

    def __init__(self, *, choose: str, num_anomalous: int, num_normal: int, tile: int) -> None:
        if choose not in RANKS:
            raise UsageError(f"one of {', '.join(RANKS)}", choose, key="overlay.choose")
        self.rank = RANKS[choose]
        self.room = {ANOMALOUS: num_anomalous, NORMAL: num_normal}
        self.tile = tile
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
        ).shrunk(self.tile)
        entry = (rank, name, next(self._serial), sample, panel)
        if len(kept) < room:
            heapq.heappush(kept, entry)
        else:
            heapq.heapreplace(kept, entry)

    def chosen(self) -> list[tuple[Sample, Panel, int]]:
        """What is kept so far, with its place within its class and label.

        Classes come in the order of their names, normal samples before anomalous ones.
        """
        return [
            (sample, panel, place)
            for _, kept in sorted(self._kept.items(), key=lambda item: item[0])
            for place, (*_, sample, panel) in enumerate(sorted(kept, reverse=True))
        ]

    def clear(self) -> None:
        """Forget what was kept."""
        self._kept.clear()
