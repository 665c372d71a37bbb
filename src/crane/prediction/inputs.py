"""Which images to predict on, and what their outputs are called."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import NamedTuple

from crane.data import IMAGE_SUFFIXES, is_image
from crane.errors import UsageError

LIST_SUFFIXES = (".txt", ".lst")
"""A file that ends so lists images, one path a line."""
KEY = "input"


class ImageFile(NamedTuple):
    """One of a list of images."""

    place: int
    """Its position in the list."""
    path: str
    """The file as it is opened."""


class ListFile:
    """The images that a text file names, one a line, read anew in each pass: never all in memory.

    Args:
        file: the list, UTF-8. Paths are relative to its folder; empty lines and lines that begin
            with `#` are passed over.

    Raises:
        UsageError: if it names no image or is no text.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.num_images, root, previous = 0, "", None
        for path in self._read():
            self.num_images += 1
            folder = os.path.split(path)[0]
            if folder != previous:
                parts = [root or _absolute(folder), _absolute(folder)]
                root, previous = os.path.commonpath(parts), folder
        if self.num_images == 0:
            raise _nothing(f"a line that names an image in {file}", file)
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
                f"the {self.num_images} images that {self.file} listed at first",
                "another number",
                key=KEY,
                hint="a list must not change while it is predicted on",
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
                "a list of images in UTF-8", str(self.file), key=KEY, hint=str(error)
            ) from error


@dataclass(frozen=True)
class ImageList:
    """Image files in a fixed order, and the folder that their outputs' names are relative to.

    >>> images = ImageList(Path("photos"), ("photos/left/1.jpg", "photos/right/1.jpg"))
    >>> [str(images.output("maps", path, ".png")) for path in images.paths]
    ['maps/left/1.jpg.png', 'maps/right/1.jpg.png']
    """

    root: Path
    """A folder that holds all images, at any depth."""
    paths: tuple[str, ...] | ListFile
    """The images as they are opened."""

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[ImageFile]:
        return (ImageFile(place, path) for place, path in enumerate(self.paths))

    def fingerprint(self) -> str:
        """A sha256 of the paths in their order; the files are not opened."""
        digest = hashlib.sha256()
        for path in self.paths:
            digest.update(os.fsencode(path) + b"\0")
        return digest.hexdigest()

    def output(self, folder: str, path: str, suffix: str) -> Path:
        """Name the output of an image, relative to where outputs are written.

        The name keeps the image's folders and its own suffix, so that no two images share one; it
        does not depend on the other images.

        Args:
            folder: folder of this kind of output.
            path: the image, one of `paths`.
            suffix: what to append.
        """
        relative = Path(os.path.relpath(path, self.root))
        return Path(folder) / relative.with_name(relative.name + suffix)


def find_images(
    spec: str | Path | Sequence[str | Path], *, exclude: Path | None = None
) -> ImageList:
    """Find the images that a file, folder, glob or list names.

    - A folder gives every image below it, symbolic links followed; hidden files are left out.
    - A glob (`photos/**/*.jpg`) gives the images among its matches.
    - A `.txt` or `.lst` file lists images, see `ListFile`. Whether they can be read is seen when
      they are. By itself it is streamed: its lines stay in their order and are never all in memory;
      a file that is listed twice is predicted on twice.
    - Any other file is taken as an image, whatever its name.
    - A sequence gives all that its entries give.

    Args:
        spec: what to look for.
        exclude: a folder to leave out, such as the one that outputs are written to; a list by
            itself is taken as it is.

    Returns:
        The images of a list in its order, all others sorted by path, each once.

    Raises:
        UsageError: when an entry does not exist or gives no image.
    """
    entries = [spec] if isinstance(spec, (str, Path)) else list(spec)
    if len(entries) == 1 and _is_list(Path(entries[0]).expanduser()):
        listed = ListFile(Path(entries[0]).expanduser())
        return ImageList(listed.root, listed)
    left_out = None if exclude is None else _absolute(exclude) + os.sep
    found: dict[str, str] = {}
    roots: list[str] = []
    num_left_out = 0
    for entry in entries:
        root, paths = _find(entry)
        roots.append(_absolute(root))
        for path in paths:
            absolute = _absolute(path)
            if left_out is None or not absolute.startswith(left_out):
                found.setdefault(absolute, str(path))
            else:
                num_left_out += 1
    if not found and num_left_out:
        raise UsageError(
            "images outside of the folder that outputs go to",
            f"{spec}, all of them in {exclude}",
            key="output",
        )
    if not found:
        raise UsageError("images to predict on", spec, key=KEY)
    ordered = sorted(found, key=Path)
    return ImageList(Path(os.path.commonpath(roots)), tuple(found[path] for path in ordered))


def _find(entry: str | Path) -> tuple[Path, Sequence[str | Path]]:
    path = Path(entry).expanduser()
    if path.is_dir():
        return path, _some(list(_walk(path)), f"an image below {path}", path)
    if _is_list(path):
        listed = ListFile(path)
        return listed.root, list(listed)
    if path.is_file():
        return path.parent, [path]
    if not has_magic(str(path)):
        raise UsageError("an image file, a folder, a glob or a list", str(entry), key=KEY)
    # Path.glob takes no absolute patterns.
    matches = [Path(one) for one in glob(str(path), recursive=True)]  # noqa: PTH207
    images = [one for one in matches if is_image(one) and one.is_file()]
    return _fixed_part(path), _some(images, "an image that matches", path)


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in LIST_SUFFIXES and path.is_file()


def _some(paths: list[Path], wanted: str, where: Path) -> list[Path]:
    if not paths:
        raise _nothing(wanted, where)
    return paths


def _nothing(wanted: str, where: Path) -> UsageError:
    suffixes = " ".join(sorted(IMAGE_SUFFIXES))
    return UsageError(wanted, str(where), key=KEY, hint=f"images are files ending in {suffixes}")


def _walk(folder: Path) -> Iterator[Path]:
    # Linked folders are followed; remembering where each leads ends loops of links.
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
    # Path.resolve would replace links by where they lead, which may be outside the root.
    return os.path.abspath(path)  # noqa: PTH100
