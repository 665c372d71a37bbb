"""Published data sets: found by name, in any layout they are known in, compared with their card."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from crane.checks import PathText
from crane.data.filenames import first_few, list_folders
from crane.data.index import (
    ClassNames,
    Index,
    Layout,
    MaskThreshold,
    MaskValues,
    Readers,
    Request,
    WhiteLevel,
)
from crane.data.meta_json import listed
from crane.datasets.card import Card, ImageCounts
from crane.errors import UsageError

logger = logging.getLogger(__name__)

PACKAGE = "package:"
"""Begins the name of a folder in an installed Python package."""

MAX_NESTING = 3
"""Archives nest their folders; this many levels with a single folder inside are skipped."""


def index_set(
    name: str,
    root: PathText | Path | None,
    split: str,
    *,
    mask_threshold: MaskThreshold,
    classes: ClassNames = None,
    fetch: str | None = None,
    datasets_dir: PathText | Path,
    folders: Sequence[str] | None = None,
    meta: str | None,
    layouts: Sequence[Layout],
    card: Card | None = None,
    mask_values: MaskValues = "luminance",
    mask_invert: bool = False,
    white_level: WhiteLevel = None,
) -> Index:
    """Find a data set, read it, and compare its numbers of images with its card.

    Args:
        name: What to call the data set.
        root: Its folder; None for the first of `folders` under `datasets_dir` that holds it.
        split: `test` (the one with anomalies) or `train`.
        mask_threshold: Mask pixels are anomalous where their 8-bit luminance exceeds this.
        classes: The classes to read; None for all.
        fetch: Where to get the data, for the error message if they are missing.
        datasets_dir: The folder of all data sets.
        folders: Names of its folder there, in any case, with `-` or `_`, or of one in an installed
            package (`package:NAME/FOLDER`); None for `name`.
        meta: Name of a list beside the data that precedes all layouts; None ignores it.
        layouts: The ways it may be laid out; the first that fits is used.
        card: What is known of it; None if it is not a published data set.
        mask_values: See `Request`.
        mask_invert: See `Request`.
        white_level: See `Request`.

    Returns:
        Its images, with the mismatches whose counts are not just from memory.

    Raises:
        UsageError: It is missing, laid out in an unknown way, or its files do not fit together.
    """
    names = [one for one in folders or [name] if not one.startswith(PACKAGE)] or [name]
    places = [str(Path(datasets_dir) / folder) for folder in names]
    request = Request(
        *(name, root or places[0], split, mask_threshold, classes, fetch or ""),
        *(mask_values, mask_invert, white_level),
    )
    lists: list[Layout] = [partial(listed, file=meta)] if meta else []
    candidates = [] if root else candidate_folders(Path(datasets_dir), folders or [name])
    candidates = candidates or [request.folder()]
    found = [
        f for c in candidates if (f := _fitting(name, c, split, [*lists, *layouts])) is not None
    ]
    if not found:
        others = [f"{c} holds {_content(c)}" for c in candidates[1:]]
        problem = f"holds {_content(candidates[0])}, which is not a known layout of it"
        raise request.refusal("; ".join([problem, *others]), candidates[0])
    if len(found) > 1:
        copies = ", ".join(str(place) for place, _ in found[1:])
        logger.warning("%s is read from %s; other copies: %s", name, found[0][0], copies)
    place, readers = found[0]
    is_listed = meta is not None and (place / meta).is_file()
    index = request.index(place, readers, listed_in=str(meta) if is_listed else "")
    return index if card is None else _compared(index, card, split, classes)


def _compared(index: Index, card: Card, split: str, classes: ClassNames) -> Index:
    """The index with its mismatches; a warning tells those from memory."""
    mismatches = card.mismatches(index, split, classes)
    for mismatch in mismatches:
        if mismatch.evidence == "memory":
            logger.warning("%s: %s; this number is from memory only", index.name, mismatch.text)
    return replace(index, mismatches=tuple(m.text for m in mismatches if m.evidence != "memory"))


def check_is_set(
    folder: Path,
    *,
    name: str,
    split: str,
    layouts: Sequence[Layout],
    card: Card | None,
    fetch: str | None,
) -> None:
    """Refuse unpacked files that are not a copy of a data set, such as those of another one.

    Args:
        folder: The files.
        name: The data set.
        split: The split that is to be read.
        layouts: The ways it may be laid out.
        card: What is known of it; without, every class is accepted.
        fetch: Where to get the data, for the message.

    Raises:
        UsageError: No layout fits, or none of the classes found is one of the data set's.
    """
    fitting = _fitting(name, folder, split, layouts)
    if fitting is None:
        found = first_few(child.name for child in sorted(folder.iterdir()))
    else:
        classes = {card.name_of(c) if card else c for c in fitting[1]}
        # The only class of a data set is often renamed.
        is_only = card is not None and len(classes) == len(card.class_names) == 1
        if card is None or is_only or classes & set(card.class_names):
            return
        found = f"the classes {first_few(sorted(fitting[1]))}"
    raise UsageError(
        f"this is not the archive of {card.title if card else name}: it holds {found}; nothing "
        f"was unpacked{f'; to get the data, {fetch}' if fetch else ''}",
        key="archive",
    )


def candidate_folders(datasets_dir: Path, folders: Sequence[str]) -> list[Path]:
    """The folders that bear one of the names, in the order of the names.

    `package:NAME/FOLDER` is a folder in an installed Python package, which is not imported.
    """
    found: list[Path] = []
    for name in folders:
        if name.startswith(PACKAGE):
            package, _, inner = name.removeprefix(PACKAGE).partition("/")
            spec = find_spec(package) if package.isidentifier() else None
            places = (
                Path(place) / inner for place in (spec and spec.submodule_search_locations) or ()
            )
            found += [place for place in places if place.is_dir()]
            continue
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


def _content(folder: Path) -> str:
    return first_few(child.name for child in list_folders(folder)) or "no folders"


def _fitting(
    name: str, folder: Path, split: str, ways: Sequence[Layout]
) -> tuple[Path, Readers] | None:
    """The place and the readers of the first layout that fits the folder, or the only one in it."""
    places = [folder]
    while len(places) < MAX_NESTING and len(inside := list_folders(places[-1])) == 1:
        places += inside
    for way in ways:
        for place in places:
            readers = way(name, place, split)
            if readers is not None:
                return place, readers
    return None
