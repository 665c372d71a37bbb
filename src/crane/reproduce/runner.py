"""Runs a plan: each training and each test once, skipping what finished before."""

import gc
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, open_dict

from crane import training
from crane.config import plain
from crane.files import sha256
from crane.identity import OPTIONS, setting_of
from crane.methods import PromptCheckpoint, adopt_config, read_checkpoint
from crane.reproduce.plan import Plan, Planner, Setting, Test, Training, prompts_of
from crane.reproduce.resources import why_missing
from crane.runs import DatasetResult, StoredRun, finished_runs, store_run
from crane.runs.store import FINISHED, StoredPlace

logger = logging.getLogger(__name__)

LAST = Path("checkpoints") / "last.ckpt"
"""State in a training's folder that it resumes from."""
PROMPTS = "prompts"
"""Name of the tested prompts among the weights of a test; the setting covers them already."""

Key = tuple[str, int, str, str]


@dataclass
class Outcomes:
    """How the tests of a plan ended."""

    done: dict[Test, str] = field(default_factory=dict)
    """Test to its run in the results store."""
    missing: dict[Test, str] = field(default_factory=dict)
    failed: dict[Test, str] = field(default_factory=dict)
    """Test to the error of it or of its training."""
    num_runs: int = 0
    """Trainings and tests that ran this time."""


