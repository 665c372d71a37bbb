"""Which images to predict on, and what their outputs are called."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path

from crane.data.files import IMAGE_SUFFIXES, is_image
from crane.errors import UsageError

LIST_SUFFIXES = (".txt", ".lst")
"""A file that ends so lists images, one path a line."""
KEY = "input"


@dataclass(frozen=True)
class ImageList:
    """Image files in a fixed order, and the folder that their outputs' names are relative to.

    >>> images = ImageList(Path("photos"), (Path("photos/left/1.jpg"), Path("photos/right/1.jpg")))
    >>> [str(images.output("maps", place, ".png")) for place in range(len(images))]
    ['maps/left/1.jpg.png', 'maps/right/1.jpg.png']
    """

    root: Path
    """A folder that holds all images, at any depth."""
    paths: tuple[Path, ...]
    """The images as they are opened; sorted, each once."""

    def __len__(self) -> int:
        return len(self.paths)

    def output(self, folder: str, place: int, suffix: str) -> Path:
        """Name the output of an image, relative to where outputs are written.

        The name keeps the image's folders and its own suffix, so that no two images share one; it
        does not depend on the other images.

        Args:
            folder: folder of this kind of output.
            place: the image's position in `paths`.
            suffix: what to append.
        """
        relative = Path(os.path.relpath(self.paths[place], self.root))
        return Path(folder) / relative.with_name(relative.name + suffix)


def find_images(
    spec: str | Path | Sequence[str | Path], *, exclude: Path | None = None
) -> ImageList:
    """Find the images that a file, folder, glob or list names.

    - A folder gives every image below it, symbolic links followed; hidden files are left out.
    - A glob (`photos/**/*.jpg`) gives the images among its matches.
    - A `.txt` or `.lst` file lists images, one a line, relative to its own folder; empty lines and
      lines that begin with `#` are passed over. Whether they can be read is seen when they are.
    - Any other file is taken as an image, whatever its name.
    - A sequence gives all that its entries give.

    Args:
        spec: what to look for.
        exclude: a folder to leave out, such as the one that outputs are written to.

    Returns:
        The images sorted by path, each once.

    Raises:
        UsageError: when an entry does not exist or gives no image.
    """
    entries = [spec] if isinstance(spec, (str, Path)) else list(spec)
    left_out = None if exclude is None else _absolute(exclude)
    found: dict[Path, Path] = {}
    roots: list[Path] = []
    for entry in entries:
        root, paths = _find(entry)
        roots.append(_absolute(root))
        for path in paths:
            absolute = _absolute(path)
            if left_out is None or left_out not in absolute.parents:
                found.setdefault(absolute, path)
    if not found:
        raise UsageError("images to predict on", spec, key=KEY)
    ordered = sorted(found)
    return ImageList(Path(os.path.commonpath(roots)), tuple(found[path] for path in ordered))


def _find(entry: str | Path) -> tuple[Path, list[Path]]:
    path = Path(entry).expanduser()
    if path.is_dir():
        return path, _some(list(_walk(path)), f"an image below {path}", path)
    if path.is_file():
        if path.suffix.lower() in LIST_SUFFIXES:
            listed = _some(_read_list(path), f"a line that names an image in {path}", path)
            return Path(os.path.commonpath([_absolute(one.parent) for one in listed])), listed
        return path.parent, [path]
    if not has_magic(str(path)):
        raise UsageError("an image file, a folder, a glob or a list", str(entry), key=KEY)
    # Path.glob takes no absolute patterns.
    matches = [Path(one) for one in glob(str(path), recursive=True)]  # noqa: PTH207
    images = [one for one in matches if is_image(one) and one.is_file()]
    return _fixed_part(path), _some(images, "an image that matches", path)


def _some(paths: list[Path], wanted: str, where: Path) -> list[Path]:
    if not paths:
        suffixes = " ".join(sorted(IMAGE_SUFFIXES))
        raise UsageError(wanted, str(where), key=KEY, hint=f"images are files ending in {suffixes}")
    return paths


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


def _read_list(path: Path) -> list[Path]:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [path.parent / line for line in lines if line and not line.startswith("#")]


def _fixed_part(pattern: Path) -> Path:
    fixed = pattern
    while has_magic(str(fixed)):
        fixed = fixed.parent
    return fixed


def _absolute(path: Path) -> Path:
    # Path.resolve would replace links by where they lead, which may be outside the root.
    return Path(os.path.abspath(path))  # noqa: PTH100
