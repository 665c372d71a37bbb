"""Finding, fetching and checking weight files."""

import logging
import urllib.error
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from crane.errors import UsageError, unwritable
from crane.files import sha256
from crane.weights.catalogue import (
    CATALOGUE,
    MINI_FOLDER,
    RANDOM,
    WeightFile,
    describe,
    described_prompts,
)
from crane.weights.hub import has_hub_code, hub_code_folder, impatient, is_hub_code
from crane.weights.state_dict import load_state_dict

log = logging.getLogger(__name__)

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
