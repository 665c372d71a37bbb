"""What file names tell: which files are images, and which mask belongs to which image."""

import logging
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from crane.errors import UsageError, counted

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""Recognised endings, in lower case; `.JPG` counts too."""

UNLABELLED_FOLDERS = frozenset({"__macosx", "pred"})
"""Folders without labelled images: residue of archives, and the unlabelled part of Br35H."""

_RESIDUE = frozenset({"thumbs.db", "desktop.ini"})
_MASK_ENDING = re.compile(r"[_-](masks?|labels?|gt|segmentation|seg|anno|annotation)$", re.I)
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name, in any case; hidden files are not.

    >>> is_image(Path("a.JPG")), is_image(Path("._a.jpg")), is_image(Path("Thumbs.db"))
    (True, False, False)
    """
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name; a warning lists the other files."""
    files = [f for f in sorted(folder.iterdir()) if f.is_file() and not f.name.startswith(".")]
    others = [f for f in files if not is_image(f) and f.name.lower() not in _RESIDUE]
    if others:
        logger.warning("Ignored in %s, not images by their names: %s", folder, first_few(others))
    return [f for f in files if is_image(f)]


def list_folders(folder: Path) -> list[Path]:
    """The folders directly in a folder, by name, except hidden and unlabelled ones."""
    return [
        f
        for f in sorted(folder.iterdir())
        if f.is_dir() and not f.name.startswith(".") and f.name.lower() not in UNLABELLED_FOLDERS
    ]


def first_few(items: Iterable[object], limit: int = 5) -> str:
    """Names for a message: the first few, and how many more there are.

    >>> first_few([Path("a/1.png"), Path("a/2.png"), "x"], limit=2)
    '1.png, 2.png and 1 more'
    """
    names = [item.name if isinstance(item, Path) else str(item) for item in items]
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def mask_stem(path: Path) -> str:
    """The stem of a mask's name without the ending that marks it as a mask.

    >>> [mask_stem(Path(name)) for name in ("000_mask.png", "Part3_label.bmp", "7.png")]
    ['000', 'Part3', '7']
    """
    return _MASK_ENDING.sub("", path.stem)


def loose_stem(stem: str) -> str:
    """A stem in lower case and without zero padding.

    >>> loose_stem("IMG_0070") == loose_stem("img_70"), loose_stem("1001")
    (True, '1001')
    """
    return _LEADING_ZEROS.sub("", stem.casefold())


def pair_masks(images: Sequence[Path], masks: Sequence[Path], where: str) -> dict[Path, Path]:
    """Find each image's mask by name, never by order.

    A mask belongs to the image with its stem, or with its stem less an ending such as `_mask`. The
    remaining masks are paired if their names differ from an image's in zero padding or letter case
    only, and only if there is one candidate.

    Args:
        images: The anomalous images of one defect.
        masks: All mask files of that defect.
        where: Names the folder in messages.

    Returns:
        The mask of every image that has one.

    Raises:
        UsageError: Two images share a stem, an image has two masks or a mask two images, or a mask
            has no image (as in a copy whose names are shifted).
    """
    check_unique_stems(images, where)
    by_stem = {image.stem: image for image in images}
    by_loose_stem = _groups(images, lambda path: loose_stem(path.stem))
    similar_masks = _groups(masks, lambda path: loose_stem(mask_stem(path)))
    found: dict[Path, list[Path]] = defaultdict(list)
    unpaired = []
    for mask in masks:
        image = by_stem.get(mask.stem) or by_stem.get(mask_stem(mask))
        key = loose_stem(mask_stem(mask))
        candidates = [image] if image else by_loose_stem.get(key, [])
        if not candidates:
            unpaired.append(mask)
        elif image is None and (len(candidates) > 1 or len(similar_masks[key]) > 1):
            raise UsageError(
                f"it is unclear which mask belongs to which image in {where}: "
                f"masks {first_few(similar_masks[key])} for images {first_few(candidates)}"
            )
        else:
            found[candidates[0]].append(mask)
    if unpaired:
        raise UsageError(
            f"{counted(len(unpaired), 'mask')} without an image in {where}: {first_few(unpaired)}; "
            "masks are paired by name, so an image is missing or was renamed"
        )
    for image, several in found.items():
        if len(several) > 1:
            raise UsageError(f"several masks of {image.name} in {where}: {first_few(several)}")
    return {image: mask for image, (mask,) in found.items()}


def check_unique_stems(images: Sequence[Path], where: str) -> None:
    """Refuse two images whose names differ in the ending only.

    Raises:
        UsageError: Names them.
    """
    for same in _groups(images, lambda path: path.stem).values():
        if len(same) > 1:
            raise UsageError(f"several images of one name in {where}: {first_few(same)}")


def _groups(paths: Iterable[Path], key: Callable[[Path], str]) -> Mapping[str, list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return groups