class Runner:
    """Runs trainings and tests, and keeps their numbers in the results store.

    Args:
        planner: The planner that made the plan.
        folder: Parent folder; one subfolder per run, named by its setting and seed.
        store: The results store; it need not exist yet.
        report: Called with a line about each run.
    """

    def __init__(
        self, planner: Planner, folder: Path, store: Path, report: Callable[[str], None]
    ) -> None:
        self.resources = planner.resources
        self.folder, self.store, self.report = folder.absolute(), store, report
        self._finished: dict[Key, StoredPlace] = {}
        for run in reversed(finished_runs(store)):
            self._finished[_key(run.setting, run.seed, run.data, run.weights)] = run.place
        self._checkpoints: dict[Path, PromptCheckpoint] = {}
        self._configs: dict[tuple[Test, Path | None], tuple[DictConfig, str]] = {}

    def _find(
        self, name: str, seed: int, data: Mapping[str, str], setting: Setting
    ) -> StoredPlace | None:
        """The latest finished run of a setting and seed on the very files that are here."""
        weights = self.resources.hashes(setting.weights)
        return self._finished.get(_key(name, seed, data, weights))

    def trained(self, wanted: Training) -> Path | None:
        """Folder of a training that finished before; None if it has to run."""
        place = self._find(wanted.setting.name, wanted.seed, _data(wanted), wanted.setting)
        folder = None if place is None else Path(place.folder)
        if folder is None or not prompts_of(folder, wanted.num_epochs).is_file():
            return None
        return folder

    def tested(self, wanted: Test) -> StoredPlace | None:
        """Run of a test that finished before; None if it has to run."""
        folder = None if wanted.training is None else self.trained(wanted.training)
        path = wanted.learned(folder)
        is_there = wanted.training is None if path is None else path.is_file()
        if not is_there or wanted.dataset.missing is not None:
            return None
        _, name = self._ready(wanted, path)
        return self._find(name, wanted.seed, _data(wanted), wanted.setting)

    def run(self, plan: Plan) -> Outcomes:
        """Run everything that can run; after a failure, continue with the other tests."""
        gc.freeze()  # so that collecting the model of a run need not visit all that was imported
        outcomes = Outcomes()
        tests, labels = plan.distinct_tests, plan.labels()
        for place, test in enumerate(tests, 1):
            reason = why_missing(test.missing)
            if reason is not None:
                outcomes.missing[test] = reason
                continue
            try:
                self._run(test, outcomes, f"[{place}/{len(tests)}] {labels[test]}")
            except Exception as error:
                logger.exception("the run failed")
                text = f"{type(error).__name__}: {error}".splitlines()[0]
                self.report(f"failed: {text}")
                failed = [test]
                if test.training is not None and self.trained(test.training) is None:
                    failed = [t for t in tests if t.training is test.training]
                outcomes.failed |= {t: text for t in failed if t not in outcomes.done}
        gc.unfreeze()
        return outcomes

    def _run(self, test: Test, outcomes: Outcomes, label: str) -> None:
        """Train if necessary, then test if necessary."""
        if test in outcomes.failed:
            return
        why = self.resources.download(test.setting.config, test.setting.weights)
        if why is not None:
            outcomes.missing[test] = f"weights, as fetching them failed ({why})"
            return
        folder = None
        if test.training is not None:
            folder = self.trained(test.training)
            if folder is None:
                folder = self._train(test.training, label)
                outcomes.num_runs += 1
        config, name = self._ready(test, test.learned(folder))
        place = self._find(name, test.seed, _data(test), test.setting)
        if place is None:
            place = self._test(test, config, name, label)
            outcomes.num_runs += 1
        outcomes.done[test] = place.run_id

    def _ready(self, test: Test, path: Path | None) -> tuple[DictConfig, str]:
        """A test's configuration with the checkpoint's model in it, and its setting."""
        if (test, path) not in self._configs:
            config, digest = test.setting.of(test.seed, test.dataset.name), None
            if path is not None:
                if path not in self._checkpoints:
                    self._checkpoints[path] = read_checkpoint(path)
                config = adopt_config(config, self._checkpoints[path], test.overrides)
                digest = sha256(path)
            with open_dict(config):
                config.checkpoint = None if path is None else str(path)
            name = setting_of({**plain(config), "checkpoint": digest}, "test")
            self._configs[test, path] = config, name
        return self._configs[test, path]

    def _train(self, wanted: Training, label: str) -> Path:
        folder = self.folder / "trainings" / wanted.name
        config = wanted.setting.of(wanted.seed)
        with open_dict(config):
            config.run_dir = str(folder)
            config.resume = str(folder / LAST) if self._was_interrupted(folder, wanted) else None
        resumed = "" if config.resume is None else ", resumed from its last epoch,"
        started = time.monotonic()
        summary = training.train(config)
        self._keep(config, "train", wanted.overrides, wanted.setting.name, summary.results)
        self._end(f"{label}: trained{resumed}", started)
        return folder

    def _was_interrupted(self, folder: Path, wanted: Training) -> bool:
        """Whether a training of this setting, on these very files, stopped before its end."""
        if not (folder / LAST).is_file():
            return False
        record = _record(folder)
        files = self.resources.hashes(wanted.setting.weights)
        same = record["data"] == _data(wanted) and files.items() <= record["weights"].items()
        return same and record["ended"] is None

    def _test(self, wanted: Test, config: DictConfig, name: str, label: str) -> StoredPlace:
        with open_dict(config):
            config.run_dir = str(self.folder / "tests" / f"{name}-{wanted.seed}")
        started = time.monotonic()
        path = config.checkpoint
        summary = training.test(config, None if path is None else self._checkpoints[Path(path)])
        place = self._keep(config, "test", wanted.overrides, name, summary.results)
        self._end(f"{label}: tested", started)
        return place

    def _end(self, text: str, started: float) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.report(f"{text} in {time.monotonic() - started:.1f} s")

    def _keep(
        self,
        config: DictConfig,
        command: str,
        overrides: tuple[str, ...],
        name: str,
        results: Sequence[DatasetResult],
    ) -> StoredPlace:
        """Put a run that just ended into the store."""
        record = _record(Path(config.run_dir))
        pairs = (override.partition("=") for override in overrides)
        about = ("commit", "dirty", "device", "versions", "data", "weights")
        run = StoredRun(
            setting=name,
            command=command,
            status=FINISHED,
            folder=config.run_dir,
            seed=config.seed,
            overrides=overrides,
            sources=list(config.source),
            options={group: option for group, _, option in pairs if group in OPTIONS},
            **{key: record[key] for key in about},
        )
        store_run(self.store, run, results)
        place = StoredPlace(run.run_id, run.folder)
        self._finished[_key(run.setting, run.seed, run.data, run.weights)] = place
        return place


def _record(folder: Path) -> Mapping[str, Any]:
    return json.loads((folder / "record.json").read_text(encoding="utf-8"))


def _data(wanted: Training | Test) -> dict[str, str]:
    """Data set to fingerprint, as the record of the run has them."""
    if isinstance(wanted, Test):
        return {f"targets.{wanted.dataset.name}": str(wanted.dataset.fingerprint)}
    return {f"source.{one.name}": str(one.fingerprint) for one in wanted.sources}


def _key(setting: str, seed: int, data: Mapping[str, str], weights: Mapping[str, str]) -> Key:
    # Random weights are no file: the setting identifies them.
    files = {
        name: digest
        for name, digest in weights.items()
        if name != PROMPTS and not digest.startswith("random")
    }
    return setting, seed, json.dumps(dict(data), sort_keys=True), json.dumps(files, sort_keys=True)
