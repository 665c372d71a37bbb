"""Runs as their folders hold them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from crane.errors import UsageError
from crane.reporting import DatasetResult, read_results_json

RESULTS = "results.json"
HINT = "give folders of runs, or folders that hold some"


@dataclass(frozen=True)
class Run:
    """One run that has been tested."""

    folder: Path
    """Where it lies."""
    results: tuple[DatasetResult, ...]
    """One for each target."""
    config: Mapping[str, Any]
    """Its resolved configuration; empty where none was kept."""
    record: Mapping[str, Any]
    """What `record.json` says; empty where there is none."""

    @property
    def seed(self) -> int | None:
        """The seed; None where it is not known."""
        return self.record.get("seed", self.config.get("seed"))


def find_runs(paths: Sequence[str | Path]) -> tuple[list[Run], list[Path]]:
    """Read every run at or below some folders.

    Args:
        paths: folders.

    Returns:
        Runs with results, the earliest first, and the folders of runs that have none: under way,
        interrupted or failed.

    Raises:
        UsageError: for a path that is no folder, and where there is no run with results.
    """
    tested: dict[Path, Run] = {}
    untested: dict[Path, None] = {}
    for path in paths:
        top = Path(path).expanduser()
        if not top.is_dir():
            raise UsageError("a folder with runs", str(path), key="paths", hint=HINT)
        for file in sorted(top.rglob(RESULTS)):
            tested.setdefault(file.parent.resolve(), _read(file.parent))
        for file in sorted(top.rglob("record.json")):
            untested.setdefault(file.parent.resolve())
    if not tested:
        shown = ", ".join(map(str, paths)) or "none"
        raise UsageError(f"at least one {RESULTS}", f"none in {shown}", key="paths", hint=HINT)
    runs = sorted(tested.values(), key=lambda run: (str(run.record.get("started", "")), run.folder))
    return runs, [folder for folder in untested if folder not in tested]


def _read(folder: Path) -> Run:
    return Run(
        folder,
        read_results_json(folder / RESULTS),
        _content(folder / "config.yaml", yaml.safe_load),
        _content(folder / "record.json", json.loads),
    )


def _content(path: Path, parse: Any) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(parse(path.read_text(encoding="utf-8")) or {})
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise UsageError("a file that a run wrote", str(path), hint=f"{error!r}") from error
