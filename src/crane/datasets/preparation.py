"""The list of a data set beside its untouched files, and parts of files as files of their own."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from crane.data.files import MissingSplitError
from crane.data.images import read_mask, read_rgb
from crane.data.index import Index
from crane.datasets.card import Card
from crane.errors import UsageError, unwritable
from crane.types import ANOMALOUS, Sample


def read_splits(read: Callable[..., Index], split: str, card: Card | None) -> dict[str, Index]:
    """Read the split that runs use, and the others that are there.

    Args:
        read: reads the split that runs use, or the one given as `split`.
        split: the one that runs use.
        card: what is known of the data set; None if it is no published one.
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
        indices: split to its samples.

    Returns:
        Split to class to entries; `train` and `test` are always there, as other code expects.
    """
    meta: dict[str, dict[str, list[dict[str, Any]]]] = {"train": {}, "test": {}}
    for split, index in indices.items():
        for sample in index.samples:
            listed = meta.setdefault(split, {}).setdefault(sample.class_name, [])
            listed.append(_entry(index, sample))
    return meta


def _entry(index: Index, sample: Sample) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "img_path": index.relative(sample.image),
        "mask_path": index.relative(sample.mask) if sample.mask else "",
        "cls_name": sample.class_name,
        "specie_name": sample.defect,
        "anomaly": sample.label,
    }
    return entry if sample.box is None else {**entry, "box": list(sample.box)}


def write_meta(indices: Mapping[str, Index], path: Path, *, overwrite: bool) -> bool:
    """Write the list of a data set, all of it or nothing.

    Args:
        indices: split to its samples, all of one root.
        path: where to write; in the root, as paths are relative to it.
        overwrite: whether another list there may be replaced.

    Returns:
        True if it was written, False if it was there already.

    Raises:
        UsageError: if another list is there and `overwrite` is not set, or the folder cannot be
            written.
    """
    text = json.dumps(as_meta(indices), indent=1) + "\n"
    if path.is_file():
        if path.read_text(encoding="utf-8-sig") == text:
            return False
        if not overwrite:
            raise UsageError(
                f"no other list at {path}",
                "one that lists other files, or lists them in another way",
                key="overwrite",
                hint="it may be a published one; move it away, or set overwrite=true",
            )
    try:
        _write_text(path, text)
    except OSError as error:
        raise unwritable(path.parent, error, "datasets_dir") from error
    return True


def _write_text(path: Path, text: str) -> None:
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as file:
        part = Path(file.name)
        try:
            file.write(text)
            file.close()
            part.chmod(0o644)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def write_images(
    indices: Mapping[str, Index], folder: Path, advance: Callable[[int, int], None] | None = None
) -> None:
    """Write samples as PNG files of their own in MVTec AD's layout, masks as 0 and 255.

    For data sets whose images are parts of files, such as the thirds of KolektorSDD.

    Args:
        indices: split to its samples.
        folder: a folder that is not there yet; appears when all files are written.
        advance: hears of progress: images written, and images in all.

    Raises:
        UsageError: if the folder is there or cannot be written, or a file cannot be read.
    """
    if folder.exists():
        raise UsageError("a folder that is not there yet", str(folder), key="write_images")
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    total = sum(len(index.samples) for index in indices.values())
    done = 0
    try:
        for split, index in indices.items():
            for sample in index.samples:
                _write_sample(index, sample, split, part)
                done += 1
                if advance is not None:
                    advance(done, total)
        part.rename(folder)
    except OSError as error:
        raise unwritable(folder, error, "write_images") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_sample(index: Index, sample: Sample, split: str, part: Path) -> None:
    name = index.relative(sample.image.with_suffix("")).replace("/", "_")
    if sample.box is not None:
        name += f"_{sample.box[0]}_{sample.box[1]}"
    image = part / sample.class_name / split / sample.defect / f"{name}.png"
    image.parent.mkdir(parents=True, exist_ok=True)
    read_rgb(sample.image, sample.box).save(image)
    if sample.label == ANOMALOUS and sample.mask is not None:
        mask = part / sample.class_name / "ground_truth" / sample.defect / f"{name}_mask.png"
        mask.parent.mkdir(parents=True, exist_ok=True)
        pixels = read_mask(sample.mask, index.mask_threshold, sample.box)
        Image.fromarray(pixels).convert("L").save(mask)
