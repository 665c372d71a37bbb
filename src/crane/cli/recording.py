"""Storing a command's run, skipping jobs that finished before, and reporting to sweepers."""

import json
import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, open_dict

from crane.cli.launch import alone_in
from crane.cli.validation import optimises
from crane.config import overridden, plain
from crane.data import CraneDataModule
from crane.errors import UsageError, unwritable, usage_error
from crane.files import sha256, write_json
from crane.gate import build
from crane.identity import OPTIONS, setting_of
from crane.methods import PromptCheckpoint
from crane.runs import (
    MEAN,
    DatasetResult,
    StoredRun,
    begin_record,
    finished_runs,
    read_measurements,
    store_run,
)
from crane.runs.record import JOB_FILE, SKIPPED, STARTED, JobOutcome
from crane.runs.store import FAILED, FINISHED
from crane.training import RunSummary, weight_hashes

logger = logging.getLogger(__name__)


class Recording:
    """Stores the run inside a `with` block, whether it succeeds or fails.

    In a multirun it swallows errors, so that the other jobs still run.

    Args:
        config: The command's configuration.
        command: The command's name.
    """

    def __init__(self, config: DictConfig, command: str) -> None:
        self.command = command
        self.in_multirun = HydraConfig.get().mode == RunMode.MULTIRUN
        store = config.results_store
        self.store = None if store is None else Path(store).expanduser()
        self._held = ExitStack()
        self.adopted = False
        self.kept: str | None = None
        self.setting: str | None = None
        self.objective: float | None = None
        """The value for an optimising sweeper; None for other sweepers."""
        self.describe(config)

    def describe(self, config: DictConfig, checkpoint: PromptCheckpoint | None = None) -> None:
        """Set what is run; call it again once a checkpoint has changed the configuration."""
        self.config = config
        self.sources = list(config.source)
        if checkpoint is not None:
            self.adopted = checkpoint.config is not None
            sources = checkpoint.info.get("sources", {})
            self.sources = [name.removeprefix("source.") for name in sources]

    def check(self) -> None:
        """Check before the work that its numbers can be shown and stored.

        Raises:
            UsageError: Another run is writing to the folder, or the store cannot be written.
        """
        if _is_first_process():
            folder = Path(self.config.run_dir)
            self._held.enter_context(alone_in(folder, "run_dir or hydra.run.dir"))
            self._check_store()

    def _check_store(self) -> None:
        if self.store is None:
            return
        try:
            self.store.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.store):
                pass
        except OSError as error:
            raise unwritable(self.store, error, "results_store") from error

    def is_done(self) -> bool:
        """Whether this is a job of a multirun that finished before; logs it if so."""
        # Now, since building a run fills in what depends on the seed.
        self.setting = self._setting()
        if not self.in_multirun or not self.config.skip_finished or self.store is None:
            return False
        earlier = finished_runs(self.store, self.setting, self.config.seed)
        if not earlier:
            return False
        files = self._files()
        same = [run.place for run in earlier if (run.data, run.weights) == files]
        if not same:
            logger.info("running again: data or weights differ from %s", earlier[0].place.folder)
            return False
        # The store has the numbers even if someone has removed the folder.
        place = next((place for place in same if place.is_there), same[0])
        gone = "" if place.is_there else ", which was removed; skip_finished=false runs it again"
        logger.info("skipped: finished before in %s%s", place.folder, gone)
        if is_optimising():
            rows = read_measurements(self.store, [(place.run_id, self.setting)], MEAN)
            self._set_objective({r.dataset: r.value for r in rows if r.metric == self._metric})
        self._write_outcome(SKIPPED, place.run_id)
        return True

    def keep(self, summary: RunSummary) -> RunSummary:
        """Store the numbers of a finished run, and return its summary."""
        if _is_first_process():
            record = json.loads((summary.folder / "record.json").read_text(encoding="utf-8"))
            self.kept = self._store(FINISHED, summary.results, record)
        means = {result.dataset: result.means for result in summary.results}
        self._set_objective({d: m[self._metric] for d, m in means.items() if self._metric in m})
        self._write_outcome(FINISHED, self.kept)
        return summary

    @property
    def _metric(self) -> str:
        return str(self.config.objective)

    def _set_objective(self, values: Mapping[str, float]) -> None:
        if is_optimising():
            self.objective = mean_objective(self._metric, values)

    def _files(self) -> tuple[dict[str, str], dict[str, str]]:
        """Fingerprints of the data and checksums of the weights that this run will read."""
        data: CraneDataModule = build(self.config.data, "data")
        weights = dict(weight_hashes(self.config))
        if self.command == "test" and self.config.checkpoint is not None:
            weights["prompts"] = sha256(Path(self.config.checkpoint).expanduser())
        return data.fingerprints(), weights

    def __enter__(self) -> "Recording":
        self._write_outcome(STARTED, None)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._held.close()
        if not isinstance(error, Exception):
            return False
        mistake = usage_error(error)
        reason = str(mistake) if mistake is not None else f"{type(error).__name__}: {error}"
        if _is_first_process():
            self._write_outcome(FAILED, self.kept or self._store_failure(reason), reason)
        if self.in_multirun:
            self.objective = worst_objective() if is_optimising() else None
            logger.error("failed: %s", reason, exc_info=error if mistake is None else None)
        return self.in_multirun

    def _store_failure(self, reason: str) -> str | None:
        record = begin_record(seed=self.config.seed, device="", data={}, weights={})
        try:
            return self._store(FAILED, (), {**asdict(record), "device": None}, reason)
        except OSError as error:
            logger.error("cannot write to the results store: %s", error)
            return None

    def _store(
        self,
        status: str,
        results: Sequence[DatasetResult],
        record: dict,
        error: str | None = None,
    ) -> str | None:
        if self.store is None:
            return None
        facts = {name: record[name] for name in ("commit", "dirty", "device", "versions", "data")}
        run = StoredRun(
            setting=self.setting or self._setting(),
            command=self.command,
            status=status,
            folder=str(Path(self.config.run_dir).absolute()),
            seed=self.config.seed,
            overrides=list(HydraConfig.get().overrides.task),
            sources=self.sources,
            options=self._options(),
            error=error,
            weights=record["weights"],
            **facts,
        )
        store_run(self.store, run, results)
        return run.run_id

    def _options(self) -> dict[str, str]:
        """The options chosen; a configuration from a checkpoint has no option names."""
        hydra = HydraConfig.get()
        choices, typed = hydra.runtime.choices, overridden(hydra.overrides.task)
        known = [group for group in OPTIONS if not self.adopted or group in typed]
        return {group: str(choices[group]) for group in known if choices.get(group) is not None}

    def _setting(self) -> str:
        config = self.config.copy()
        with open_dict(config):
            if self.command == "test" and config.checkpoint is not None:
                path = Path(config.checkpoint).expanduser()
                config.checkpoint = sha256(path) if path.is_file() else str(path)
        return setting_of(plain(config), self.command)

    def _write_outcome(self, status: str, run_id: str | None, error: str | None = None) -> None:
        if not self.in_multirun or not _is_first_process():
            return
        hydra = HydraConfig.get()
        shared = {*hydra.job.config.override_dirname.exclude_keys, "seed"}
        outcome = JobOutcome(
            number=int(hydra.job.num),
            varies=tuple(o for o in hydra.overrides.task if not overridden([o]) & shared),
            seed=self.config.seed,
            status=status,
            run_id=run_id,
            error=error,
        )
        write_json(Path(hydra.runtime.output_dir) / JOB_FILE, asdict(outcome))


def _is_first_process() -> bool:
    return getattr(rank_zero_only, "rank", 0) == 0


def is_optimising() -> bool:
    """Whether this is a job of a multirun whose sweeper looks at what jobs measure."""
    return HydraConfig.initialized() and optimises(HydraConfig.get().sweeper)


def mean_objective(metric: str, values: Mapping[str, float]) -> float:
    """The mean over the targets.

    Args:
        metric: The metric's name.
        values: Target to its mean over classes.

    Raises:
        UsageError: There is no target, or one on which the metric is not defined.

    >>> mean_objective("aupro", {"visa": 0.8, "btad": 0.6})
    0.7
    """
    undefined = [name for name, value in values.items() if math.isnan(value)]
    if undefined:
        message = f"{metric} is not defined on {', '.join(undefined)}; choose another objective"
        raise UsageError(message, key="objective")
    if not values:
        raise UsageError("an objective needs at least one target; add targets=[…]", key="objective")
    return math.fsum(values.values()) / len(values)


def worst_objective() -> float:
    """The value of a failed job, which makes the sweeper search elsewhere."""
    direction = str(HydraConfig.get().sweeper.get("direction", "")).rpartition(".")[2].lower()
    return math.inf if direction == "minimize" else -math.inf
