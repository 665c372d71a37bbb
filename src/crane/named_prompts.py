"""Names of checkpoints, and where the prompts of a training lie; light, for checks before a run."""

import csv
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from crane.checks import one_of
from crane.errors import UsageError

MINI = "mini"
"""The name of the prompts for the embedded model, which the package carries."""
PUBLISHED_BACKBONE = "ViT-L-14-336"
"""The backbone that the published prompts were trained for."""
EPOCH = 5
"""The epoch of a name without one: what the paper uses on industrial data sets."""
_ON_HUB = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_OF_EPOCH = re.compile(r"epoch_(\d+)\.safetensors")


class PublishedFile(NamedTuple):
    """A checkpoint that the paper's authors published (MIT)."""

    file: str
    """Its path in the authors' folder of checkpoints."""
    num_bytes: int
    """Its size."""
    sha256: str
    """Its checksum."""


@cache
def published_files() -> dict[str, PublishedFile]:
    """Every published checkpoint by its full name, `METHOD_SOURCE@EPOCH`.

    >>> published_files()["crane_plus_visa@1"].file
    'trained_on_visa_cranep/epoch_1.pth'
    """
    with (files("crane") / "named_prompts.csv").open(encoding="utf-8") as file:
        return {
            row["name"]: PublishedFile(row["file"], int(row["bytes"]), row["sha256"])
            for row in csv.DictReader(file)
        }


def prompt_names() -> list[str]:
    """The names (`mini`, `crane_mvtec`, …), those of several epochs once."""
    return list(dict.fromkeys([MINI, *(name.partition("@")[0] for name in published_files())]))


def is_name(spec: object) -> bool:
    """Whether a checkpoint is named, such as `crane_mvtec@5`, and no such file or folder is there.

    >>> is_name("crane_mvtec"), is_name("prompts/epoch_5.safetensors")
    (True, False)
    """
    is_word = isinstance(spec, str) and spec != "" and not {"/", "\\", "."} & {*spec}
    return is_word and not Path(str(spec)).expanduser().exists()


def full_name(name: str, key: str = "checkpoint") -> str:
    """A name with its epoch, the last unless it has one.

    Raises:
        UsageError: No published checkpoint has that name; lists the names, the nearest one first.

    >>> full_name("crane_mvtec"), full_name("crane_visa@2"), full_name("mini")
    ('crane_mvtec@5', 'crane_visa@2', 'mini')
    """
    stem, _, epoch = name.partition("@")
    one_of(stem, prompt_names(), "checkpoint (there is no such file, and no such name)", key)
    if stem == MINI and not epoch:
        return MINI
    whole = name if epoch else f"{stem}@{EPOCH}"
    if whole not in published_files():
        has = "no epochs to choose from" if stem == MINI else f"the epochs 1 to 5, not {epoch}"
        raise UsageError(f"{stem} has {has}", key=key)
    return whole


def last_prompts(folder: Path, key: str = "checkpoint") -> Path:
    """The prompts of the last epoch in the folder of a training, or in its `prompts/`.

    Raises:
        UsageError: There are none.
    """
    found = {
        int(match[1]): path
        for place in (folder, folder / "prompts")
        if place.is_dir()
        for path in place.iterdir()
        if (match := _OF_EPOCH.fullmatch(path.name))
    }
    if not found:
        raise UsageError(
            f"the folder {folder} holds no prompts/epoch_N.safetensors; "
            "name the folder of a training, or a file",
            key=key,
        )
    return found[max(found)]


class HubPlace(NamedTuple):
    """A repository at a revision."""

    repo: str
    revision: str | None


def is_on_hub(spec: object) -> bool:
    """Whether a checkpoint is named by its repository.

    >>> is_on_hub("hf://owner/name@v1"), is_on_hub("mini")
    (True, False)
    """
    return isinstance(spec, str) and spec.startswith("hf://")


def hub_place(spec: str, key: str = "checkpoint") -> HubPlace:
    """The repository that a checkpoint names.

    Raises:
        UsageError: It names none.

    >>> hub_place("hf://owner/name@v1")
    HubPlace(repo='owner/name', revision='v1')
    >>> hub_place("hf://name")
    Traceback (most recent call last):
    crane.errors.UsageError: checkpoint must be hf://OWNER/NAME or hf://OWNER/NAME@REVISION, not ...
    """
    found = _ON_HUB.fullmatch(spec)
    if found is None or ".." in spec:
        wanted = "hf://OWNER/NAME or hf://OWNER/NAME@REVISION"
        raise UsageError(f"must be {wanted}, not {spec}", key=key)
    return HubPlace(found["repo"], found["revision"])
