"""Find, fetch and check weight files, the code of torch.hub models, and `hf://` checkpoints."""

import logging
import re
import socket
import urllib.error
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from crane.errors import UsageError, unwritable
from crane.files import sha256
from crane.named_prompts import hub_place
from crane.weights.catalogue import (
    CATALOGUE,
    MINI_FOLDER,
    RANDOM,
    WeightFile,
    describe,
    described_prompts,
)
from crane.weights.state_dict import load_state_dict

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
    reason = _download_code(repo, folder) if allow_download else f"{folder} {absent}"
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


def _download_code(repo: str, folder: Path) -> str | None:
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


PRESENT, MISSING, WRONG_CHECKSUM = "present", "missing", "wrong checksum"


@dataclass(frozen=True)
class WeightStatus:
    """State of one needed file on this machine."""

    name: str
    """Its name or path in the configuration."""
    state: str
    """`PRESENT`, `MISSING` or `WRONG_CHECKSUM`."""
    path: Path | None
    """Its place; None if it is missing."""
    size: int | None
    """Bytes on disk; None if it is missing, and for a folder of code."""
    verified: bool
    """Whether its checksum is known and was compared."""
    entry: WeightFile | None
    """Its catalogue entry; None for the user's own files."""


def find_weights(
    name_or_path: str | Path,
    weights_dir: str | Path,
    allow_download: bool,
    *,
    key: str = "weights",
    choices: Sequence[str] = tuple(CATALOGUE),
) -> Path:
    """Find a weight file, and download it if that is allowed.

    The search goes through the path itself, the weights folder, the caches of open_clip, torch.hub
    and the Hugging Face hub, and, if allowed, the file's source on the network.

    Args:
        name_or_path: A published name (see `describe`), a path, or the name of a file in the
            weights folder.
        weights_dir: The weights folder, also for downloads; `~` is expanded.
        allow_download: Whether a missing file is downloaded; a log line announces it.
        key: The configuration key that named the file, for the error.
        choices: Names to suggest if `name_or_path` is neither a name nor a file.

    Raises:
        UsageError: The file is neither found nor downloaded; the error gives its source, its
            checksum if known, and where to put it. Or a file with a published name has another
            checksum than the published one.
    """
    path = _find(name_or_path, weights_dir, allow_download, key, choices)
    entry = _described(name_or_path)
    known = _known_checksum(entry, path)
    if entry is not None and known is not None:
        found = sha256(path)
        if found != known:
            raise UsageError(
                f"{path} is not the published {entry.name}: its sha256 is {found}, not {known}; "
                f"delete that file and download it again from {entry.source}, or use it as it is "
                f"with {key}={path}",
                key=key,
            )
    return path


def _find(
    name_or_path: str | Path,
    weights_dir: str | Path,
    allow_download: bool,
    key: str,
    choices: Sequence[str],
) -> Path:
    """Find or download a file without checking its content."""
    folder = Path(weights_dir).expanduser()
    entry = _described(name_or_path)
    if entry is None:
        return _own_file(Path(name_or_path).expanduser(), folder, key, choices)
    found = _local(entry, folder)
    if found is not None:
        return found
    if allow_download and not entry.embedded:
        return _download(entry, folder, key)
    raise _missing(entry, folder, key, "not in that folder or the caches")


def _described(name: str | Path) -> WeightFile | None:
    return described_prompts(str(name)) or describe(str(name))


def _own_file(given: Path, folder: Path, key: str, choices: Sequence[str]) -> Path:
    for path in (given, folder / given):
        if path.is_file():
            return path
    raise UsageError(
        f"{given} is neither a weight file (here or in {folder}) nor the name of published "
        f"weights; names: {', '.join(choices)}",
        key=key,
    )


def _local(entry: WeightFile, folder: Path) -> Path | None:
    return next((path for path in _candidates(entry, folder) if path.is_file()), None)


def _candidates(entry: WeightFile, folder: Path) -> Iterator[Path]:
    if entry.embedded:
        folder = MINI_FOLDER
    for file in entry.files:
        yield folder / file
    if entry.url is not None and "/" not in entry.files[0]:  # else the file's name says too little
        import torch

        file = PurePosixPath(entry.url).name
        yield Path("~/.cache/clip").expanduser() / file  # open_clip and OpenAI's clip
        yield Path(torch.hub.get_dir()) / "checkpoints" / file
    if entry.hub_repo is not None:
        from huggingface_hub import try_to_load_from_cache

        for file in _hub_files(entry):
            cached = try_to_load_from_cache(entry.hub_repo, file)
            if isinstance(cached, str):  # else None, or a marker that the file does not exist
                yield Path(cached)


def _hub_files(entry: WeightFile) -> Iterator[str]:
    folder = PurePosixPath(entry.hub_repo or "").name
    for file in map(PurePosixPath, entry.files):
        if file.parent.name == folder:
            yield file.name


