"""Unpacking archives: nothing leaves the folder, nothing is overwritten, nothing is half-made."""

import errno
import gzip
import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from crane.data.files import shown
from crane.errors import UsageError, unwritable

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz")
"""Recognised archives, by the ends of their names."""

_BROKEN = (
    EOFError,
    ValueError,
    RuntimeError,  # an encrypted zip
    NotImplementedError,  # a compression that Python does not know
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
)


_UNFIT_NAMES = (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
"""What systems say of names that they cannot write."""


@dataclass(frozen=True)
class _Member:
    """A file in an archive."""

    path: PurePosixPath
    size: int
    open: Callable[[], IO[bytes] | None]


def unpack(
    archive: Path,
    folder: Path,
    advance: Callable[[int, int], None] | None = None,
    check: Callable[[Path], None] | None = None,
) -> bool:
    """Unpack an archive into a folder that is not there yet.

    The files are written beside it and moved there as one when all are whole, so that an
    interrupted run leaves no folder; what it left is removed by the next.

    Args:
        archive: the archive, of one of `SUFFIXES`.
        folder: where its files belong.
        advance: hears of progress: bytes written, and bytes in all.
        check: is given the files, in a folder of the same name, before they take their place;
            what it raises leaves nothing.

    Returns:
        True if it was unpacked, False if the folder holds its files already.

    Raises:
        UsageError: if the archive is missing, broken, encrypted, of another kind, larger than the
            room there is, or holds links, special files, one path twice, paths below files or
            paths that leave the folder; or if the folder holds something else or cannot be written.
    """
    if not archive.is_file():
        raise UsageError("an archive", f"nothing at {archive}", key="archive")
    with _members(archive) as members:
        if folder.is_dir() and any(folder.iterdir()):
            _check_same(members, folder, archive)
            if check is not None:
                check(folder)
            return False
        try:
            _put(members, folder, advance, check)
        except gzip.BadGzipFile:
            raise  # an OSError too, but one of the archive
        except OSError as error:
            if error.errno in _UNFIT_NAMES:
                raise UsageError(
                    f"paths in {archive} that this disk can hold", str(error), key="archive"
                ) from error
            raise unwritable(folder, error, "datasets_dir") from error
    return True


def _put(
    members: list[_Member],
    folder: Path,
    advance: Callable[[int, int], None] | None,
    check: Callable[[Path], None] | None,
) -> None:
    """Write the files beside their folder, and move them there when they are whole."""
    total = sum(member.size for member in members)
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if total > free:
        raise UsageError(
            f"{total / 1e9:.1f} GB of room in {folder.parent}",
            f"{free / 1e9:.1f} GB",
            key="datasets_dir",
        )
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        # Classes may be called as their folder is, so that it has its name already.
        whole = part / folder.name
        _write(members, whole, total, advance)
        if check is not None:
            check(whole)
        if folder.is_dir():
            folder.rmdir()  # empty, so that the other can take its place
        whole.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write(
    members: list[_Member],
    folder: Path,
    total: int,
    advance: Callable[[int, int], None] | None,
) -> None:
    folder.mkdir(parents=True)
    done = 0
    for member in members:
        target = folder.joinpath(*member.path.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        source = member.open()
        assert source is not None, "only plain files are listed"
        with source, target.open("xb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
            if file.tell() != member.size:
                raise ValueError(f"{member.path} has {file.tell()} bytes, not {member.size}")
        done += member.size
        if advance is not None:
            advance(done, total)


def _check_same(members: list[_Member], folder: Path, archive: Path) -> None:
    """Refuse a folder that does not hold the archive's files; it may hold others beside them."""
    for member in members:
        file = folder.joinpath(*member.path.parts)
        if not file.is_file() or file.stat().st_size != member.size:
            raise UsageError(
                f"no folder {folder}, or one that {archive.name} was unpacked into",
                f"one without {member.path}, or with another one",
                key="targets.NAME.root",
                hint="nothing is overwritten; move the folder away or name another",
            )


@contextmanager
def _members(archive: Path) -> Iterator[list[_Member]]:
    """Open an archive and list its files, all checked."""
    name = archive.name.casefold()
    if not name.endswith(SUFFIXES):
        raise UsageError(f"an archive of kind {', '.join(SUFFIXES)}", archive.name, key="archive")
    try:
        with ExitStack() as stack:
            if name.endswith(".zip"):
                members = _zip_members(stack.enter_context(zipfile.ZipFile(archive)))
            else:
                members = _tar_members(stack.enter_context(tarfile.open(archive)))
            _check_paths(members, archive)
            yield members
    except UsageError:
        raise
    except (*_BROKEN, OSError) as error:  # of writing there is none left
        raise UsageError(
            f"a whole, readable archive {archive}",
            str(error) or type(error).__name__,
            key="archive",
            hint="download it again if it was cut short",
        ) from error


def _zip_members(archive: zipfile.ZipFile) -> list[_Member]:
    members = []
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise UsageError("an archive of plain files", f"a link or device: {info.filename}")
        # Zip demands forward slashes; some archives made on Windows hold the others.
        name = info.filename.replace("\\", "/")
        if not name.endswith("/"):
            path = PurePosixPath(name)
            members.append(_Member(path, info.file_size, partial(archive.open, info)))
    return members


def _tar_members(archive: tarfile.TarFile) -> list[_Member]:
    members = []
    for info in archive:
        if info.isdir():
            continue
        if not info.isreg():
            raise UsageError("an archive of plain files", f"a link or device: {info.name}")
        members.append(
            _Member(PurePosixPath(info.name), info.size, partial(archive.extractfile, info))
        )
    return members


def _check_paths(members: list[_Member], archive: Path) -> None:
    """Refuse paths that leave the folder, one path twice and paths below files, on any system."""
    if not members:
        raise UsageError(f"files in {archive}", "none")
    outside = [m.path for m in members if _leaves(m.path)]
    if outside:
        raise UsageError(f"paths inside the folder in {archive}", shown([str(p) for p in outside]))
    seen: set[str] = set()
    for member in members:
        path = str(member.path).casefold()
        if path in seen:
            raise UsageError(f"each path once in {archive}", str(member.path))
        seen.add(path)
    for member in members:
        above = [str(parent).casefold() for parent in member.path.parents]
        if not seen.isdisjoint(above):
            raise UsageError(f"no paths below a file in {archive}", str(member.path), key="archive")


def _leaves(path: PurePosixPath) -> bool:
    return path.is_absolute() or ".." in path.parts or ":" in str(path) or not path.parts
