"""What a run computes, in one word: configurations that lead to the same numbers share it."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any

NOT_THE_SETTING = (
    *("run_dir", "logger", "table_columns", "results_store", "skip_finished", "baseline"),
    *("objective", "overlay"),
)
"""Keys that do not change what a run computes: where it writes, what it prints and draws."""

PLACES = ("datasets_dir", "weights_dir", "allow_download")
"""The same at any depth: where files lie. What is in them is compared by `data` and `weights`."""

NOT_THE_SETTING_IN: Mapping[str, Sequence[str]] = {
    "trainer": (
        *("accelerator", "devices", "num_nodes", "strategy", "default_root_dir"),
        *("enable_progress_bar", "enable_model_summary", "log_every_n_steps"),
    ),
    "data": ("num_workers",),
    "cache": ("folder", "source", "targets"),  # cached features are equal to the last bit
}
"""The same, inside a group."""


def setting_of(config: Mapping[str, Any], command: str) -> str:
    """Name what a run computes, apart from its seed and from where and how fast it runs.

    Args:
        config: The resolved configuration in plain dictionaries, its seed taken out.
        command: The command it is for.

    Returns:
        16 hexadecimal digits, the same for configurations that lead to the same numbers.

    >>> one = {"image_size": 56, "run_dir": "a", "trainer": {"devices": 1, "max_epochs": 1}}
    >>> two = {"image_size": 56, "run_dir": "b", "trainer": {"devices": 2, "max_epochs": 1}}
    >>> setting_of(one, "train") == setting_of(two, "train") != setting_of(one, "test")
    True
    """
    config = without_places(config)
    kept = {name: content for name, content in config.items() if name not in NOT_THE_SETTING}
    for group, names in NOT_THE_SETTING_IN.items():
        if isinstance(kept.get(group), Mapping):
            kept[group] = {k: v for k, v in kept[group].items() if k not in names}
    text = json.dumps({"command": command, "config": kept}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what only says where files lie.

    The folder of a data set stays, as it is what tells a user's own data sets apart; below
    `datasets_dir` it is named from there.

    Args:
        config: The resolved configuration in plain dictionaries.

    >>> without_places({"datasets_dir": "d", "a": {"root": "d/x", "weights_dir": "w"}})
    {'a': {'root': 'x'}}
    """
    top = config.get("datasets_dir")

    def kept(node: Any) -> Any:
        if isinstance(node, list):
            return [kept(content) for content in node]
        if not isinstance(node, Mapping):
            return node
        found = {name: kept(content) for name, content in node.items() if name not in PLACES}
        root = found.get("root")
        if isinstance(root, str) and isinstance(top, str):
            with suppress(ValueError):
                found["root"] = PurePath(root).relative_to(top).as_posix()
        return found

    return {**kept(config)}
