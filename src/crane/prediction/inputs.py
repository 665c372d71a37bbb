"""Images to predict on, and the names of their outputs."""

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import TypeVar

from crane.checks import shown
from crane.data import IMAGE_SUFFIXES, is_image
from crane.data.doubts import MAX_LOOKED_AT, image_doubt, remarks
from crane.data.filenames import first_few, may_be_image, unreadable, warn_of_other_files
from crane.data.lists import list_remote
from crane.data.roles import Roles
from crane.errors import UsageError, counted
from crane.files import cut_name, is_remote
from crane.samples import ANOMALOUS

logger = logging.getLogger(__name__)

LIST_SUFFIXES = (".txt", ".lst", ".parquet")
"""Endings of files that list images: one path a line, or a column of paths."""

PATH_COLUMNS = ("image", "path", "file", "filename")
"""Names of the column of paths in a Parquet file; the first that is there is read."""

OWN = ({"settings.json", "scores"}, {"record.json", "config.yaml"})
"""What is in every folder of a prediction, and in every folder of a run."""


Named = TypeVar("Named", str, Path)


class ListFile:
    """The images that a file names; streamed anew in each pass.

    Args:
        file: Text in UTF-8 with a path a line, or Parquet with a column of `PATH_COLUMNS`. Paths
            are relative to its folder; empty lines and lines that start with `#` are skipped.
        key: The configuration key it comes from, for errors.

    Raises:
        UsageError: It names no image, is not text, or is not Parquet with such a column.
    """

    def __init__(self, file: Path, key: str = "input") -> None:
        self.file, self.key = file, key
        self.num_images, root, previous = 0, "", None
        for path in self._read():
            self.num_images += 1
            folder = os.path.split(path)[0]
            if folder != previous:
                parts = [root or _absolute(folder), _absolute(folder)]
                root, previous = os.path.commonpath(parts), folder
        if self.num_images == 0:
            raise UsageError(f"{file} names no image", key=key)
        self.root = Path(root)
        """The deepest folder that holds all of them."""

    def __len__(self) -> int:
        return self.num_images

    def __iter__(self) -> Iterator[str]:
        num_read = 0
        for num_read, path in enumerate(self._read(), start=1):
            if num_read > self.num_images:
                break
            yield path
        if num_read != self.num_images:
            raise UsageError(
                f"{self.file} changed while it was predicted on: it listed "
                f"{counted(self.num_images, 'image')} at first",
                key=self.key,
            )

    def _read(self) -> Iterator[str]:
        folder = "" if self.file.parent == Path() else str(self.file.parent)
        if self.file.suffix.lower() == ".parquet":
            yield from (_inside(folder, path) for path in self._column())
            return
        try:
            with self.file.open(encoding="utf-8-sig") as lines:
                for line in map(str.strip, lines):
                    if line and not line.startswith("#"):
                        yield _inside(folder, line)
        except UnicodeDecodeError as error:
            raise UsageError(
                f"the list {self.file} is not text in UTF-8: {error}", key=self.key
            ) from error

    def _column(self) -> Iterator[str]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(self.file) as file:
                names = [name for name in PATH_COLUMNS if name in file.schema_arrow.names]
                if not names:
                    raise UsageError(
                        f"{self.file} has no column of paths; call it {PATH_COLUMNS[0]}",
                        key=self.key,
                    )
                for batch in file.iter_batches(columns=names[:1]):
                    paths = batch.column(0)
                    if paths.null_count or paths.type not in (pa.string(), pa.large_string()):
                        raise UsageError(
                            f"the column {names[0]} of {self.file} must hold text in each row",
                            key=self.key,
                        )
                    yield from paths.to_pylist()
        except pa.ArrowException as error:
            raise UsageError(f"cannot read {self.file}: {error}", key=self.key) from error


