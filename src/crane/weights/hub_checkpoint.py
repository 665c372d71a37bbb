"""Checkpoints in repositories of the Hugging Face Hub: `hf://OWNER/NAME@REVISION`."""

import logging
from pathlib import Path

from crane.errors import UsageError
from crane.named_prompts import hub_place
from crane.weights.hub_code import impatient

logger = logging.getLogger(__name__)

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
        logger.info("looking for %s of %s on the Hugging Face Hub", HUB_FILE, place.repo)
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
