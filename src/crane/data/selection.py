"""Chooses which images of the source to train on: held-out validation, few shots, portions.

Every choice ranks the images of a class and label by a hash of the seed and their names. So it is
the same on every machine and in any order of files, adding or removing a class does not affect the
others, and a smaller choice is part of a larger one.
"""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

from crane.data.index import Index
from crane.errors import UsageError
from crane.samples import ANOMALOUS, NORMAL

logger = logging.getLogger(__name__)


def hold_out(index: Index, fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """Split an index into images to train on and images to validate on.

    The fraction is taken of every class and label and rounded to the nearest, but at least one
    image is held out and at least one is left; a class's only image of a label is trained on.

    Args:
        index: The source.
        fraction: Fraction to hold out, in [0, 1); 0 holds out nothing.
        seed: Seed of the choice.

    Returns:
        Positions to train on and positions to validate on, both ascending.
    """

    def num_held(num: int) -> int:
        return min(max(1, round(num * fraction)), num - 1) if fraction > 0 else 0

    held = _choose(index, range(len(index.samples)), seed, "validation", num_held)
    return sorted(set(range(len(index.samples))) - set(held)), held


def few_shots(index: Index, positions: Sequence[int], k_shot: int, seed: int) -> list[int]:
    """Keep k images per class: k/2 normal and k/2 anomalous (paper and official `k_shot`).

    A class with fewer of a label keeps all it has, with a warning.

    Args:
        index: The source.
        positions: The images to choose from.
        k_shot: An even number k > 0.
        seed: Seed of the choice.

    Returns:
        The positions kept, ascending.
    """
    for (class_name, label), found in _strata(index, positions).items():
        if len(found) < k_shot // 2:
            kind = "normal" if label == NORMAL else "anomalous"
            logger.warning(
                "%s/%s has %d %s images, fewer than the %d of k_shot %d",
                index.name,
                class_name,
                len(found),
                kind,
                k_shot // 2,
                k_shot,
            )
    return _choose(index, positions, seed, "k_shot", lambda num: min(k_shot // 2, num))


def portion_of(index: Index, positions: Sequence[int], portion: float, seed: int) -> list[int]:
    """Keep a fraction of every class and label, rounded down (official `portion`).

    Args:
        index: The source.
        positions: The images to choose from.
        portion: Fraction to keep, in (0, 1].
        seed: Seed of the choice.

    Returns:
        The positions kept, ascending.

    Raises:
        UsageError: No image would be left.
    """
    kept = _choose(index, positions, seed, "portion", lambda num: int(num * portion))
    if positions and not kept:
        raise UsageError(
            f"{portion} leaves no image of {index.name} to train on", key="data.portion"
        )
    return kept


def _choose(
    index: Index,
    positions: Sequence[int],
    seed: int,
    purpose: str,
    num_chosen: Callable[[int], int],
) -> list[int]:
    """Take from each class and label the images that rank first."""

    def rank(position: int) -> bytes:
        name = index.key(index.samples[position])
        return hashlib.sha256(f"{seed}/{purpose}/{name}".encode()).digest()

    chosen: list[int] = []
    for found in _strata(index, positions).values():
        chosen += sorted(found, key=rank)[: num_chosen(len(found))]
    return sorted(chosen)


def _strata(index: Index, positions: Sequence[int]) -> dict[tuple[str, int], list[int]]:
    """The positions of each class and label, with both labels of a class even if one is empty."""
    strata: dict[tuple[str, int], list[int]] = defaultdict(list)
    for position in positions:
        sample = index.samples[position]
        for label in (NORMAL, ANOMALOUS):
            strata[sample.class_name, label] += [position] if label == sample.label else []
    return strata
