"""Images to predict on, and the names of their outputs."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from crane.checks import shown
from crane.data import IMAGE_SUFFIXES, is_image
from crane.errors import UsageError, counted
from crane.files import cut_name

LIST_SUFFIXES = (".txt", ".lst")
"""Endings of files that list images, one path a line."""


class ListFile:
    """The images that a text file names, one a line; streamed anew in each pass.

    Args:
        file: The list, in UTF-8. Paths are relative to its folder; empty lines and lines that
            start with `#` are skipped.
        key: The configuration key it comes from, for errors.

    Raises:
        UsageError: It names no image, or is not text.
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
        try:
            with self.file.open(encoding="utf-8-sig") as lines:
                for line in map(str.strip, lines):
                    if line and not line.startswith("#"):
                        # A Path for each of millions of lines would take several times as long.
                        yield os.path.join(folder, line)  # noqa: PTH118
        except UnicodeDecodeError as error:
            raise UsageError(
                f"the list {self.file} is not text in UTF-8: {error}", key=self.key
            ) from error


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
    - A glob (`photos/**/*.jpg`) gives the images among its matches.
    - A `.txt` or `.lst` file lists images, see `ListFile`. They are not checked until they are
      opened. A single list is streamed: its lines keep their order and are never all in memory; a
      file that is listed twice is predicted on twice.
    - Any other file is taken as an image, whatever its name.
    - A sequence gives all that its entries give.

    Args:
        spec: What to look for.
        exclude: A folder to leave out, such as the one for outputs; ignored for a single list.
        key: The configuration key of `spec`, for errors.

    Returns:
        The images of a single list in its order, all others sorted by path, each once.

    Raises:
        UsageError: An entry does not exist or gives no image.
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


def _find(entry: str | Path, key: str) -> tuple[Path, Sequence[str | Path]]:
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


def _some(paths: list[Path], problem: str, key: str) -> list[Path]:
    if not paths:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise UsageError(f"{problem}; images are files ending in {suffixes}", key=key)
    return paths


def _walk(folder: Path) -> Iterator[Path]:
    # Links to folders are followed; each real folder is visited once, which ends loops of links.
    seen: set[str] = set()
    for here, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(here) / name for name in files if is_image(Path(name)))


def _fixed_part(pattern: Path) -> Path:
    fixed = pattern
    while has_magic(str(fixed)):
        fixed = fixed.parent
    return fixed


def _absolute(path: str | Path) -> str:
    # Path.resolve would follow links, which may lead outside the root.
    return os.path.abspath(path)  # noqa: PTH100
