"""Finding the code of torch.hub models: a clone, torch.hub's cache, or GitHub at a commit."""

import logging
import re
from pathlib import Path

import torch

from crane.errors import UsageError

log = logging.getLogger(__name__)


def is_hub_code(name: str) -> bool:
    """Whether a name is that of a repository pinned at a commit.

    >>> is_hub_code("facebookresearch/dinov2:b8931f7"), is_hub_code("ViT-B-16/openai")
    (True, False)
    """
    return re.fullmatch(r"[\w.-]+/[\w.-]+:[0-9a-f]{7,40}", name) is not None


def has_hub_code(folder: Path) -> bool:
    """Whether a folder holds a repository's code; an interrupted copy may lack it."""
    return (folder / "hubconf.py").is_file()


def hub_code_address(repo: str) -> str:
    """Where the code of a repository can be fetched by hand.

    >>> hub_code_address("facebookresearch/dinov2:b8931f7")
    'https://github.com/facebookresearch/dinov2/archive/b8931f7.zip'
    """
    name, _, commit = repo.partition(":")
    return f"https://github.com/{name}/archive/{commit}.zip"


def hub_code_folder(repo: str) -> Path:
    """Where torch.hub keeps its copy of a repository, whether or not it is there yet.

    Args:
        repo: `owner/name:commit`.

    Raises:
        UsageError: `repo` is not pinned at a commit.

    >>> hub_code_folder("facebookresearch/dinov2:b8931f7").name
    'facebookresearch_dinov2_b8931f7'
    """
    name, _, commit = repo.partition(":")
    if name.count("/") != 1 or not commit:
        raise UsageError("a repository pinned at a commit, owner/name:commit", repo)
    return Path(torch.hub.get_dir()) / f"{name.replace('/', '_')}_{commit}"


def find_hub_code(
    repo: str, source: str, repo_dir: str | Path | None, allow_download: bool, *, key: str
) -> Path:
    """Find the folder with a repository's `hubconf.py`, and fetch it if that is allowed.

    Args:
        repo: `owner/name:commit`.
        source: `local` for the clone in `repo_dir`, `github` for torch.hub's copy.
        repo_dir: Folder of the clone; None with `github`.
        allow_download: Whether missing code is fetched; a log line announces it.
        key: The configuration section these came from, for the error message.

    Raises:
        UsageError: The code is missing and not fetched. Names its source and what to change.
    """
    if source == "local":
        clone = Path(repo_dir).expanduser() if repo_dir is not None else None
        if clone is None or not has_hub_code(clone):
            wanted = f"a folder with the hubconf.py of {repo}"
            raise UsageError(wanted, str(repo_dir), key=f"{key}.repo_dir")
        return clone
    if source != "github":
        raise UsageError("github or local", source, key=f"{key}.source")
    folder = hub_code_folder(repo)
    if has_hub_code(folder):
        return folder
    absent = "a folder without hubconf.py" if folder.is_dir() else "no copy of it"
    reason = _fetch(repo, folder) if allow_download else absent
    if reason is None:
        return folder
    raise UsageError(
        f"the code of {repo} in {folder}",
        reason,
        key=f"{key}.source=local with {key}.repo_dir to use a clone, or set allow_download=true",
        hint=f"the code comes from {hub_code_address(repo)}",
    )


def _fetch(repo: str, folder: Path) -> str | None:
    """Fetch the code; returns why that failed, None if it did not."""
    log.info("Downloading the code of %s (a few MB) to %s", repo, folder)
    try:
        # Pinned at a commit, so there is no branch whose owner would have to be trusted first.
        # Without force, torch.hub takes any folder of that name for a copy.
        torch.hub.list(
            repo, force_reload=True, trust_repo=True, skip_validation=True, verbose=False
        )
    except Exception as error:
        # torch.hub runs the code it fetched, whose errors are told by who builds the model.
        if not has_hub_code(folder):
            return f"a failed download, {type(error).__name__}: {error}"
    return None if has_hub_code(folder) else "a repository without hubconf.py"
