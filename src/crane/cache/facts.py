"""Everything that decides what the frozen towers say: the name of a cache entry."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crane.cache.code import code_digest
from crane.weights import RANDOM, weight_status, weights_needed

FORMAT = 1
"""Of the files of an entry; another number makes every older entry another one."""

PLACES = ("weights_dir", "allow_download")
"""Keys that say where weights are, not which."""

DigestFiles = Callable[[Path, Sequence[Path]], list[str]]
"""A folder and files of it, to their checksums."""


def tower_facts(settings: Mapping[str, Any], digest: DigestFiles) -> dict[str, Any]:
    """A tower's settings with the checksum of its weights in place of their name.

    Random weights, or none, follow from seed and configuration, which stay; for others the seed is
    no matter. Code of torch.hub that lies in a folder of the user's is known by its checksum, that
    of GitHub by its commit.

    Args:
        settings: Of `backbone.model` or `guide.features`, resolved.
        digest: Computes checksums of files.
    """
    facts = {key: value for key, value in settings.items() if key not in PLACES}
    if facts.get("weights", RANDOM) != RANDOM:
        folder = settings.get("weights_dir", ".")
        found = [weight_status(n, folder, verify=False).path for n in weights_needed(settings)]
        files = [path for path in found if path is not None and path.is_file()]
        facts["weights"] = [digest(path.parent, [path])[0] for path in files]
        facts.pop("seed", None)
    if facts.get("source") == "local":
        facts["repo_dir"] = code_digest([Path(facts["repo_dir"]).expanduser()])
    return facts


def images_digest(names: Iterable[str], digests: Iterable[str]) -> str:
    """One checksum of a data set's images, in any order.

    Labels and masks do not count: no tower sees them.

    Args:
        names: Of the images, such as their paths below the data set's folder.
        digests: Of their files.
    """
    lines = sorted(set(zip(names, digests, strict=True)))
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def entry_id(facts: Mapping[str, Any]) -> str:
    """The name of the entry that facts describe: 16 hexadecimal digits.

    >>> entry_id({"a": 1, "b": [2]}) == entry_id({"b": [2], "a": 1}) != entry_id({"a": 1, "b": [3]})
    True
    """
    text = json.dumps({**facts, "format": FORMAT}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
