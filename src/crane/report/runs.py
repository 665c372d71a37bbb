"""Runs as their folders hold them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from crane.errors import UsageError
from crane.files import sha256
from crane.runs import DatasetResult, read_results_json
from crane.runs.jobs import BEGUN, SKIPPED, JobOutcome, read_jobs
from crane.runs.store import FAILED, stored_folder

RESULTS = "results.json"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The one in C, where PyYAML has it, is ten times as fast."""
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
    training: "Run | None" = None
    """The training of the prompts that a test is of; None where it is not known."""

    @property
    def seed(self) -> int | None:
        """The seed, of a test that of its training; None where it is not known."""
        return self._own_seed if self.training is None else self.training.seed

    @property
    def repetition(self) -> tuple[int | None, ...]:
        """What tells it from other runs of its setting: all its seeds."""
        return self._own_seed, self.seed

    @property
    def _own_seed(self) -> int | None:
        return self.record.get("seed", self.config.get("seed"))


class Untested(NamedTuple):
    """A run that has no results."""

    folder: Path
    """Where it lies."""
    why: str
    """What is known of it."""


def find_runs(paths: Sequence[str | Path]) -> tuple[list[Run], list[Untested]]:
    """Read every run at or below some folders.

    Args:
        paths: folders.

    Returns:
        Runs with results, the earliest first, and those that have none: under way, interrupted or
        failed. Finished trainings that were to test nothing are neither. For a job of a multirun
        that was skipped stands the run that was finished before.

    Raises:
        UsageError: for a path that is no folder, and where there is no run with results.
    """
    reader = _Reader()
    untested: dict[Path, Untested] = {}
    for path in paths:
        top = Path(path).expanduser()
        if not top.is_dir():
            raise UsageError("a folder with runs", str(path), key="paths", hint=HINT)
        for file in sorted(top.rglob(RESULTS)):
            reader.add(file.parent)
        for folder, job in read_jobs(top).items():
            why = reader.add_earlier(folder, job) if job.status == SKIPPED else _why(job)
            if why is not None:
                untested.setdefault(folder.resolve(), Untested(folder.resolve(), why))
        for file in sorted(top.rglob("record.json")):
            if not _is_without_tests(file.parent):
                one = Untested(file.parent.resolve(), "under way, interrupted or failed")
                untested.setdefault(one.folder, one)
    if not reader.runs:
        shown = ", ".join(map(str, paths)) or "none"
        raise UsageError(f"at least one {RESULTS}", f"none in {shown}", key="paths", hint=HINT)
    runs = sorted(
        reader.runs.values(), key=lambda run: (str(run.record.get("started", "")), run.folder)
    )
    return runs, [one for folder, one in untested.items() if folder not in reader.runs]


def _why(job: JobOutcome) -> str | None:
    """Why a job that was not skipped may have no results; None if it has ended well."""
    if job.status == FAILED:
        return f"failed: {job.error or 'its log says why'}".splitlines()[0]
    return "under way or killed" if job.status == BEGUN else None


def _is_without_tests(folder: Path) -> bool:
    """Whether a run has ended well and was to test nothing."""
    try:
        record = _content(folder / "record.json")
        if record.get("ended") is None:
            return False
        has_targets = any(str(name).startswith("targets.") for name in record.get("data", {}))
        return not has_targets or _content(folder / "config.yaml").get("test") is False
    except UsageError:  # whatever it is, there are no results in it
        return False


class _Reader:
    """Reads each run, and each training that runs tested, once."""

    def __init__(self) -> None:
        self.runs: dict[Path, Run] = {}
        """Folder to run, for those with results."""
        self._trainings: dict[Path, Run] = {}

    def add(self, folder: Path) -> None:
        """Read a run with results, unless that has been done."""
        if folder.resolve() not in self.runs:
            results = read_results_json(folder / RESULTS)
            self.runs[folder.resolve()] = self._run(folder, results)

    def add_earlier(self, folder: Path, job: JobOutcome) -> str | None:
        """Read the run for which a job was skipped; if there are no results, say why."""
        earlier = _earlier(folder, job)
        if earlier is None:
            return "skipped, and the results store no longer has the run finished before"
        if (earlier / RESULTS).is_file():
            self.add(earlier)
            return None
        if _is_without_tests(earlier):
            return None
        return f"skipped, and the run finished before is no longer in {earlier}"

    def _run(self, folder: Path, results: tuple[DatasetResult, ...]) -> Run:
        config, record = _content(folder / "config.yaml"), _content(folder / "record.json")
        training = self._training(folder, config, record)
        return Run(folder, results, config, record, training)

    def _training(
        self, folder: Path, config: Mapping[str, Any], record: Mapping[str, Any]
    ) -> Run | None:
        """The training that wrote the prompts tested, if they still lie where it put them."""
        name, digest = config.get("checkpoint"), record.get("weights", {}).get("prompts")
        if not isinstance(name, str) or digest is None:
            return None
        path = _began_in(folder) / Path(name).expanduser()
        top = path.parent.parent  # TRAINING/prompts/epoch_5.safetensors
        if not path.is_file() or not (top / "config.yaml").is_file():
            return None
        if sha256(path) != digest:
            return None
        if top not in self._trainings:
            self._trainings[top] = self._run(top, ())
        return self._trainings[top]


def _earlier(folder: Path, job: JobOutcome) -> Path | None:
    """The folder of the run for which a job was skipped, by the results store that it named."""
    store = _content(folder / "hydra" / "config.yaml").get("results_store")
    if not isinstance(store, str) or job.run_id is None:
        return None
    return stored_folder(_began_in(folder) / Path(store).expanduser(), job.run_id)


def _began_in(folder: Path) -> Path:
    """The folder that relative paths of a run's configuration begin at."""
    try:
        return Path(_content(folder / "hydra" / "hydra.yaml")["hydra"]["runtime"]["cwd"])
    except (KeyError, TypeError):  # not run by itself, but by a command that gave whole paths
        return Path.cwd()


def _content(path: Path) -> dict[str, Any]:
    """What is in a JSON or YAML file; nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        parsed = json.loads(text) if path.suffix == ".json" else yaml.load(text, LOADER)
        return dict(parsed or {})
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise UsageError("a file that a run wrote", str(path), hint=f"{error!r}") from error