@dataclass(frozen=True)
class ImageList:
    """Image files in a fixed order, and the folder that the names of outputs are relative to.

    >>> images = ImageList(Path("photos"), ("photos/left/1.jpg", "photos/right/1.jpg"))
    >>> [str(images.output("maps", path, ".png")) for path in images]
    ['maps/left/1.jpg.png', 'maps/right/1.jpg.png']
    """

    root: Path
    """A folder that holds all images, at any depth."""
    paths: tuple[str, ...] | ListFile
    """The images as they are opened."""

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[str]:
        return iter(self.paths)

    def fingerprint(self) -> str:
        """A sha256 of the paths in their order; the files are not opened."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(os.fsencode(path) + b"\0")
        return digest.hexdigest()

    def name(self, path: str) -> str:
        """The path of an image relative to `root`, with `/` between folders."""
        return Path(os.path.relpath(path, self.root)).as_posix()

    def names(self) -> Iterator[str]:
        """The names of the images in their order."""
        return map(self.name, self.paths)

    def output(self, folder: str, path: str, suffix: str) -> Path:
        """Name the output of an image, relative to the folder of all outputs.

        The name keeps the folders and the suffix of the image, so that no two images share one; it
        does not depend on the other images. A name too long for file systems is cut, and then ends
        in a digest.

        Args:
            folder: Folder for this kind of output.
            path: The image, one of `paths`.
            suffix: Ending of the output.
        """
        relative = Path(os.path.relpath(path, self.root))
        return Path(folder) / relative.with_name(cut_name(relative.name, suffix))


def find_images(
    spec: str | Path | Sequence[str | Path] | None,
    *,
    exclude: Path | None = None,
    key: str = "input",
) -> ImageList:
    """Find the images that a file, folder, glob or list names.

    - A folder gives every image below it. Symbolic links are followed; hidden files are skipped.
      Folders inside it that predictions and runs of crane wrote are left out, with their number.
    - A glob (`photos/**/*.jpg`) gives the images among its matches.
    - A `.txt`, `.lst` or `.parquet` file lists images, see `ListFile`. They are not checked until
      they are opened. A single list is streamed: its lines keep their order and are never all in
      memory; a file that is listed twice is predicted on twice.
    - `s3://bucket/photos` gives every image there, see `crane.data.lists`.
    - Any other file is taken as an image, whatever its name.
    - A sequence gives all that its entries give.

    Args:
        spec: What to look for.
        exclude: A folder to leave out, such as the one for outputs; ignored for a single list.
        key: The configuration key of `spec`, for errors.

    Returns:
        The images of a single list in its order, all others sorted by path, each once.

    Raises:
        UsageError: An entry does not exist or gives no image, or a folder cannot be read.
    """
    entries = [spec] if isinstance(spec, (str, Path)) else list(spec or ())
    if not entries or not all(map(str, entries)):
        raise UsageError(
            f"must name a file, folder, glob or list, or several as [a,b], not {shown(spec)}",
            key=key,
        )
    if len(entries) == 1 and _is_list(Path(entries[0]).expanduser()):
        listed = ListFile(Path(entries[0]).expanduser(), key)
        return ImageList(listed.root, listed)
    left_out = None if exclude is None else _absolute(exclude) + os.sep
    found: dict[str, str] = {}
    roots: list[str] = []
    for entry in entries:
        root, paths = _find(entry, key)
        roots.append(_absolute(root))
        for path in paths:
            absolute = _absolute(path)
            if left_out is None or not absolute.startswith(left_out):
                found.setdefault(absolute, str(path))
    if not found:
        raise UsageError(
            f"all images lie in {exclude}, where outputs are written; choose another output",
            key="output",
        )
    ordered = sorted(found, key=Path)
    return ImageList(Path(os.path.commonpath(roots)), tuple(found[path] for path in ordered))


def _inside(folder: str, path: str) -> str:
    # A Path for each of millions of lines would take several times as long.
    return path if is_remote(path) else os.path.join(folder, path)  # noqa: PTH118


def _find(entry: str | Path, key: str) -> tuple[Path, Sequence[str | Path]]:
    if is_remote(entry):
        paths = [one for one in list_remote(str(entry), key) if is_image(Path(one))]
        return Path(str(entry)), _some(paths, f"there is no image below {entry}", key)
    path = Path(entry).expanduser()
    if path.is_dir():
        return path, _some(list(_walk(path)), f"there is no image below {path}", key)
    if _is_list(path):
        listed = ListFile(path, key)
        return listed.root, list(listed)
    if path.is_file():
        return path.parent, [path]
    if not has_magic(str(path)):
        raise UsageError(f"there is no file or folder {path}", key=key)
    # Path.glob takes no absolute patterns.
    matches = [Path(one) for one in glob(str(path), recursive=True)]  # noqa: PTH207
    images = [one for one in matches if is_image(one) and one.is_file()]
    return _fixed_part(path), _some(images, f"no image matches {path}", key)


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in LIST_SUFFIXES and path.is_file()


def _some(paths: list[Named], problem: str, key: str) -> list[Named]:
    if not paths:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise UsageError(f"{problem}; images are files ending in {suffixes}", key=key)
    return paths


def _walk(folder: Path) -> Iterator[Path]:
    # Links to folders are followed; each real folder is visited once, which ends loops of links.
    seen: set[str] = set()
    own: dict[str, int] = {}
    others: list[str] = []
    for here, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        if here != str(folder) and is_output({*files, *folders}):
            inside = (name for _, _, names in os.walk(here) for name in names)
            own[os.path.relpath(here, folder)] = sum(is_image(Path(name)) for name in inside)
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(here) / name for name in files):
            if is_image(path) and path.is_file():
                yield path
            elif may_be_image(path):
                others.append(os.path.relpath(path, folder))
    if own:
        number = counted(sum(own.values()), "image")
        logger.warning("%s: left out %s that crane wrote: %s", folder, number, first_few(own))
    warn_of_other_files(folder, others)


def is_output(names: Collection[str]) -> bool:
    """Whether a folder with these files and folders is a prediction or a run of crane."""
    return any(marks <= set(names) for marks in OWN)


def _refuse(error: OSError) -> None:
    raise unreadable(error.filename, error) from error


def explain(
    images: ImageList, key: str, *, are_normal: bool = False, white_level: int | None = None
) -> None:
    """Log how many images there are and where, and warn of what is doubtful about them.

    Args:
        images: The images; those of a list are not counted by folder.
        key: The key that named them.
        are_normal: Whether they count as normal, as for calibration.
        white_level: The white of 16-bit images, if it is known.
    """
    what = "count as normal" if are_normal else "are scored; no labels are read"
    if isinstance(images.paths, ListFile):
        logger.info("%s: %s %s", key, counted(len(images), "image"), what)
        return
    folders = Counter(os.path.relpath(Path(path).parent, images.root) for path in images)
    shown = first_few(f"{folder} {number}" for folder, number in folders.items())
    logger.info("%s: %s %s (%s)", key, counted(len(images), "image"), what, shown)
    roles = Roles()
    parts = {part for folder in folders for part in Path(folder).parts}
    masks = [part for part in sorted(parts) if roles.is_mask(part)]
    if masks:
        logger.warning("%s: folders of masks are taken as images: %s", key, first_few(masks))
    wrong = [part for part in sorted(parts) if roles.says(part) == ANOMALOUS]
    if are_normal and wrong:
        logger.warning("%s: folders count as normal despite their names: %s", key, first_few(wrong))
    looked_at = images.paths[:: max(1, len(images) // MAX_LOOKED_AT)][:MAX_LOOKED_AT]
    local = (path for path in looked_at if white_level is None and not is_remote(path))
    looked_at = tuple(local)
    doubts = [(path, doubt) for path in looked_at if (doubt := image_doubt(path)) is not None]
    for text in remarks(doubts, len(looked_at), "image", ""):
        logger.warning("%s: %s", key, text)


def _fixed_part(pattern: Path) -> Path:
    fixed = pattern
    while has_magic(str(fixed)):
        fixed = fixed.parent
    return fixed


def _absolute(path: str | Path) -> str:
    # Path.resolve would follow links, which may lead outside the root.
    return os.path.abspath(path)  # noqa: PTH100
