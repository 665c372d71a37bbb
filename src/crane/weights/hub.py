"""Hubs: the code of torch.hub models, and checkpoints as `hf://OWNER/NAME@REVISION`."""

import logging
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crane.errors import UsageError
from crane.named_prompts import hub_place

log = logging.getLogger(__name__)

PATIENCE = 30.0
"""Seconds without a byte after which a download has failed."""


def is_hub_code(name: str) -> bool:
    """Whether a name is a repository pinned at a commit.

    >>> is_hub_code("facebookresearch/dinov2:b8931f7"), is_hub_code("ViT-B-16/openai")
    (True, False)
    """
    return re.fullmatch(r"[\w.-]+/[\w.-]+:[0-9a-f]{7,40}", name) is not None


def has_hub_code(folder: Path) -> bool:
    """Whether a folder holds a repository's code, which an interrupted copy may lack."""
    return (folder / "hubconf.py").is_file()


def hub_code_address(repo: str) -> str:
    """Address of a repository's code for a manual download.

    >>> hub_code_address("facebookresearch/dinov2:b8931f7")
    'https://github.com/facebookresearch/dinov2/archive/b8931f7.zip'
    """
    name, _, commit = repo.partition(":")
    return f"https://github.com/{name}/archive/{commit}.zip"


def hub_code_folder(repo: str) -> Path:
    """The folder of torch.hub's copy of a repository, whether or not it exists yet.

    Args:
        repo: `owner/name:commit`.

    Raises:
        UsageError: `repo` is not pinned at a commit.

    >>> hub_code_folder("facebookresearch/dinov2:b8931f7").name
    'facebookresearch_dinov2_b8931f7'
    """
    import torch

    name, _, commit = repo.partition(":")
    if name.count("/") != 1 or not commit:
        raise UsageError(
            f"must be a repository pinned at a commit, owner/name:commit, not {repo!r}",
            key="guide.features.repo",
        )
    return Path(torch.hub.get_dir()) / f"{name.replace('/', '_')}_{commit}"


def find_hub_code(
    repo: str, source: str, repo_dir: str | Path | None, allow_download: bool, *, key: str
) -> Path:
    """Find the folder with a repository's `hubconf.py`, and download it if that is allowed.

    Args:
        repo: `owner/name:commit`.
        source: `local` for the clone in `repo_dir`, `github` for torch.hub's copy.
        repo_dir: Folder of the clone; None with `github`.
        allow_download: Whether missing code is downloaded; a log line announces it.
        key: The configuration section of these values, for the error.

    Raises:
        UsageError: The code is neither found nor downloaded; the error gives its source.
    """
    if source == "local":
        clone = Path(repo_dir).expanduser() if repo_dir is not None else None
        if clone is None or not has_hub_code(clone):
            raise UsageError(
                f"must be a folder with the hubconf.py of {repo}, not {repo_dir}",
                key=f"{key}.repo_dir",
            )
        return clone
    folder = hub_code_folder(repo)
    if has_hub_code(folder):
        return folder
    absent = "has no hubconf.py" if folder.is_dir() else "does not exist"
    reason = _download(repo, folder) if allow_download else f"{folder} {absent}"
    if reason is None:
        return folder
    raise UsageError(
        f"the code of {repo} is missing: {reason}; set allow_download=true, or download it from "
        f"{hub_code_address(repo)} and set {key}.source=local {key}.repo_dir=FOLDER",
        key=f"{key}.repo",
    )


@contextmanager
def impatient() -> Iterator[None]:
    """Give up on a server that sends nothing for `PATIENCE` seconds; torch.hub waits for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _download(repo: str, folder: Path) -> str | None:
    """Download the code; returns the reason if that fails."""
    import torch

    log.info("downloading the code of %s (a few MB) to %s", repo, folder)
    try:
        # Pinned at a commit, so there is no branch whose owner would have to be trusted first.
        # Without force, torch.hub takes any folder of that name for a copy.
        with impatient():
            torch.hub.list(
                repo, force_reload=True, trust_repo=True, skip_validation=True, verbose=False
            )
    except (Exception, SystemExit) as error:
        # torch.hub also imports the code; its import errors are reported when the model is built.
        if not has_hub_code(folder):
            return f"the download failed, {type(error).__name__}: {error}"
    return None if has_hub_code(folder) else "the repository has no hubconf.py"


HUB_FILE = "model.safetensors"
"""The only file that is read; nothing of a repository is executed."""


def fetch_checkpoint(spec: str, allow_download: bool, *, key: str = "checkpoint") -> Path:
    """The checkpoint of a repository, in the hub's own cache; downloaded if it is not there.

    Args:
        spec: `hf://OWNER/NAME`, with `@REVISION` (a branch, tag or commit) or without.
        allow_download: Whether it may be downloaded; if not, what the cache holds is used.
        key: The key that named it, for errors.

    Raises:
        UsageError: There is no such repository, revision or file, or it cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    place = hub_place(spec, key)
    if allow_download:
        log.info("looking for %s of %s on the Hugging Face Hub", HUB_FILE, place.repo)
    try:
        with impatient():
            return Path(
                hf_hub_download(
                    place.repo,
                    HUB_FILE,
                    revision=place.revision,
                    local_files_only=not allow_download,
                )
            )
    except RevisionNotFoundError as error:
        problem = f"{place.repo} has no revision {place.revision}"
        raise UsageError(f"{problem}; leave @{place.revision} out", key=key) from error
    except LocalEntryNotFoundError as error:
        raise UsageError(
            f"cannot reach the Hugging Face Hub, and its cache has no {HUB_FILE} of {place.repo}; "
            "go online, or name a file",
            key=key,
        ) from error
    except EntryNotFoundError as error:
        said = f"{place.repo} has no {HUB_FILE}; detector.push_to_hub writes one"
        raise UsageError(said, key=key) from error
    except RepositoryNotFoundError as error:
        said = f"there is no repository {place.repo}, or it is private: hf auth login"
        raise UsageError(said, key=key) from error
    except Exception as error:  # the hub's client raises those of its own and of what it uses
        reason = str(error).partition("\n")[0]
        raise UsageError(
            f"cannot download {spec}: {type(error).__name__}: {reason}", key=key
        ) from error
