"""The end of a multirun: what failed, the settings side by side, and against a baseline."""

import re
import sys
import textwrap
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pandas as pd
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from crane.cli.folders import alone_in
from crane.cli.objective import check_objective
from crane.errors import UsageError
from crane.runs import read_store
from crane.runs.jobs import BEGUN, SKIPPED, JobOutcome, read_outcomes
from crane.runs.results import MEAN
from crane.runs.store import FAILED, FINISHED
from crane.runs.tables import HEADINGS


class SweepSummary(Callback):
    """Hydra's callback that sums a multirun up; the jobs may have run in other processes."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget the jobs of an earlier multirun in the same folder.

        Raises:
            SystemExit: With 2 when a sweeper that optimises is given nothing to optimise, and when
                another multirun has the folder.
        """
        held = ExitStack()
        try:
            check_objective(config)
            held.enter_context(alone_in(Path(config.hydra.sweep.dir), "hydra.sweep.dir"))
        except UsageError as error:
            _leave(error)
        for path in _outcomes(config):
            path.unlink()
        _under_way.append((config, held))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the summary.

        Raises:
            SystemExit: With 1 when a job failed, with 2 when there is no such baseline.
        """
        _forget()
        try:
            is_well = summarise(config)
        except UsageError as error:
            _leave(error)
        except Exception as error:  # Hydra would warn of it and end well
            traceback.print_exc()
            raise SystemExit(1) from error
        if not is_well:
            raise SystemExit(1)


_under_way: list[tuple[DictConfig, ExitStack]] = []
"""The multirun that this process runs, from its start to its end: configuration and lock.

Not in the callback, which launchers send to other processes.
"""


def _forget() -> None:
    while _under_way:
        _under_way.pop()[1].close()


@contextmanager
def summed_up() -> Iterator[None]:
    """Let a multirun that ends early be summed up too: Hydra then does not call its callbacks.

    A killed job ends the sweep of the joblib launcher, and the waiting of the submitit one.
    """
    try:
        yield
    except BaseException:  # Hydra has shown the error and leaves with SystemExit
        if _under_way:
            try:
                summarise(_under_way[0][0])
            except UsageError as error:
                print(f"crane: {error}", file=sys.stderr)
            print("ended early; the same command again does what is left", file=sys.stderr)
        raise
    finally:
        _forget()


def summarise(config: DictConfig) -> bool:
    """Print how the jobs of a multirun ended and what they measured.

    Args:
        config: Of the multirun.

    Returns:
        Whether every job ended well.

    Raises:
        UsageError: There is no such baseline, or the store cannot be read.
    """
    outcomes = list(_outcomes(config).values())
    if not outcomes:  # a command that measures nothing
        return True
    console = Console(highlight=False)
    counts = {state: sum(o.status == state for o in outcomes) for state in STATES}
    parts = [f"{count} {STATES[state]}" for state, count in counts.items() if count]
    console.print(f"{len(outcomes)} {'job' if len(outcomes) == 1 else 'jobs'}: {', '.join(parts)}")
    for outcome in outcomes:
        if outcome.status in (FAILED, BEGUN):
            label = f"job {outcome.number}, {outcome.name}, seed {outcome.seed}"
            reason = escape(outcome.error or "killed, or still running elsewhere")
            state = STATES[outcome.status]
            console.print(f"[red]{state}[/red] {escape(label)}: {reason}", soft_wrap=True)
    if config.results_store is not None:
        _print_tables(console, config, outcomes)
    return not counts[FAILED] and not counts[BEGUN]


def _outcomes(config: DictConfig) -> dict[Path, JobOutcome]:
    unresolved: Any = OmegaConf.to_container(config.hydra.sweep)
    depth = 1 + str(unresolved["subdir"]).count("/")
    return read_outcomes(Path(config.hydra.sweep.dir), depth)


def _leave(error: UsageError) -> NoReturn:
    print(f"crane: {error}", file=sys.stderr)
    raise SystemExit(2) from error


STATES = {FINISHED: FINISHED, SKIPPED: SKIPPED, FAILED: FAILED, BEGUN: "not ended"}
"""How a job may end, and what that is called."""

NAME_WIDTH = 22
"""Characters in a line of a setting's name: what six metrics leave of 80 columns."""


def _print_tables(console: Console, config: DictConfig, outcomes: Sequence[JobOutcome]) -> None:
    numbers = sweep_numbers(Path(config.results_store).expanduser(), outcomes)
    metrics = [metric for metric in config.table_columns if metric in set(numbers["metric"])]
    if numbers.empty or not metrics:
        return
    console.print(spread_table(numbers, metrics))
    if numbers["name"].nunique() > 1:
        baseline = find_baseline(config.baseline, outcomes, numbers)
        console.print(paired_table(numbers, metrics, baseline))


