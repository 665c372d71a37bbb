"""What counts as an image file, and how file names are shown in messages."""

import logging
from collections.abc import Sequence
from pathlib import Path

from crane.errors import UsageError

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""Recognised endings, in lower case; `.JPG` counts too."""

UNLABELLED_FOLDERS = frozenset({"__macosx", "pred"})
"""Folders without labelled images: residue of archives, and what nobody labelled in Br35H."""

_RESIDUE = frozenset({"thumbs.db", "desktop.ini"})


def is_image(path: Path) -> bool:
    """Tell whether a name is an image's, whatever its case; hidden files are not.

    >>> is_image(Path("a.JPG")), is_image(Path("._a.jpg")), is_image(Path("Thumbs.db"))
    (True, False, False)
    """
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path) -> list[Path]:
    """List the image files directly in a folder, by name; warn of files that are none."""
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and not f.name.startswith(".")]
    others = [f for f in files if not is_image(f) and f.name.lower() not in _RESIDUE]
    if others:
        logger.warning("Ignored in %s, not images by their names: %s", folder, shown(others))
    return [f for f in files if is_image(f)]


def list_folders(folder: Path) -> list[Path]:
    """List the folders directly in a folder, by name, without hidden and unlabelled ones."""
    return [
        f
        for f in sorted(folder.iterdir())
        if f.is_dir() and not f.name.startswith(".") and f.name.lower() not in UNLABELLED_FOLDERS
    ]


def shown(items: Sequence[object], limit: int = 5) -> str:
    """Write names for a message: the first few, and how many more there are.

    >>> shown([Path("a/1.png"), Path("a/2.png"), "x"], limit=2)
    '1.png, 2.png and 1 more'
    """
    names = [item.name if isinstance(item, Path) else str(item) for item in items[:limit]]
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(names) + more


class MissingSplitError(UsageError):
    """The data set, as it lies there, has no such split."""


class MissingClassError(UsageError):
    """The data set, as it lies there, has no such class."""


def checked_root(name: str, root: str | Path, fetch: str) -> Path:
    """Return the data set's folder, with `~` expanded.

    Raises:
        UsageError: if there is no such folder; says what to fetch and which key to change.
    """
    folder = Path(root).expanduser()
    if folder.is_dir():
        return folder
    raise UsageError(
        f"the folder of data set {name}",
        f"nothing at {folder}" if not folder.exists() else f"a file, {folder}",
        key=f"datasets_dir, source.{name}.root or targets.{name}.root",
        hint=f"to get the data: {fetch}" if fetch else None,
    )


def checked_classes(
    name: str, classes: str | Sequence[str] | None, available: Sequence[str]
) -> list[str]:
    """Return the wanted classes, all of the available ones if none are named.

    Raises:
        UsageError: if a wanted class is not there; lists those that are.
    """
    if classes is None:
        return sorted(available)
    wanted = [classes] if isinstance(classes, str) else [str(c) for c in classes]
    unknown = [c for c in wanted if c not in available]
    if unknown or not wanted:
        raise MissingClassError(
            f"classes of {name} out of {', '.join(sorted(available))}",
            wanted,
            key=f"source.{name}.classes or targets.{name}.classes",
        )
    return sorted(set(wanted))
