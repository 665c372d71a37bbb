"""The summary of a multirun: which jobs failed, the settings side by side, and its exit code."""

import math
import re
import sys
import textwrap
import traceback
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from crane.checks import shown
from crane.cli.launch import alone_in
from crane.cli.validation import check_metrics
from crane.errors import UsageError
from crane.runs import (
    HEADINGS,
    MEAN,
    Measurement,
    Quantity,
    Spread,
    differences,
    read_measurements,
    spreads,
)
from crane.runs.record import SKIPPED, STARTED, JobOutcome, read_outcomes
from crane.runs.store import FAILED, FINISHED
from crane.terminal import WholeTable

STATES = {FINISHED: FINISHED, SKIPPED: SKIPPED, FAILED: FAILED, STARTED: "unfinished"}
"""How a job may end, with the word for it."""
NAME_WIDTH = 22
"""Characters in a line of a setting's name: what six metrics leave of 80 columns."""

_running: list[tuple[DictConfig, ExitStack]] = []
"""The multirun of this process, from its start to its end: its configuration and its lock."""


def start(config: DictConfig) -> None:
    """Lock the folder of a multirun, and remove what an earlier one left there about its jobs.

    Raises:
        SystemExit: With 2 if a metric does not exist, or another multirun uses the folder.
    """
    held = ExitStack()
    try:
        check_metrics(config)
        held.enter_context(alone_in(Path(config.hydra.sweep.dir), "hydra.sweep.dir"))
    except UsageError as error:
        _leave(error)
    for path in _outcomes(config):
        path.unlink()
    _running.append((config, held))


def end(config: DictConfig) -> None:
    """Print the summary of a multirun.

    Raises:
        SystemExit: With 1 if a job failed, with 2 if the baseline does not exist.
    """
    _release()
    try:
        is_well = summarise(config)
    except UsageError as error:
        _leave(error)
    except Exception as error:  # Hydra would turn it into a warning
        traceback.print_exc()
        raise SystemExit(1) from error
    if not is_well:
        raise SystemExit(1)


@contextmanager
def summed_up() -> Iterator[None]:
    """Summarise a multirun that is interrupted too: Hydra does not call its callbacks then.

    A killed job ends the sweep of the joblib launcher, and the waiting of the submitit launchers.
    """
    try:
        yield
    except BaseException:  # Hydra has printed the error and raises SystemExit
        if _running:
            try:
                summarise(_running[0][0])
            except UsageError as error:
                print(f"crane: {error}", file=sys.stderr)
            print("interrupted; run the same command again to finish the rest", file=sys.stderr)
        raise
    finally:
        _release()


def _release() -> None:
    while _running:
        _running.pop()[1].close()


def _leave(error: UsageError) -> NoReturn:
    print(f"crane: {error}", file=sys.stderr)
    raise SystemExit(2) from error


def summarise(config: DictConfig) -> bool:
    """Print how the jobs of a multirun ended and what they measured.

    Args:
        config: The configuration of the multirun.

    Returns:
        Whether every job ended well.

    Raises:
        UsageError: The baseline does not exist, or the store cannot be read.
    """
    outcomes = list(_outcomes(config).values())
    if not outcomes:  # a command that measures nothing
        return True
    console = Console(highlight=False)
    counts = Counter(outcome.status for outcome in outcomes)
    parts = [f"{counts[state]} {word}" for state, word in STATES.items() if counts[state]]
    console.print(f"{len(outcomes)} {'job' if len(outcomes) == 1 else 'jobs'}: {', '.join(parts)}")
    for outcome in outcomes:
        if outcome.status in (FAILED, STARTED):
            label = f"job {outcome.number}, {outcome.name}, seed {outcome.seed}"
            reason = escape(outcome.error or "killed, or still running elsewhere")
            state = STATES[outcome.status]
            console.print(f"[red]{state}[/red] {escape(label)}: {reason}", soft_wrap=True)
    if config.results_store is not None:
        _print_tables(console, config, outcomes)
    return not (counts[FAILED] or counts[STARTED])


