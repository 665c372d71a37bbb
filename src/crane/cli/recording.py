"""How a command's run gets into the results store, and what a multirun does with its jobs."""

import json
import logging
import math
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, open_dict

from crane.cli.launch import alone_in
from crane.cli.validation import check_columns, optimises
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
    read_store,
    store_run,
)
from crane.runs.jobs import JOB_FILE, SKIPPED, STARTED, JobOutcome
from crane.runs.store import FAILED, FINISHED
from crane.training import RunSummary, weight_hashes

logger = logging.getLogger(__name__)


class Recording:
    """Puts the run inside a `with` block into the store, whether it ends well or not.

    In a multirun an error ends here, so that the jobs that follow still run; elsewhere it goes on.

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
        """What a sweeper that optimises is told of the run; None to one that does not."""
        self.describe(config)

    def describe(self, config: DictConfig, checkpoint: PromptCheckpoint | None = None) -> None:
        """Say what is run, once a checkpoint has brought its share of the configuration."""
        self.config = config
        self.sources = list(config.source)
        if checkpoint is not None:
            self.adopted = checkpoint.config is not None
            sources = checkpoint.info.get("sources", {})
            self.sources = [name.removeprefix("source.") for name in sources]

    def check(self) -> None:
        """Find out before the work whether its numbers can be shown and kept.

        Raises:
            UsageError: Columns that no metric fills, a folder that another run has, or a store that
                cannot be written.
        """
        check_columns(self.config)
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
        """Whether this is a job of a multirun that an earlier one finished; says so if it is."""
        # Now: building a run from the configuration fills in what hangs on the seed.
        self.setting = self._setting()
        if not self.in_multirun or not self.config.skip_finished or self.store is None:
            return False
        earlier = finished_runs(self.store, self.setting, self.config.seed)
        if not earlier:
            return False
        files = self._files()
        same = [run.place for run in earlier if (run.data, run.weights) == files]
        if not same:
            logger.info("done again: data or weights differ from %s", earlier[0].place.folder)
            return False
        # Numbers are in the store whether or not anyone has kept the folder.
        place = next((place for place in same if place.is_there), same[0])
        gone = "" if place.is_there else ", which is gone: skip_finished=false makes it again"
        logger.info("skipped, finished before in %s%s (skip_finished)", place.folder, gone)
        if is_optimising():
            stored = read_store(self.store, [place.run_id])
            means = stored[stored["class"] == MEAN]
            self._judge(
                (row.dataset, float(row.value))
                for row in means.itertuples()
                if row.metric == self.config.objective
            )
        self._note_job(SKIPPED, place.run_id)
        return True

    def keep(self, summary: RunSummary) -> RunSummary:
        """Store what a finished run measured, and give it back."""
        if _is_first_process():
            record = json.loads((summary.folder / "record.json").read_text(encoding="utf-8"))
            self.kept = self._store(FINISHED, summary.results, record)
        metric = self.config.objective
        self._judge((r.dataset, r.means[metric]) for r in summary.results if metric in r.means)
        self._note_job(FINISHED, self.kept)
        return summary

    def _judge(self, values: Iterable[tuple[str, float]]) -> None:
        if is_optimising():
            self.objective = mean_objective(self.config.objective, dict(values))

    def _files(self) -> tuple[dict[str, str], dict[str, str]]:
        """Fingerprints of the data and sums of the weights that this run is about to read."""
        data: CraneDataModule = build(self.config.data, "data")
        weights = dict(weight_hashes(self.config))
        if self.command == "test":
            weights["prompts"] = sha256(Path(self.config.checkpoint).expanduser())
        return data.fingerprints(), weights

    def __enter__(self) -> "Recording":
        self._note_job(STARTED, None)
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
            self._note_job(FAILED, self.kept or self._store_failure(reason), reason)
        if self.in_multirun:
            self.objective = worst_objective() if is_optimising() else None
            logger.error("failed: %s", reason, exc_info=error if mistake is None else None)
        return self.in_multirun

    def _store_failure(self, reason: str) -> str | None:
        record = begin_record(seed=self.config.seed, device="", data={}, weights={})
        try:
            return self._store(FAILED, (), {**asdict(record), "device": None}, reason)
        except OSError as error:
            logger.error("not in the results store: %s", error)
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
        """The options chosen; what a checkpoint brought has no option's name."""
        hydra = HydraConfig.get()
        choices, typed = hydra.runtime.choices, overridden(hydra.overrides.task)
        known = [group for group in OPTIONS if not self.adopted or group in typed]
        return {group: str(choices[group]) for group in known if choices.get(group) is not None}

    def _setting(self) -> str:
        config = self.config.copy()
        with open_dict(config):
            if self.command == "test":
                path = Path(config.checkpoint).expanduser()
                config.checkpoint = sha256(path) if path.is_file() else str(path)
        return setting_of(plain(config), self.command)

    def _note_job(self, status: str, run_id: str | None, error: str | None = None) -> None:
        if not self.in_multirun or not _is_first_process():
            return
        hydra = HydraConfig.get()
        constant = {*hydra.job.config.override_dirname.exclude_keys, "seed"}
        outcome = JobOutcome(
            number=int(hydra.job.num),
            varies=tuple(o for o in hydra.overrides.task if not overridden([o]) & constant),
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
    """What a failed job counts as, so that the sweeper goes on and searches elsewhere."""
    direction = str(HydraConfig.get().sweeper.get("direction", "")).rpartition(".")[2].lower()
    return math.inf if direction == "minimize" else -math.inf
