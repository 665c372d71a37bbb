"""Doing what a plan says: each training and each test once, whatever was finished before."""

import gc
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from omegaconf import DictConfig, open_dict

from crane import training
from crane.identity import OPTIONS
from crane.methods import PromptCheckpoint, adopt_config, read_checkpoint
from crane.reproduce.finished import Finished
from crane.reproduce.plan import Composed, Plan, Planner, Test, Training, missing, setting
from crane.runs import DatasetResult, StoredRun, store_run
from crane.runs.store import FINISHED, StoredPlace

logger = logging.getLogger(__name__)

LAST = Path("checkpoints") / "last.ckpt"
"""What an interrupted training goes on from, in its folder."""

Say = Callable[[str], None]


@dataclass
class Outcomes:
    """What came of the tests of a plan."""

    done: dict[Test, str] = field(default_factory=dict)
    """Test to its run in the results store."""
    missing: dict[Test, str] = field(default_factory=dict)
    """Test to what it lacks."""
    failed: dict[Test, str] = field(default_factory=dict)
    """Test to why it, or its training, failed."""
    num_runs: int = 0
    """Trainings and tests that were run this time."""


class Runner:
    """Runs trainings and tests, and keeps them in the results store.

    Args:
        planner: Made the plan.
        folder: Runs go below it, each into a folder named by its setting.
        store: The results store.
        say: Called with a line about each run.
    """

    def __init__(self, planner: Planner, folder: Path, store: Path, say: Say) -> None:
        self.resources = planner.resources
        self.folder, self.store, self.say = folder.absolute(), store, say
        self.finished = Finished(store)
        self._checkpoints: dict[Path, PromptCheckpoint] = {}
        self._hashes: dict[Composed, Mapping[str, str]] = {}

    def _weights(self, composed: Composed) -> Mapping[str, str]:
        """The sha256 of the weight files of a configuration."""
        if composed.lacks:  # they may have been fetched since
            return self.resources.weights(composed.config)
        if composed not in self._hashes:
            self._hashes[composed] = self.resources.weights(composed.config)
        return self._hashes[composed]

    def trained(self, wanted: Training) -> Path | None:
        """The folder of a training that was finished before; None if it is to be run."""
        place = self.finished.find(
            wanted.composed.setting,
            wanted.seed,
            _data_of(wanted),
            self._weights(wanted.composed),
        )
        if place is None:
            return None
        folder = Path(place.folder)
        return folder if _prompts(folder, wanted.num_epochs).is_file() else None

    def tested(self, wanted: Test) -> StoredPlace | None:
        """The run of a test that was finished before; None if it is to be run."""
        folder = None if wanted.training is None else self.trained(wanted.training)
        path = wanted.checkpoint if folder is None else _prompts(folder, wanted.epoch)
        if path is None or not path.is_file() or wanted.dataset.lack is not None:
            return None
        _, name = self._ready(wanted, path)
        return self._find(wanted, name)

    def run(self, plan: Plan) -> Outcomes:
        """Run all that can be run.

        Returns:
            What came of every test. A failed run is reported, and the others go on.
        """
        outcomes = Outcomes()
        tests, labels = plan.distinct_tests, plan.labels()
        for place, test in enumerate(tests, 1):
            reason = missing(test.lacks)
            if reason is not None:
                outcomes.missing[test] = reason
                continue
            try:
                self._one(test, outcomes, f"[{place}/{len(tests)}] {labels[test]}")
            except Exception as error:
                logger.exception("the run failed")
                text = f"{type(error).__name__}: {error}".splitlines()[0]
                self.say(f"failed: {text}")
                others = [
                    t for t in tests if t.training is test.training and t not in outcomes.done
                ]
                failed_training = test.training is not None and self.trained(test.training) is None
                for one in others if failed_training else [test]:
                    outcomes.failed[one] = text
        return outcomes

    def _one(self, test: Test, outcomes: Outcomes, label: str) -> None:
        """Train if need be, then test if need be."""
        if test in outcomes.failed:
            return
        why = self.resources.fetch(test.composed.config)
        if why is not None:
            outcomes.missing[test] = f"weights, as fetching them failed ({why})"
            return
        path = test.checkpoint
        if test.training is not None:
            folder = self.trained(test.training)
            if folder is None:
                folder = self._train(test.training, outcomes, label)
            path = _prompts(folder, test.epoch)
        assert path is not None
        config, name = self._ready(test, path)
        place = self._find(test, name)
        if place is None:
            place = self._test(test, config, name, outcomes, label)
        outcomes.done[test] = place.run_id

    def _find(self, test: Test, name: str) -> StoredPlace | None:
        data = {f"targets.{test.dataset.name}": str(test.dataset.fingerprint)}
        return self.finished.find(name, test.seed, data, self._weights(test.composed))

    def _ready(self, test: Test, path: Path) -> tuple[DictConfig, str]:
        """A test's configuration with the checkpoint's model in it, and its setting."""
        if path not in self._checkpoints:
            self._checkpoints[path] = read_checkpoint(path)
        config = test.composed.of(test.seed, test.dataset.name)
        config = adopt_config(config, self._checkpoints[path], test.overrides)
        with open_dict(config):
            config.checkpoint = self.resources.sha256(path)
            name = setting(config, "test")
            config.checkpoint = str(path)
        return config, name

    def _train(self, wanted: Training, outcomes: Outcomes, label: str) -> Path:
        folder = self.folder / "trainings" / wanted.name
        config = wanted.composed.of(wanted.seed)
        with open_dict(config):
            config.run_dir = str(folder)
            config.resume = str(folder / LAST) if self._was_interrupted(folder, wanted) else None
        go_on = "" if config.resume is None else ", from where it was interrupted"
        started = time.monotonic()
        summary = training.train(config)
        name = wanted.composed.setting
        run = self._keep(config, "train", wanted.overrides, name, summary.results)
        self.finished.add(run)
        outcomes.num_runs += 1
        self._end(f"{label}: trained{go_on}", started)
        return folder

    def _was_interrupted(self, folder: Path, wanted: Training) -> bool:
        """Whether a training of this setting, on these very files, stopped before its end."""
        if not (folder / LAST).is_file():
            return False
        record = json.loads((folder / "record.json").read_text(encoding="utf-8"))
        files = self._weights(wanted.composed)
        same = record["data"] == _data_of(wanted) and files.items() <= record["weights"].items()
        return same and record["ended"] is None

    def _test(
        self, wanted: Test, config: DictConfig, name: str, outcomes: Outcomes, label: str
    ) -> StoredPlace:
        with open_dict(config):
            config.run_dir = str(self.folder / "tests" / f"{name}-{wanted.seed}")
        started = time.monotonic()
        summary = training.test(config, self._checkpoints[Path(config.checkpoint)])
        run = self._keep(config, "test", wanted.overrides, name, summary.results)
        outcomes.num_runs += 1
        self._end(f"{label}: tested", started)
        return self.finished.add(run)

    def _end(self, text: str, started: float) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.say(f"{text} in {time.monotonic() - started:.1f} s")

    def _keep(
        self,
        config: DictConfig,
        command: str,
        overrides: tuple[str, ...],
        name: str,
        results: tuple[DatasetResult, ...],
    ) -> StoredRun:
        """Put a run into the store."""
        record = json.loads((Path(config.run_dir) / "record.json").read_text(encoding="utf-8"))
        run = StoredRun(
            setting=name,
            command=command,
            status=FINISHED,
            folder=config.run_dir,
            seed=config.seed,
            overrides=overrides,
            sources=list(config.source),
            options=_options(overrides),
            **{name: record[name] for name in ("commit", "dirty", "device", "versions", "data")},
            weights=record["weights"],
        )
        store_run(self.store, run, results)
        return run


def _data_of(wanted: Training) -> Mapping[str, str]:
    return {f"source.{one.name}": str(one.fingerprint) for one in wanted.sources}


def _prompts(folder: Path, epoch: int) -> Path:
    return folder / "prompts" / f"epoch_{epoch}.safetensors"


def _options(overrides: tuple[str, ...]) -> dict[str, str]:
    """The options that overrides choose of the groups that have a column in the store."""
    pairs = (override.partition("=") for override in overrides)
    return {name: value for name, _, value in pairs if name in OPTIONS}
