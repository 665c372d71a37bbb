"""What file names tell: which files are images, and which mask belongs to which image."""

import logging
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from crane.errors import UsageError, counted

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""Recognised endings, in lower case; `.JPG` counts too."""

UNLABELLED_FOLDERS = frozenset({"__macosx", "pred"})
"""Folders without labelled images: residue of archives, and the unlabelled part of Br35H."""

_DOCUMENTS = frozenset(
    (
        "",
        *(".txt", ".md", ".pdf", ".html", ".json", ".jsonl", ".csv", ".tsv", ".parquet", ".xml"),
        *(".yaml", ".yml", ".db", ".ini", ".log", ".py", ".sh", ".m", ".lock", ".zip", ".tar"),
    )
)
"""Endings of files beside images that need no remark: texts, tables, residue of file managers."""
_MASK_ENDING = re.compile(
    r"([_-](masks?|labels?|gt|segmentation|seg|anno|annotation))+(?P<number>[_-]?\d+)?$", re.I
)
_NUMBER = re.compile(r"[_-]\d+$")
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


def is_image(path: Path) -> bool:
    """Whether a file is an image by its name, in any case; hidden files are not.

    >>> is_image(Path("a.JPG")), is_image(Path("._a.jpg")), is_image(Path("Thumbs.db"))
    (True, False, False)
    """
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def may_be_image(path: Path) -> bool:
    """Whether a file is an image, or may have been meant as one: no text, table or residue.

    >>> [may_be_image(Path(name)) for name in ("a.gif", "b.PNG", "read.me.txt", ".c.png")]
    [True, True, False, False]
    """
    return path.suffix.lower() not in _DOCUMENTS and not path.name.startswith(".")


def list_images(folder: Path) -> list[Path]:
    """The image files directly in a folder, by name; a warning counts and names other files.

    Raises:
        UsageError: The folder cannot be read.
    """
    found, others = [], []
    for entry in _entries(folder):
        path = folder / entry.name
        if entry.is_dir():
            continue
        if is_image(path) and entry.is_file():
            found.append(path)
        elif may_be_image(path):
            others.append(entry.name if entry.is_file() else f"{entry.name} (not a regular file)")
    warn_of_other_files(folder, others)
    return found


def warn_of_other_files(folder: object, others: Sequence[str]) -> None:
    """Say which files beside images are left out, if there are any."""
    if others:
        number = counted(len(others), "file that is not an image", "files that are not images")
        logger.warning("%s: left out %s: %s", folder, number, first_few(others))


def list_folders(folder: Path) -> list[Path]:
    """The folders directly in a folder, by name, except hidden and unlabelled ones.

    Raises:
        UsageError: The folder cannot be read.
    """
    return [
        folder / entry.name
        for entry in _entries(folder)
        if entry.is_dir() and entry.name.lower() not in UNLABELLED_FOLDERS
    ]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            shown = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise unreadable(folder, error) from error
    return sorted(shown, key=lambda entry: entry.name)


def unreadable(folder: str | Path, error: OSError) -> UsageError:
    """The error for a folder whose content cannot be listed."""
    reason = error.strerror or error
    return UsageError(f"cannot read the folder {folder}: {reason}; mend its permissions")


def walk(root: Path) -> dict[tuple[str, ...], list[Path]]:
    """Every folder below a root, by its names relative to it, with the images directly in it.

    Hidden and unlabelled folders are left out; a folder that links lead to twice is read once.

    Raises:
        UsageError: A folder cannot be read.
    """
    found: dict[tuple[str, ...], list[Path]] = {}
    seen: set[str] = set()
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        folder = root.joinpath(*parts)
        real = os.path.realpath(folder)
        if real not in seen:
            seen.add(real)
            found[parts] = list_images(folder)
            if any(entry.name.lower() == "pred" for entry in _entries(folder)):
                logger.warning("%s: left out the folder pred, by its name without labels", folder)
            waiting += [(*parts, child.name) for child in list_folders(folder)]
    return dict(sorted(found.items()))


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

    >>> names = ("000_mask.png", "Part3_label.bmp", "7.png", "7_mask_1.png")
    >>> [mask_stem(Path(name)) for name in names]
    ['000', 'Part3', '7', '7']
    """
    return _MASK_ENDING.sub("", _stem(path))


