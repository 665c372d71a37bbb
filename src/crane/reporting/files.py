"""Files that are written whole or not at all."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a place to write `path` to; it takes the file's place when the block ends well.

    A reader, or a run that was interrupted and goes on, meets the old file or the new one, never
    half a file. Missing folders are made.

    Args:
        path: the file wanted. Its suffix is kept, as picture and array writers look at it.

    Yields:
        A file name in the same folder, to be written inside the block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{uuid4().hex}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> Path:
    """Write a text file as UTF-8, whole or not at all, and return its path."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, content: Mapping[str, object]) -> Path:
    """Write standard JSON, whole or not at all, and return its path.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have.
    """
    return write_text(
        path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )
