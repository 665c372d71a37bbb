"""Images in an object store: `s3://bucket/photos`, and whatever else pyarrow can open."""

import io
import os
from collections.abc import Iterator
from functools import cache
from typing import Any
from urllib.parse import urlsplit

from crane.errors import UsageError


def read_remote(path: str) -> io.BytesIO:
    """The content of one object.

    Raises:
        FileNotFoundError: There is no such object.
        OSError: The store does not answer, or refuses.
    """
    store, inside = _place(path)
    with store.open_input_stream(inside) as stream:
        return io.BytesIO(stream.read())


def list_remote(folder: str, key: str) -> Iterator[str]:
    """The objects below a path, or the path itself if it is an object.

    Args:
        folder: Where to look, such as `s3://bucket/photos`.
        key: The configuration key that named it, for errors.

    Raises:
        UsageError: There is nothing, or the store does not answer or refuses.
    """
    from pyarrow.fs import FileSelector, FileType

    try:
        store, inside = _place(folder)
        info = store.get_file_info(inside)
        if info.type is FileType.File:
            yield folder
            return
        found = store.get_file_info(FileSelector(inside, recursive=True))
    except FileNotFoundError:
        raise UsageError(f"there is no object below {folder}", key=key) from None
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"cannot list {folder}: {reason}", key=key) from error
    start = f"{urlsplit(folder).scheme}://"
    yield from (start + one.path for one in found if one.type is FileType.File)


def _place(path: str) -> tuple[Any, str]:
    parts = urlsplit(path)
    return _store(parts.scheme, parts.netloc), f"{parts.netloc}{parts.path}".rstrip("/")


@cache
def _store(scheme: str, bucket: str) -> Any:
    """The file system of a bucket. A store of one's own is named by AWS_ENDPOINT_URL."""
    from pyarrow.fs import FileSystem, S3FileSystem

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "s3" and endpoint:
        return S3FileSystem(endpoint_override=endpoint)
    return FileSystem.from_uri(f"{scheme}://{bucket}")[0]