def _outcomes(config: DictConfig) -> dict[Path, JobOutcome]:
    unresolved: Any = OmegaConf.to_container(config.hydra.sweep)
    depth = 1 + str(unresolved["subdir"]).count("/")
    return read_outcomes(Path(config.hydra.sweep.dir), depth)


def _print_tables(console: Console, config: DictConfig, outcomes: Sequence[JobOutcome]) -> None:
    frame = sweep_frame(Path(config.results_store).expanduser(), outcomes)
    measured = {row.metric for row in frame}
    metrics = [metric for metric in config.table_columns if metric in measured]
    if not metrics:
        return
    console.print(spread_table(frame, metrics))
    if len({row.setting for row in frame}) > 1:
        baseline = find_baseline(config.baseline, outcomes, frame)
        console.print(paired_table(frame, metrics, baseline))


def sweep_frame(store: Path, outcomes: Sequence[JobOutcome]) -> list[Measurement]:
    """The means over classes that the jobs of a multirun measured, in the order of the jobs.

    Args:
        store: The results store.
        outcomes: How the jobs ended; failed ones have no numbers.
    """
    runs = [(o.run_id, o.name) for o in outcomes if o.run_id is not None and o.status != FAILED]
    return read_measurements(store, runs, MEAN)


def find_baseline(
    wanted: str | None, outcomes: Sequence[JobOutcome], frame: Sequence[Measurement]
) -> str:
    """The name of the setting that the others are compared with.

    Args:
        wanted: The full name of a setting, or one of the overrides in it; None for the first.
        outcomes: How the jobs ended.
        frame: What they measured.

    Raises:
        UsageError: No measured setting has this name.
    """
    measured = list(dict.fromkeys(row.setting for row in frame))
    if wanted is None:
        return measured[0]
    for outcome in outcomes:
        if wanted in (outcome.name, *outcome.varies) and outcome.name in measured:
            return outcome.name
    choices = " or ".join(measured)
    raise UsageError(f"no setting {shown(wanted)} was measured; choose {choices}", key="baseline")


def spread_table(frame: Sequence[Measurement], metrics: Sequence[str]) -> Table:
    """Mean ± standard deviation over seeds in percent, for each target and setting."""
    return _table("Mean ± standard deviation over seeds, %", "seeds", frame, metrics)


def paired_table(frame: Sequence[Measurement], metrics: Sequence[str], baseline: str) -> Table:
    """The difference of each setting from the baseline, paired by seed, for each target."""
    title = f"Difference from {baseline}, paired by seed, points"
    return _table(title, "pairs", differences(frame, baseline), metrics, sign="+")


def _table(
    title: str, counted: str, frame: Sequence[Measurement], metrics: Sequence[str], sign: str = ""
) -> Table:
    """A row for each setting below its target; what is too wide is folded, never cut off."""
    table = WholeTable(["setting"], title=escape(title))
    table.add_column(counted, justify="right", min_width=len(counted))
    for metric in metrics:
        table.add_column(HEADINGS.get(metric, metric), justify="right", min_width=6)
    found = spreads(frame)
    seeds: dict[str, dict[str, set[Hashable]]] = {}
    for row in frame:
        own = seeds.setdefault(row.dataset, {}).setdefault(row.setting, set())
        own.update(() if math.isnan(row.value) else [row.seed])
    for dataset, settings in seeds.items():
        table.add_row(f"[bold]{escape(_folded(dataset))}[/bold]")
        for name, own in settings.items():
            cells = [
                found.get(Quantity(name, dataset, MEAN, metric), Spread(())) for metric in metrics
            ]
            percents = (spread.percent(sign, " ±") for spread in cells)
            table.add_row(_lines(name), str(len(own)), *percents)
        table.add_section()
    return table


def _lines(name: str) -> str:
    """A setting's name with a line for each override; commas inside brackets stay."""
    overrides = re.split(r",(?=[~+]*[\w.@/]+=)", name)
    return escape("\n".join(_folded(override, " ") for override in overrides))


def _folded(word: str, indent: str = "") -> str:
    return textwrap.fill(word, NAME_WIDTH, initial_indent=indent, subsequent_indent=2 * indent)
