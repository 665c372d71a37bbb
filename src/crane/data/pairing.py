"""Which mask belongs to which image: told by their names, never by their order."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from crane.data.files import shown
from crane.errors import UsageError

_MASK_ENDING = re.compile(r"[_-](masks?|labels?|gt|segmentation|seg|anno|annotation)$", re.I)
_LEADING_ZEROS = re.compile(r"(?<!\d)0+(?=\d)")


def mask_stem(path: Path) -> str:
    """Strip a mask's name of its extension and of the ending that marks it as a mask.

    >>> [mask_stem(Path(name)) for name in ("000_mask.png", "Part3_label.bmp", "7.png")]
    ['000', 'Part3', '7']
    """
    return _MASK_ENDING.sub("", path.stem)


def loose_stem(stem: str) -> str:
    """Strip a stem of letter case and zero padding, the least that two names may differ in.

    >>> loose_stem("IMG_0070") == loose_stem("img_70"), loose_stem("1001")
    (True, '1001')
    """
    return _LEADING_ZEROS.sub("", stem.casefold())


def pair_masks(images: Sequence[Path], masks: Sequence[Path], where: str) -> dict[Path, Path]:
    """Find each image's mask, by name.

    A mask belongs to the image with its stem, or with its stem less an ending such as `_mask`. What
    is left after that is paired if the names differ in zero padding or letter case only, and only
    where that is beyond doubt.

    Args:
        images: the anomalous images of one defect.
        masks: all mask files of that defect.
        where: names the folder in messages.

    Returns:
        The mask of every image that has one.

    Raises:
        UsageError: if two images share a stem, an image has two masks or a mask two images, or a
            mask has no image (as in a copy whose names are shifted).
    """
    check_unique_stems(images, where)
    by_stem = {image.stem: image for image in images}
    claims: dict[Path, list[Path]] = defaultdict(list)
    left: list[Path] = []
    for mask in masks:
        image = by_stem.get(mask.stem) or by_stem.get(mask_stem(mask))
        if image is None:
            left.append(mask)
        else:
            claims[image].append(mask)
    _claim_loosely(images, masks, left, claims, where)
    for image, found in claims.items():
        if len(found) > 1:
            raise UsageError(f"one mask for {image.name} in {where}", shown(found))
    return {image: found[0] for image, found in claims.items()}


def check_unique_stems(images: Sequence[Path], where: str) -> None:
    """Refuse two images that differ in their extensions only.

    Raises:
        UsageError: names them.
    """
    for same in _groups(images, lambda path: path.stem).values():
        if len(same) > 1:
            raise UsageError(f"one image of each name in {where}", shown(same))


def _claim_loosely(
    images: Sequence[Path],
    masks: Sequence[Path],
    left: Sequence[Path],
    claims: dict[Path, list[Path]],
    where: str,
) -> None:
    """Add to `claims` the masks in `left`, each of which must have one possible image."""
    image_groups = _groups(images, lambda path: loose_stem(path.stem))
    mask_groups = _groups(masks, lambda path: loose_stem(mask_stem(path)))
    unpaired = []
    for mask in left:
        key = loose_stem(mask_stem(mask))
        candidates = image_groups.get(key, [])
        if not candidates:
            unpaired.append(mask)
        elif len(candidates) > 1 or len(mask_groups[key]) > 1:
            raise UsageError(
                f"masks in {where} whose images are beyond doubt",
                f"masks {shown(mask_groups[key])} for images {shown(candidates)}",
            )
        else:
            claims[candidates[0]].append(mask)
    if unpaired:
        raise UsageError(
            f"an image for every mask in {where}",
            f"{len(unpaired)} without: {shown(unpaired)}",
            hint="masks are paired by name; a missing or renamed image shows here",
        )


def _groups(paths: Iterable[Path], key: Callable[[Path], str]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        groups[key(path)].append(path)
    return groups
