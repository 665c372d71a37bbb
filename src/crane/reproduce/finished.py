"""Runs that the results store has: they are not repeated."""

import json
from collections.abc import Mapping
from pathlib import Path

from crane.runs import StoredRun, finished_runs
from crane.runs.store import StoredPlace

PROMPTS = "prompts"
"""Name of the tested prompts among the weights of a test; its setting names them already."""

Key = tuple[str, int, str, str]


class Finished:
    """The finished runs of a results store, by what they computed and on which files.

    Args:
        store: The results store; it need not exist yet.
    """

    def __init__(self, store: Path) -> None:
        self._places: dict[Key, StoredPlace] = {}
        for run in reversed(finished_runs(store)):
            self._places[_key(run.setting, run.seed, run.data, run.weights)] = run.place

    def find(
        self, setting: str, seed: int, data: Mapping[str, str], weights: Mapping[str, str]
    ) -> StoredPlace | None:
        """The latest finished run of a setting and a seed on these very files.

        Args:
            setting: Of `crane.runs.setting_of`.
            seed: The seed.
            data: Data set to fingerprint, as runs record them.
            weights: Weight file to sha256; empty for a model of random weights.
        """
        return self._places.get(_key(setting, seed, data, weights))

    def add(self, run: StoredRun) -> StoredPlace:
        """Count a run that has just finished."""
        place = StoredPlace(run.run_id, run.folder)
        self._places[_key(run.setting, run.seed, run.data, run.weights)] = place
        return place


def _key(setting: str, seed: int, data: Mapping[str, str], weights: Mapping[str, str]) -> Key:
    # What is random is named by the setting; the recorded text about it is none of a file.
    files = {name: digest for name, digest in weights.items() if _is_file(name, digest)}
    return setting, seed, json.dumps(dict(data), sort_keys=True), json.dumps(files, sort_keys=True)


def _is_file(name: str, digest: str) -> bool:
    return name != PROMPTS and not digest.startswith("random")
