"""Files that are written whole or not at all, their checksums, and how paths are shown."""

import csv
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

MAX_NAME_BYTES = 255
"""Longest file name that common file systems take, in bytes of UTF-8."""


@contextmanager
def replacing(path: Path, *, durable: bool = False, suffix: str | None = None) -> Iterator[Path]:
    """Yield a temporary name in the folder of `path`, which replaces it when the block ends well.

    Whoever reads `path`, or resumes an interrupted run, finds the old file or the new one, never
    half a file. Missing folders are made.

    Args:
        path: The file wanted.
        durable: Whether to wait until the content is on the disk, so that it survives a crash of
            the machine.
        suffix: What the temporary name ends with; that of `path` unless given, as writers of
            pictures and arrays look at it.

    Yields:
        The name to write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid4().hex}.part{path.suffix if suffix is None else suffix}")
    try:
        yield part
        if durable:
            with part.open("rb+") as file:
                os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def making(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `folder` when the block ends well.

    Whoever looks at `folder` finds all of it or nothing; several processes may do this at once.

    Args:
        folder: The folder wanted, missing or empty. Missing folders above it are made.

    Yields:
        An empty folder of the same name to fill.

    Raises:
        OSError: `folder` holds something by now, or cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        made = Path(scratch) / folder.name
        made.mkdir()
        yield made
        if folder.is_dir():
            folder.rmdir()
        made.rename(folder)


def write_bytes(path: Path, content: bytes, *, durable: bool = False) -> Path:
    """Write a file whole or not at all, and return its path."""
    with replacing(path, durable=durable, suffix="") as part:
        part.write_bytes(content)
    return path


def write_text(path: Path, text: str, *, durable: bool = False) -> Path:
    r"""Write a text file as UTF-8, whole or not at all, and return its path.

    Bytes of file names that are not UTF-8 become escapes such as `\udcff`, which JSON reads back.
    """
    return write_bytes(path, text.encode("utf-8", "backslashreplace"), durable=durable)


def write_json(path: Path, content: Mapping[str, object], *, durable: bool = False) -> Path:
    """Write standard JSON, whole or not at all, and return its path.

    Raises:
        ValueError: The content holds NaN or infinity, which JSON does not have.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    return write_text(path, text, durable=durable)


FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""How text begins that spreadsheets run as a formula, or that `cell` has changed."""
NUMBER = re.compile(r"[+-]?[\d.]*(e[+-]?\d+)?$")


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """A CSV table whose text spreadsheets never run as a formula; see `cell`.

    >>> print(csv_text([("image", "score"), ("=cmd.png", -0.5)]), end="")
    image,score
    '=cmd.png,-0.5
    """
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\r\n")  # quotes cells that hold either
    lines = []
    for row in rows:
        table.writerow([cell(one) if isinstance(one, str) else one for one in row])
        lines.append(text.getvalue().removesuffix("\r\n"))
        text.seek(0), text.truncate()
    return "".join(f"{line}\n" for line in lines)


def cell(text: str) -> str:
    """Text as a cell of a CSV: a quote in front keeps spreadsheets from running it.

    >>> cell("=1+1"), cell("good"), cell("-0.5"), uncell(cell("'=1"))
    ("'=1+1", 'good', '-0.5', "'=1")
    """
    return f"'{text}" if FORMULA.match(text) and not NUMBER.match(text) else text


def uncell(text: str) -> str:
    """The text of a cell that `cell` made."""
    return text[1:] if text.startswith("'") and FORMULA.match(text) else text


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits; cached while the file is unchanged."""
    file = Path(path).resolve()
    facts = file.stat()
    return _sha256(file, facts.st_ino, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=1024)
def _sha256(path: Path, *state: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def stand_in(path: Path) -> str | None:
    """What a file is that a failed download left in place of the real one; None if it is no such.

    Returns:
        A phrase that completes "PATH is ...", with what to do.
    """
    with path.open("rb") as file:
        start = file.read(100).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the file itself; run git lfs pull"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page, not the file itself; download it again"
    return None


def shown_path(path: Path) -> str:
    """A path from the current folder if it lies below it, else as it is."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def file_name(text: str, suffix: str = "") -> str:
    """A file name for any text: unsafe characters become `_`, and long names are cut.

    A name that is cut ends in a digest of the text, so that it stays distinct.

    Args:
        text: What the file is named after, such as a class.
        suffix: Ending of the file, kept whole.

    >>> file_name("metal plate"), file_name("../a"), file_name(".."), file_name("bolt", ".png")
    ('metal_plate', '___a', '__', 'bolt.png')
    >>> len(file_name("x" * 300, ".png"))
    255
    """
    name = re.sub(r"[^\w.-]+", "_", text) or "_"
    name = re.sub(r"^\.+|\.+$", lambda dots: "_" * len(dots[0]), name)
    return cut_name(name, suffix)


def cut_name(name: str, suffix: str = "") -> str:
    """A name with its suffix, cut to what file systems take; a cut name ends in a digest.

    >>> cut_name("a" * 300, ".png")[-30:]
    'aaaaaaaaaaaaaaaaa-9835fa6b.png'
    """
    room = MAX_NAME_BYTES - len(os.fsencode(suffix))
    encoded = os.fsencode(name)
    if len(encoded) <= room:
        return name + suffix
    end = f"-{_digest(name)}"
    return encoded[: room - len(end)].decode("utf-8", "ignore") + end + suffix


def file_names(texts: Iterable[str]) -> dict[str, str]:
    """A file name for each of several texts, no two the same, whatever their case.

    >>> file_names(["a b", "a_b", ".."])
    {'a b': 'a_b-c8687a08', 'a_b': 'a_b', '..': '__'}
    """
    plain = {text: file_name(text) for text in texts}
    names, taken = dict(plain), set()
    for text in sorted(plain, key=lambda text: (plain[text] != text, text)):
        if plain[text].casefold() in taken:
            names[text] = cut_name(plain[text], f"-{_digest(text)}")
        taken.add(names[text].casefold())
    return names


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


REMOTE = ("s3", "gs", "gcs", "hdfs", "abfs", "abfss")
"""What the paths of object stores begin with, before `://`."""


def is_remote(path: object) -> bool:
    """Whether a path lies in an object store.

    >>> is_remote("s3://bucket/a.png"), is_remote("photos/a.png"), is_remote(Path("s3:/b/a.png"))
    (True, False, False)
    """
    return isinstance(path, str) and path.partition("://")[0] in REMOTE and "://" in path
