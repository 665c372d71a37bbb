"""Unpacks archives, writes lists beside the untouched files, and parts of files as own files.

Nothing of an archive leaves its folder, is overwritten or left half done.
"""

import errno
import gzip
import json
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from crane.data.index import Index, MissingSplitError
from crane.datasets.card import Card
from crane.errors import UsageError, unwritable
from crane.files import making, write_text
from crane.samples import ANOMALOUS, Sample

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")
"""Supported archives, by the ends of their names."""

_BROKEN = (
    EOFError,
    ValueError,
    RuntimeError,  # an encrypted zip, or a compression that Python does not know
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
)
_UNFIT_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
"""What systems report for names that they cannot write."""

Info = zipfile.ZipInfo | tarfile.TarInfo
Advance = Callable[[int, int], None]


def unpack(
    archive: Path,
    folder: Path,
    advance: Advance = lambda done, total: None,
    check: Callable[[Path], None] = lambda folder: None,
) -> bool:
    """Unpack an archive into a folder that is missing or empty, completely or not at all.

    Args:
        archive: The archive, of one of `SUFFIXES`.
        folder: Where its files belong.
        advance: Called with the bytes written and the bytes in all.
        check: Called with the unpacked files, in a temporary folder of the same name; what it
            raises leaves nothing.

    Returns:
        True if it was unpacked, False if the folder already holds its files.

    Raises:
        UsageError: The archive is missing, broken, encrypted, of another kind, larger than the free
            space, or holds links, special files, two files at one place or paths that leave the
            folder; or the folder holds something else or cannot be written.
    """
    if not archive.is_file():
        raise UsageError(f"there is no archive {archive}", key="archive")
    name = archive.name.casefold()
    if not name.endswith(SUFFIXES):
        raise UsageError(f"{archive.name} must end in one of {', '.join(SUFFIXES)}", key="archive")
    try:
        with (zipfile.ZipFile if name.endswith(".zip") else tarfile.open)(archive) as opened:
            files = _files(opened, archive)
            if folder.is_dir() and any(folder.iterdir()):
                _check_same(files, folder, archive)
                check(folder)
                return False
            _put(opened, files, folder, advance, check)
            return True
    except UsageError:
        raise
    except (*_BROKEN, OSError) as error:  # write errors are handled in _put
        raise UsageError(
            f"cannot read the archive {archive}: {error or type(error).__name__}; if it is "
            "incomplete, download it again",
            key="archive",
        ) from error


def _files(
    opened: zipfile.ZipFile | tarfile.TarFile, archive: Path
) -> dict[PurePosixPath, tuple[Info, int]]:
    """The files of an archive with their sizes in bytes, if it is harmless on any system."""
    files: dict[PurePosixPath, tuple[Info, int]] = {}
    taken: set[str] = set()
    folders: set[str] = set()
    for info in opened.infolist() if isinstance(opened, zipfile.ZipFile) else opened:
        if isinstance(info, zipfile.ZipInfo):
            # Zip demands forward slashes; some archives made on Windows hold backslashes.
            info.filename = info.filename.replace("\\", "/")
            name, size, is_folder = info.filename, info.file_size, info.is_dir()
            is_plain = stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
        else:
            name, size, is_folder, is_plain = info.name, info.size, info.isdir(), info.isreg()
        if not (is_plain or is_folder):
            raise UsageError(f"{archive} holds a link or a device: {name}", key="archive")
        if is_folder:
            continue
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or ":" in name or not path.parts:
            raise UsageError(f"{archive} holds a path outside its folder: {name}", key="archive")
        place, above = str(path).casefold(), {str(p).casefold() for p in path.parents}
        if place in taken or place in folders or not taken.isdisjoint(above):
            raise UsageError(f"{archive} holds two files at one place: {name}", key="archive")
        taken.add(place)
        folders |= above
        files[path] = info, size
    if not files:
        raise UsageError(f"{archive} holds no files", key="archive")
    return files


def _put(
    opened: zipfile.ZipFile | tarfile.TarFile,
    files: Mapping[PurePosixPath, tuple[Info, int]],
    folder: Path,
    advance: Advance,
    check: Callable[[Path], None],
) -> None:
    if isinstance(opened, tarfile.TarFile):  # since Python 3.10.12
        opened.extraction_filter = getattr(tarfile, "data_filter", None)
    done, total = 0, sum(size for _, size in files.values())
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
        if total > free:
            raise UsageError(
                f"unpacking needs {total / 1e9:.1f} GB in {folder.parent}, but only "
                f"{free / 1e9:.1f} GB are free; choose another datasets_dir",
                key="datasets_dir",
            )
        for left in folder.parent.glob(f".{folder.name}-*"):  # by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        with making(folder) as unpacked:
            for info, size in files.values():
                opened.extract(info, unpacked)  # type: ignore[arg-type]  # each archive's own
                done += size
                advance(done, total)
            check(unpacked)
    except gzip.BadGzipFile:
        raise  # an OSError too, but a fault of the archive
    except OSError as error:
        if error.errno in _UNFIT_NAMES:
            raise UsageError(
                f"it holds paths that cannot be written here: {error}", key="archive"
            ) from error
        raise unwritable(folder, error, "datasets_dir") from error


def _check_same(
    files: Mapping[PurePosixPath, tuple[Info, int]], folder: Path, archive: Path
) -> None:
    """Refuse a folder that lacks the archive's files; it may hold others beside them."""
    for path, (_, size) in files.items():
        file = folder / path
        if not file.is_file() or file.stat().st_size != size:
            raise UsageError(
                f"{folder} is not empty and does not hold {path} as {archive.name} does; nothing "
                "is overwritten: move it away, or choose another targets.NAME.root",
                key="targets.NAME.root",
            )


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
