"""Writes the list of a data set beside its untouched files, and parts of files as own files."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from crane.data.index import Index, MissingSplitError
from crane.datasets.card import Card
from crane.errors import UsageError, unwritable
from crane.files import making, write_text
from crane.samples import ANOMALOUS, Sample


def read_splits(read: Callable[..., Index], split: str, card: Card | None) -> dict[str, Index]:
    """Read the split that runs use, and all others that exist.

    Args:
        read: Reads the split that runs use, or the one given as `split`.
        split: The one that runs use.
        card: What is known of the data set; None if it is not a published one.
    """
    indices = {split: read()}
    for other in dict.fromkeys(("train", "test", *(card.splits() if card else ()))):
        if other != split:
            try:
                indices[other] = read(split=other)
            except MissingSplitError:
                continue
    return indices


def as_meta(indices: Mapping[str, Index]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """List samples in the schema of `meta.json`.

    Args:
        indices: Split to its samples.

    Returns:
        Split to class to entries; with `train` and `test`, which other code expects.
    """
    meta: dict[str, dict[str, list[dict[str, Any]]]] = {"train": {}, "test": {}}
    for split, index in indices.items():
        for sample in index.samples:
            entry = {
                "img_path": index.relative(sample.image),
                "mask_path": _mask_paths(index, sample),
                "cls_name": sample.class_name,
                "specie_name": sample.defect,
                "anomaly": sample.label,
                **({} if sample.box is None else {"box": list(sample.box)}),
            }
            meta.setdefault(split, {}).setdefault(sample.class_name, []).append(entry)
    return meta


def _mask_paths(index: Index, sample: Sample) -> str | list[str]:
    """The path of a sample's mask, or a list if there are several."""
    paths = list(map(index.relative, sample.masks))
    return paths if len(paths) > 1 else "".join(paths)


def write_meta(indices: Mapping[str, Index], path: Path, *, overwrite: bool) -> bool:
    """Write the list of a data set.

    Args:
        indices: Split to its samples, all with the same root.
        path: Where to write; in the root, as paths are relative to it.
        overwrite: Whether to replace another list.

    Returns:
        True if it was written, False if the same list exists.

    Raises:
        UsageError: Another list exists and `overwrite` is not set, or the folder cannot be written.
    """
    text = json.dumps(as_meta(indices), indent=1) + "\n"
    if path.is_file():
        if path.read_text(encoding="utf-8-sig") == text:
            return False
        if not overwrite:
            raise UsageError(
                f"{path} is another list, maybe a published one; move it away, or replace it with "
                "overwrite=true",
                key="overwrite",
            )
    try:
        write_text(path, text)
    except OSError as error:
        raise unwritable(path.parent, error, "datasets_dir") from error
    return True


def write_images(
    indices: Mapping[str, Index],
    folder: Path,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write samples as PNG files in MVTec AD's layout, masks as 0 and 255.

    Args:
        indices: Split to its samples.
        folder: A folder that does not exist; appears when all files are written.
        advance: Called with the images written and the images in all.

    Raises:
        UsageError: The folder exists or cannot be written, or a file cannot be read.
    """
    if folder.exists():
        raise UsageError(f"{folder} exists; choose a new write_images", key="write_images")
    samples = [(split, index, one) for split, index in indices.items() for one in index.samples]
    try:
        with making(folder) as made:
            for number, (split, index, sample) in enumerate(samples, 1):
                _write_sample(index, sample, split, made)
                advance(number, len(samples))
    except OSError as error:
        raise unwritable(folder, error, "write_images") from error


def _write_sample(index: Index, sample: Sample, split: str, folder: Path) -> None:
    from PIL import Image

    name = index.relative(sample.image.with_suffix("")).replace("/", "_")
    if sample.box is not None:
        name += f"_{sample.box[0]}_{sample.box[1]}"
    image = folder / sample.class_name / split / sample.defect / f"{name}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    index.read_image(sample).save(image)
    if sample.label == ANOMALOUS and sample.mask is not None:
        mask = folder / sample.class_name / "ground_truth" / sample.defect / f"{name}_mask.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        pixels = index.read_mask(sample)
        Image.fromarray(pixels).convert("L").save(mask)
