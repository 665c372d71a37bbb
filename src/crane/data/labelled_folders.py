"""Folders whose names are labels: MVTec AD's layout and its relatives, and a user's own folders.

root/bottle/test/good/000.png                 one folder per class
root/bottle/test/broken/000.png               any name but that of a normal folder: a defect
root/bottle/ground_truth/broken/000_mask.png  or directly in ground_truth, or beside the image
root/bottle/ground_truth/broken/000/*.png     several masks of one image (MVTec LOCO AD)
root/test/good/000.png                        one class only: its level may be missing
root/good/000.png, root/scratched/7.jpg       no splits: everything is `test`

Below a label, images may lie at any depth; a level such as `images` may stand anywhere. What a name
means is decided in `crane.data.roles`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from crane.checks import PathText
from crane.data.filenames import (
    check_unique_stems,
    first_few,
    list_folders,
    logger,
    loose_stem,
    masks_beside,
    pair_masks,
    walk,
)
from crane.data.index import (
    ClassNames,
    Index,
    MaskThreshold,
    MaskValues,
    Readers,
    Request,
    WhiteLevel,
    missing_split,
)
from crane.data.roles import SPLITS, Names, Roles, is_level, plain_name, same_name, split_of
from crane.errors import UsageError, counted
from crane.samples import ANOMALOUS, NORMAL, Sample

MAX_NESTING = 3
"""Folders around everything, one inside the other, that are skipped."""


class _Place(NamedTuple):
    """What the names on the way to a folder mean."""

    path: tuple[str, ...]
    """Its names, from the root."""
    split: str | None
    is_mask: bool
    rest: tuple[str, ...]
    """Class, label and deeper levels; classes may lack theirs."""
    start: tuple[str, ...]
    """The first names of `rest`, with the split in its place."""


class _Folder(NamedTuple):
    """The files of one folder, images of one label or masks."""

    path: Path
    files: list[Path]
    split: str | None
    names: tuple[str, ...]
    """The label and deeper levels, as names are compared."""
    label_name: str


def index_folder(
    name: str,
    root: PathText | Path,
    split: str,
    *,
    mask_threshold: MaskThreshold,
    classes: ClassNames = None,
    fetch: str = "",
    normal: Names = None,
    anomalous: Names = None,
    masks: Names = None,
    mask_values: MaskValues = "luminance",
    mask_invert: bool = False,
    white_level: WhiteLevel = None,
) -> Index:
    """Read a data set whose folders say what is normal.

    Classes and splits may each lack their level.

    Args:
        name: As in `Request`; so are `root`, `split`, `mask_threshold`, `classes`, `fetch`,
            `mask_values`, `mask_invert` and `white_level`.
        root: The folder.
        split: The split.
        mask_threshold: See `Request`.
        classes: The classes to read; None for all.
        fetch: Where to get the data, for errors.
        normal: Names of the folders of normal images; None for the usual ones.
        anomalous: Names of the folders of anomalous images, all others being left out; None for
            all that are not normal.
        masks: Names of the folders of masks; None for the usual ones, an empty list for none.
        mask_values: See `Request`.
        mask_invert: See `Request`.
        white_level: See `Request`.

    Returns:
        The images with their labels and masks. Anomalous images without a mask in a data set with
        masks are kept, and a warning names them.

    Raises:
        UsageError: The folder, the split, a class or any image is missing, it is unclear what is
            normal, or masks and images cannot be paired by name.
    """
    request = Request(
        *(name, root, split, mask_threshold, classes, fetch),
        *(mask_values, mask_invert, white_level),
    )
    folder = place = request.folder()
    roles = Roles.of(normal, anomalous, masks)
    for _ in range(MAX_NESTING):
        readers = folders(name, place, split, roles=roles)
        inside = list_folders(place)
        if readers is not None or len(inside) != 1:
            break
        place = inside[0]
    if readers is None:
        shown = first_few(f.name + "/" for f in list_folders(folder))
        if not shown:
            raise request.refusal(
                "holds no folders, and so no labels; crane predict scores images without labels",
                folder,
            )
        raise request.refusal(
            f"holds {shown}, none of which says what is normal; name the folders of normal images "
            f"with normal=[NAME] (source.{name}.normal or targets.{name}.normal), call one good, "
            "normal or ok, or give each class a folder with train and test in it",
            folder,
        )
    index = request.index(folder, readers)
    _refuse_masks_as_images(index, roles)
    return index


def folders(name: str, root: Path, split: str, *, roles: Roles | None = None) -> Readers | None:
    """The layout of MVTec AD and its relatives (see `index_folder`)."""
    tree, roles = walk(root), roles or Roles()
    places = [_place(path, roles) for path in tree]
    read = partial(_read_class, name, root, split, tree, roles)
    if _is_class(places, roles) and not _has_classes_in_splits(places, roles):
        only = root.resolve().name
        return {only: partial(read, only, places)}
    inside: dict[str, list[_Place]] = defaultdict(list)
    for place in places:
        if place.rest:
            start = tuple(part for part in place.start if part != place.rest[0])
            inside[place.rest[0]].append(place._replace(rest=place.rest[1:], start=start))
    classes = {c: found for c, found in inside.items() if _is_class(found, roles)}
    others = [p.path for p in places if not p.rest or p.rest[0] not in classes]
    num_others = sum(len(tree[path]) for path in others)
    if classes and num_others:
        names = first_few(dict.fromkeys("/".join(path) or "." for path in others if tree[path]))
        logger.warning(
            "%s: ignored %s in folders that are not classes: %s",
            *(name, counted(num_others, "image"), names),
        )
    return {c: partial(read, c, found) for c, found in classes.items()} or None


def _is_class(places: Iterable[_Place], roles: Roles) -> bool:
    """Whether the first level of folders says splits or labels."""
    firsts = {place.start[0] for place in places if place.start}
    return any(same_name(first) in SPLITS or roles.is_known(first) for first in firsts)


def _has_classes_in_splits(places: Iterable[_Place], roles: Roles) -> bool:
    """Whether classes lie inside splits, as in test/bottle/good."""
    rests = [p.rest for p in places if not p.is_mask]
    first = any(rest and roles.is_known(rest[0]) for rest in rests)
    return not first and any(len(rest) > 1 and roles.is_known(rest[1]) for rest in rests)


def _place(path: tuple[str, ...], roles: Roles) -> _Place:
    split: str | None = None
    is_mask = False
    rest: list[str] = []
    start: list[str] = []
    for part in path:
        if roles.is_mask(part):
            is_mask = True
        elif split is None and not is_mask and same_name(part) in SPLITS and len(rest) < 2:
            split = SPLITS[same_name(part)]
            start.append(part)
        elif not is_level(part) or roles.is_named(part):
            rest.append(part)
            start.append(part)
    if is_mask:
        start = []
        split = split or next((SPLITS[n] for p in path if (n := same_name(p)) in SPLITS), None)
        rest = [part for part in rest if same_name(part) not in SPLITS]
    return _Place(path, split, is_mask, tuple(rest), tuple(start))


def _read_class(
    name: str,
    root: Path,
    split: str,
    tree: Mapping[tuple[str, ...], list[Path]],
    roles: Roles,
    class_name: str,
    places: list[_Place],
) -> list[Sample]:
    """Read one class: label its images, then pair the masks."""
    present = {place.split for place in places if place.split and not place.is_mask} or {"test"}
    has_splits = any(place.split and not place.is_mask for place in places)
    wanted = split_of(split, present)
    if wanted not in present:
        base = root / class_name if (class_name,) in tree else root
        known = [one for one in dict.fromkeys(SPLITS.values()) if one in present]
        raise missing_split(name, base, split, known)
    images, masks, stray = [], [], []
    for place in places:
        files = tree[place.path]
        names = tuple(map(same_name, place.rest))
        label_name = place.rest[0] if place.rest else ""
        own = place.split if has_splits else "test"
        found = _Folder(root.joinpath(*place.path), list(files), own, names, label_name)
        if not files:
            continue
        if place.is_mask:
            masks.append(found._replace(split=place.split))
        elif label_name and own is not None and roles.label(label_name) is not None:
            _check_one_label(found, place, roles, name)
            images.append(found)
        elif own in (wanted, None):
            stray.append(found)
    in_split = [found for found in images if found.split == wanted]
    _check_labels(name, class_name, in_split, stray, roles)
    pairs = _pair_beside(images, roles)
    _pair_masks(f"{name}/{class_name}", images, masks, roles, pairs)
    samples = []
    for found in in_split:
        check_unique_stems(found.files, str(found.path))
        label = NORMAL if roles.is_normal(found.label_name) else ANOMALOUS
        defect = "good" if label == NORMAL else found.label_name
        samples += [
            Sample(image, label, class_name, defect).masked(pairs.get(image, ()) if label else ())
            for image in found.files
        ]
    return samples


def _check_one_label(found: _Folder, place: _Place, roles: Roles, name: str) -> None:
    """Refuse a folder that contradicts the label it lies in, as a data set copied into itself."""
    label = roles.label(found.label_name)
    against = [part for part in place.rest[1:] if roles.says(part) not in (None, label)]
    if against:
        raise UsageError(
            f"{found.path} is a folder {against[0]} inside {found.label_name}, so its label is "
            "unclear, and its images may be counted twice; name the folders that count with "
            f"normal=[NAME] and anomalous=[NAME] (source.{name} or targets.{name})",
            key=f"targets.{name}.anomalous",
        )


def _check_labels(
    name: str, class_name: str, images: list[_Folder], stray: list[_Folder], roles: Roles
) -> None:
    """Refuse or remark on labels in doubt, and name images without a label."""
    key = f"source.{name}.normal or targets.{name}.normal"
    doubt = roles.doubt(found.label_name for found in images)
    if doubt is not None:
        text, is_refused = doubt
        text = f"data set {name}, class {class_name}: {text}; set normal=[NAME]"
        if is_refused:
            raise UsageError(f"{text} ({key})", key=key)
        logger.warning("%s (%s)", text, key)
    if stray:
        number = sum(len(found.files) for found in stray)
        places = first_few(str(found.path) for found in stray)
        lie = counted(number, "image lies", "images lie")
        text = f"{lie} in no folder that counts as a label: {places}"
        if not images:
            raise UsageError(
                f"data set {name}, class {class_name}: {text}; unlabelled images are for "
                "crane predict",
                key=key,
            )
        logger.warning("%s/%s: left out, %s", name, class_name, text)


def _pair_beside(images: list[_Folder], roles: Roles) -> dict[Path, tuple[Path, ...]]:
    """Take masks that lie beside their images out of the images, and pair them."""
    from crane.data.doubts import looks_like_mask

    pairs: dict[Path, tuple[Path, ...]] = {}
    for found in images:
        masks = {} if roles.masks == () else masks_beside(found.files)
        first = list(masks)[:3]
        if not first or not all(map(looks_like_mask, first)) or looks_like_mask(masks[first[0]]):
            continue
        found.files[:] = [file for file in found.files if file not in masks]
        for mask, image in masks.items():
            pairs[image] = (*pairs.get(image, ()), mask)
    return pairs


def _pair_masks(
    name: str,
    images: list[_Folder],
    masks: list[_Folder],
    roles: Roles,
    pairs: dict[Path, tuple[Path, ...]],
) -> None:
    """Add the masks that lie in folders of their own; masks of normal images are left out."""
    num_normal = sum(
        image in pairs for f in images if roles.is_normal(f.label_name) for image in f.files
    )
    for mask in masks:
        of_split = [f for f in images if mask.split in (None, f.split)]
        near = [f for f in of_split if f.names[: len(mask.names)] == mask.names]
        if not mask.names:
            label = plain_name(mask.path.name, without_masks=True)
            near = [f for f in near if plain_name(f.label_name) == label] or near
        anomalous = [i for f in near if not roles.is_normal(f.label_name) for i in f.files]
        normal = [i for f in near if roles.is_normal(f.label_name) for i in f.files]
        found: dict[Path, tuple[Path, ...]] = {}
        if near or not mask.names:
            found = pair_masks(anomalous, mask.files, str(mask.path), normal)
        elif owner := _owner(mask, of_split):
            found = {owner: tuple(mask.files)}
        elif roles.says(mask.names[0]) != NORMAL:
            pair_masks([], mask.files, str(mask.path))
        twice = [image for image in found if image in pairs]
        if twice:
            raise UsageError(
                f"several masks of {twice[0].name} in {mask.path} and {pairs[twice[0]][0].parent}; "
                "name the folders that count with masks=[NAME]"
            )
        pairs |= found
        num_normal += len(mask.files) - sum(map(len, found.values()))
    if num_normal:
        logger.warning("%s: left out %s of normal images", name, counted(num_normal, "mask"))


def _owner(mask: _Folder, images: list[_Folder]) -> Path | None:
    """The image that has a folder of masks of its own, by its stem."""
    above = [f for f in images if f.names[: len(mask.names) - 1] == mask.names[:-1]]
    owners = [
        image
        for found in above
        for image in found.files
        if loose_stem(image.stem) == loose_stem(mask.names[-1])
    ]
    return owners[0] if len(owners) == 1 else None


def _refuse_masks_as_images(index: Index, roles: Roles) -> None:
    """Refuse a folder of anomalous images that look like masks."""
    from crane.data.doubts import looks_like_mask

    firsts = {s.image.parent: s for s in reversed(index.samples) if s.label == ANOMALOUS}
    if roles.masks is not None:
        return
    for folder, sample in firsts.items():
        if not roles.is_named(sample.defect) and looks_like_mask(sample.image):
            raise UsageError(
                f"the images in {folder} look like masks, but its name makes them anomalous images "
                f"of data set {index.name}; set masks=[{folder.name}], or masks=[] if there are "
                f"no masks (source.{index.name}.masks or targets.{index.name}.masks)",
                key=f"source.{index.name}.masks or targets.{index.name}.masks",
            )