def sweep_numbers(store: Path, outcomes: Sequence[JobOutcome]) -> pd.DataFrame:
    """The means over classes that the jobs of a multirun measured.

    Args:
        store: The results store.
        outcomes: How the jobs ended; those that failed have no numbers.

    Returns:
        Columns name (of the setting), seed, dataset, metric, value; in the order of the jobs.
    """
    jobs = [
        {"number": o.number, "name": o.name, "run_id": o.run_id}
        for o in outcomes
        if o.run_id is not None and o.status != FAILED
    ]
    stored = read_store(store, [str(job["run_id"]) for job in jobs])
    means = stored[stored["class"] == MEAN]
    columns = ["number", "name", "run_id"]
    joined = pd.DataFrame(jobs, columns=columns).merge(means, on="run_id", how="inner")
    ordered = joined.sort_values("number", kind="stable", ignore_index=True)
    return ordered[["name", "seed", "dataset", "metric", "value"]]


def find_baseline(wanted: str | None, outcomes: Sequence[JobOutcome], numbers: pd.DataFrame) -> str:
    """The name of the setting that the others are compared with.

    Args:
        wanted: A setting's whole name, or one of the overrides in it; None for the first setting.
        outcomes: How the jobs ended.
        numbers: What they measured.

    Raises:
        UsageError: No setting that was measured is called so.
    """
    measured = list(dict.fromkeys(numbers["name"]))
    if wanted is None:
        return str(measured[0])
    for outcome in outcomes:
        if wanted in (outcome.name, *outcome.varies) and outcome.name in measured:
            return outcome.name
    raise UsageError(f"a setting measured: {' or '.join(measured)}", wanted, key="baseline")


def spread_table(numbers: pd.DataFrame, metrics: Sequence[str]) -> Table:
    """Lay out mean ± standard deviation over the seeds, in percent, for each target and setting.

    Args:
        numbers: Of `sweep_numbers`.
        metrics: Which metrics to show.
    """
    return _table("Mean ± standard deviation over seeds, %", "seeds", _once(numbers), metrics)


def paired_table(numbers: pd.DataFrame, metrics: Sequence[str], baseline: str) -> Table:
    """Lay out each setting's difference from the baseline, seed by seed and target by target.

    Args:
        numbers: Of `sweep_numbers`.
        metrics: Which metrics to show.
        baseline: The name of the setting subtracted.
    """
    keys = ["dataset", "metric", "seed"]
    numbers = _once(numbers)
    base = numbers[numbers["name"] == baseline][[*keys, "value"]]
    others = numbers[numbers["name"] != baseline]
    pairs = others.merge(base, on=keys, how="left", suffixes=("", "_base"))
    pairs["value"] = pairs["value"] - pairs["value_base"]
    title = f"Difference from {baseline}, paired by seed, points"
    return _table(title, "pairs", pairs, metrics, sign="+")


def _once(numbers: pd.DataFrame) -> pd.DataFrame:
    """What a sweeper asked for twice counts once."""
    return numbers.drop_duplicates(["name", "seed", "dataset", "metric"])


def _table(
    title: str, counted: str, numbers: pd.DataFrame, metrics: Sequence[str], sign: str = ""
) -> Table:
    """A row for each setting below its target; what does not fit is folded, never cut off."""
    table = Table(title=escape(title), box=SIMPLE, padding=(0, 1, 0, 0), title_justify="left")
    table.add_column("setting", no_wrap=True)
    table.add_column(counted, justify="right", min_width=len(counted))
    for metric in metrics:
        table.add_column(HEADINGS.get(metric, metric), justify="right", min_width=6)
    for dataset, of_dataset in numbers.groupby("dataset", sort=False):
        table.add_row(f"[bold]{escape(_folded(dataset))}[/bold]")
        for name, rows in of_dataset.groupby("name", sort=False):
            values = [rows.loc[rows["metric"] == metric, "value"] for metric in metrics]
            number = rows.dropna(subset="value")["seed"].nunique()
            table.add_row(_lines(name), str(number), *(_spread(v, sign) for v in values))
        table.add_section()
    return table


def _lines(name: str) -> str:
    """A setting's name with a line for each override; commas inside brackets stay."""
    overrides = re.split(r",(?=[~+]*[\w.@/]+=)", name)
    return escape("\n".join(_folded(override, " ") for override in overrides))


def _folded(word: str, indent: str = "") -> str:
    return textwrap.fill(word, NAME_WIDTH, initial_indent=indent, subsequent_indent=2 * indent)


def _spread(values: pd.Series, sign: str = "") -> str:
    """Mean and sample standard deviation in percent; `-` for what no run has defined."""
    known = 100 * values.dropna()
    if known.empty:
        return "-"
    mean = f"{known.mean():{sign}.1f}"
    return mean if len(known) == 1 else f"{mean} ±{known.std(ddof=1):.1f}"