def _is_numbered(mask: Path, image: Path) -> bool:
    """Whether a mask is one of several of its image: `7_mask_0.png` or `7_0.png` of `7.jpg`."""
    ending = _MASK_ENDING.search(_stem(mask))
    number = ending["number"] if ending else _NUMBER.search(_stem(mask))
    return number is not None and loose_stem(mask.stem) != loose_stem(image.stem)


def loose_stem(stem: str) -> str:
    """A stem in lower case and without zero padding.

    >>> loose_stem("IMG_0070") == loose_stem("img_70"), loose_stem("1001")
    (True, '1001')
    """
    return _LEADING_ZEROS.sub("", unicodedata.normalize("NFC", stem).casefold())


def _stem(path: Path) -> str:
    """The stem, composed: some file systems hold names decomposed, as `u` and two dots."""
    return unicodedata.normalize("NFC", path.stem)


def masks_beside(files: Sequence[Path]) -> dict[Path, Path]:
    """Find masks that lie beside their images, by name alone: `7_mask.png` beside `7.png`.

    A file of an image's stem and of another ending (`7.png` beside `7.jpg`) is its mask if it is
    a PNG or BMP and its image is not.

    Returns:
        Mask to image; empty if any pair is unclear.
    """
    stems = _groups(files, _stem)
    found: dict[Path, Path] = {}  # mask to image
    for file in files:
        owners = [f for f in stems.get(mask_stem(file), []) if f != file]
        twins = [f for f in stems[_stem(file)] if f != file]
        if mask_stem(file) != _stem(file) and len(owners) == 1:
            found[file] = owners[0]
        elif len(twins) == 1 and is_lossless(file) and not is_lossless(twins[0]):
            found[file] = twins[0]
    images = Counter(found.values())
    is_clear = all(images[i] == 1 or _is_numbered(mask, i) for mask, i in found.items())
    return found if is_clear else {}


def is_lossless(path: Path) -> bool:
    """Whether a file has an ending under which masks are stored."""
    return path.suffix.lower() in (".png", ".bmp")


def pair_masks(
    images: Sequence[Path], masks: Sequence[Path], where: str, others: Sequence[Path] = ()
) -> dict[Path, tuple[Path, ...]]:
    """Find each image's masks by name, never by order.

    A mask belongs to the image with its stem, or with its stem less an ending such as `_mask`. The
    remaining masks are paired if their names differ from an image's in zero padding or letter case
    only, and only if there is one candidate. Several masks of one image are numbered, as in
    `7_mask_0.png` and `7_mask_1.png`, or `7_0.png` and `7_1.png`.

    Args:
        images: The anomalous images of one defect.
        masks: All mask files of that defect.
        where: Names the folder in messages.
        others: Normal images, whose masks are left out.

    Returns:
        The masks of every image that has any.

    Raises:
        UsageError: Two images share a stem, an image has two masks that are not numbered or a mask
            two images, or a mask has no image (as in a copy whose names are shifted).
    """
    check_unique_stems(images, where)
    by_stem = {_stem(image): image for image in images}
    by_loose_stem = _groups(images, lambda path: loose_stem(path.stem))
    similar_masks = _groups(masks, lambda path: loose_stem(mask_stem(path)))
    elsewhere = {loose_stem(image.stem) for image in others}
    found: dict[Path, list[Path]] = defaultdict(list)
    unpaired = []
    for mask in masks:
        image = by_stem.get(_stem(mask)) or by_stem.get(mask_stem(mask))
        key = loose_stem(mask_stem(mask))
        candidates = [image] if image else by_loose_stem.get(key, [])
        if not candidates and not elsewhere.isdisjoint((key, loose_stem(mask.stem))):
            continue
        candidates = candidates or by_loose_stem.get(_NUMBER.sub("", key), [])
        similar = {mask_stem(other) for other in similar_masks[key]}
        if not candidates:
            unpaired.append(mask)
        elif image is None and (len(candidates) > 1 or len(similar) > 1):
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
        if len(several) > 1 and not all(_is_numbered(mask, image) for mask in several):
            raise UsageError(f"several masks of {image.name} in {where}: {first_few(several)}")
    return {image: tuple(several) for image, several in found.items()}


def check_unique_stems(images: Sequence[Path], where: str) -> None:
    """Refuse two images whose names differ in the ending only.

    Raises:
        UsageError: Names them.
    """
    for same in _groups(images, _stem).values():
        if len(same) > 1:
            raise UsageError(f"several images of one name in {where}: {first_few(same)}")


def _groups(paths: Iterable[Path], key: Callable[[Path], str]) -> Mapping[str, list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return groups
