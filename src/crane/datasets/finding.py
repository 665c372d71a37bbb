"""Published data sets by name: found in any of the layouts they are known in, and counted."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from crane.data.files import checked_classes, checked_root, list_folders, shown
from crane.data.folder import checked_index
from crane.data.index import Index, sorted_samples
from crane.datasets.card import Card
from crane.datasets.layouts import Layout, ReadClass, listed
from crane.errors import UsageError

logger = logging.getLogger(__name__)

MAX_NESTING = 3
"""Archives wrap their folders in folders; as many that hold nothing else are looked through."""


def index_set(
    name: str,
    root: str | Path | None,
    split: str,
    *,
    mask_threshold: int,
    classes: str | Sequence[str] | None = None,
    fetch: str = "",
    datasets_dir: str | Path,
    folders: Sequence[str],
    meta: str | None,
    layouts: Sequence[Layout],
    card: Card,
) -> Index:
    """Find a published data set, read it, and compare its numbers of images with its card.

    Args:
        name: what to call the data set.
        root: its folder; None takes the first of `folders` under `datasets_dir` that holds it.
        split: `test` (the one with anomalies) or `train`.
        mask_threshold: a mask's pixel is anomalous where its 8-bit luminance exceeds this.
        classes: the classes to keep; None keeps all.
        fetch: where the data can be got, for the message if they are not there.
        datasets_dir: the folder of all data sets.
        folders: names that the data set goes by under it, in any case, `-` and `_` alike.
        meta: name of a list beside the data that comes before all layouts; None ignores it.
        layouts: the ways it may be laid out, the first that fits is taken.
        card: what is known of it.

    Returns:
        Its images, with the mismatches that are not just remembered.

    Raises:
        UsageError: if it is not there, laid out in no known way, or its files do not fit together.
    """
    lists: list[Layout] = [partial(listed, file=meta)] if meta else []
    ways = [*lists, *layouts]
    place, readers = _locate(name, root, split, fetch, Path(datasets_dir), folders, ways)
    wanted = checked_classes(name, classes, tuple(readers))
    samples = [sample for class_name in wanted for sample in readers[class_name]()]
    index = checked_index(Index(name, place, sorted_samples(samples), mask_threshold))
    found = card.mismatches(index, split, classes)
    for mismatch in found:
        if mismatch.evidence == "memory":
            logger.warning("%s: %s; this number is from memory only", name, mismatch.text)
    return replace(index, mismatches=tuple(m.text for m in found if m.evidence != "memory"))


def check_is_set(
    name: str, folder: Path, split: str, *, layouts: Sequence[Layout], card: Card, fetch: str
) -> None:
    """Refuse unpacked files that are no copy of a data set, such as those of another one.

    Args:
        name: what the data set is called.
        folder: where its files lie.
        split: the split that is to be read.
        layouts: the ways it may be laid out.
        card: what is known of it.
        fetch: where the data can be got, for the message.

    Raises:
        UsageError: if no layout fits, or none of the classes found is one of the data set's.
    """
    fitting = _fitting(name, folder, split, layouts)
    if fitting is None:
        found = shown([child.name for child in sorted(folder.iterdir())])
    else:
        classes = {card.aliases.get(c, c) for c in fitting[1]}
        # The only class of a data set is often renamed.
        if classes & set(card.class_names) or len(classes) == len(card.class_names) == 1:
            return
        found = f"one with other classes: {shown(sorted(fitting[1]))}"
    raise UsageError(
        f"the archive of {card.title}",
        found,
        key="archive",
        hint=f"nothing was unpacked; to get the data: {fetch}",
    )


def candidate_folders(datasets_dir: Path, folders: Sequence[str]) -> list[Path]:
    """List the folders that bear one of the names, in the order of the names."""
    found: list[Path] = []
    for name in folders:
        level = [datasets_dir.expanduser()]
        for part in name.split("/"):
            level = [
                child
                for folder in level
                if folder.is_dir()
                for child in sorted(folder.iterdir())
                if child.is_dir() and _plain(child.name) == _plain(part)
            ]
        found += [folder for folder in level if folder not in found]
    return found


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-")


def _locate(
    name: str,
    root: str | Path | None,
    split: str,
    fetch: str,
    datasets_dir: Path,
    folders: Sequence[str],
    ways: Sequence[Layout],
) -> tuple[Path, Mapping[str, ReadClass]]:
    """Find the folder of the data set and how to read its classes."""
    given = None if root is None else checked_root(name, root, fetch)
    candidates = candidate_folders(datasets_dir, folders) if given is None else [given]
    if not candidates:
        # Says where it is looked for first, and what to fetch.
        candidates = [checked_root(name, datasets_dir / folders[0], fetch)]
    found = [f for c in candidates if (f := _fitting(name, c, split, ways)) is not None]
    if not found:
        inside = [f"{c}: {shown([f.name for f in list_folders(c)]) or 'empty'}" for c in candidates]
        raise UsageError(
            f"{name} in a layout it is known in",
            "; ".join(inside),
            key=f"source.{name}.root or targets.{name}.root",
            hint=f"to get the data: {fetch}",
        )
    if len(found) > 1:
        others = ", ".join(str(place) for place, _ in found[1:])
        logger.warning("%s is read from %s; it lies in %s too", name, found[0][0], others)
    return found[0]


def _fitting(
    name: str, folder: Path, split: str, ways: Sequence[Layout]
) -> tuple[Path, Mapping[str, ReadClass]] | None:
    """Find the layout of a folder, or of the only folder inside it; the first layouts go first."""
    places = [folder]
    while len(places) < MAX_NESTING and len(inside := list_folders(places[-1])) == 1:
        places += inside
    for way in ways:
        for place in places:
            readers = way(name, place, split)
            if readers is not None:
                return place, readers
    return None