def _download(entry: WeightFile, folder: Path, key: str) -> Path:
    import torch

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(folder, error, "weights_dir") from error
    log.info("downloading %s from %s (%s)", entry.files[0], entry.source, entry.facts)
    try:
        with impatient():
            if entry.url is None:
                return _download_from_hub(entry, folder)
            path = folder / entry.files[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(entry.url, str(path), hash_prefix=entry.sha256)
        if entry.sha256 is None:  # torch.hub takes half a file, or a web page, for the whole
            _check_readable(path)
        return path
    except Exception as error:  # torch.hub and the hub's client, each with errors of its own
        text = str(error).partition("\n")[0]
        reason = f"the download failed, {type(error).__name__}: {text}"
        raise _missing(entry, folder, key, reason) from error


def _check_readable(path: Path) -> None:
    try:
        load_state_dict(path)
    except UsageError:
        path.unlink()
        raise


def _download_from_hub(entry: WeightFile, folder: Path) -> Path:
    from huggingface_hub import hf_hub_download

    failure: OSError | None = None
    for file in _hub_files(entry):
        repo = str(entry.hub_repo)
        fetch = partial(hf_hub_download, repo, file, local_dir=folder / PurePosixPath(repo).name)
        try:
            return Path(fetch())
        except OSError as error:  # not every repository holds every format
            failure = failure or error
    raise failure or urllib.error.URLError("no file to download")


def _missing(entry: WeightFile, folder: Path, key: str, reason: str) -> UsageError:
    return UsageError(
        f"the weights {entry.name} are missing: {reason}; put the file from {entry.source} "
        f"({entry.facts}) at {folder / entry.files[0]}, set allow_download=true, or set {key} to "
        "a local file",
        key=key,
    )


def weights_needed(config: Mapping[str, Any]) -> list[str]:
    """List the weight files and the torch.hub code that a configuration names.

    Every mapping inside it with a `weights` value counts, together with its `architecture` if the
    value is a tag of open_clip; likewise every `repo` with `source: github`.

    Args:
        config: A plain (resolved) configuration.

    Returns:
        Names for `weight_status`, each once, in their order in the configuration.

    >>> weights_needed({"backbone": {"architecture": "ViT-B-16", "weights": "openai"}})
    ['ViT-B-16/openai']
    >>> weights_needed({"guide": {"features": {"weights": "random"}}})
    []
    """
    return list(dict.fromkeys(_named(config)))


def _named(node: object) -> Iterator[str]:
    if isinstance(node, Mapping):
        weights = node.get("weights")
        if isinstance(weights, (str, Path)) and weights != RANDOM:
            yield published_name(node.get("architecture"), weights)
        if isinstance(node.get("repo"), str) and node.get("source") == "github":
            yield node["repo"]
        children: Iterable[object] = node.values()
    else:
        children = node if isinstance(node, (list, tuple)) else ()
    for child in children:
        yield from _named(child)


def published_name(architecture: object, weights: str | Path) -> str:
    """The name of the weight file for an open_clip architecture and tag.

    Args:
        architecture: An open_clip model name, or anything else.
        weights: A tag of that model, a published name, or a path.

    Returns:
        `architecture/tag` if the model has that tag, else `weights` unchanged.
    """
    combined = f"{architecture}/{weights}"
    is_tag = isinstance(architecture, str) and describe(combined) is not None
    return combined if is_tag else str(weights)


def weight_status(
    name_or_path: str | Path, weights_dir: str | Path, *, verify: bool = True
) -> WeightStatus:
    """Check whether a file is present and intact, without downloading anything.

    Args:
        name_or_path: As for `find_weights`, or a repository `owner/name:commit`.
        weights_dir: The weights folder.
        verify: Whether to compute the checksum if the catalogue states one (seconds per GB).
    """
    entry = _described(name_or_path)
    path = _present(name_or_path, Path(weights_dir))
    if path is None:
        return WeightStatus(str(name_or_path), MISSING, None, None, verified=False, entry=entry)
    known = _known_checksum(entry, path) if verify else None
    state = PRESENT if known is None or sha256(path) == known else WRONG_CHECKSUM
    size = path.stat().st_size if path.is_file() else None
    return WeightStatus(str(name_or_path), state, path, size, known is not None, entry)


def _present(name_or_path: str | Path, weights_dir: Path) -> Path | None:
    if is_hub_code(str(name_or_path)):
        folder = hub_code_folder(str(name_or_path))
        return folder if has_hub_code(folder) else None
    try:
        return _find(name_or_path, weights_dir, False, "weights", ())
    except UsageError:
        return None


def _known_checksum(entry: WeightFile | None, path: Path) -> str | None:
    if entry is not None and entry.embedded:
        return entry.sha256
    # The checksum belongs to the file at the address, not to the hub's conversion of it.
    if entry is None or entry.url is None or path.name != PurePosixPath(entry.url).name:
        return None
    return entry.sha256
