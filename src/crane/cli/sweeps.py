"""The end of a multirun: what failed, the settings side by side, and against a baseline."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from crane.cli.recording import JOB_FILE, SKIPPED, JobOutcome, read_outcomes
from crane.errors import UsageError
from crane.reporting import read_store
from crane.reporting.results import MEAN
from crane.reporting.store import FAILED, FINISHED
from crane.reporting.tables import HEADINGS


class SweepSummary(Callback):
    """Hydra's callback that sums a multirun up; the jobs may have run in other processes."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Forget the jobs of an earlier multirun in the same folder."""
        for path in Path(config.hydra.sweep.dir).rglob(JOB_FILE):
            path.unlink()

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Print the summary.

        Raises:
            SystemExit: With 1 when a job failed, with 2 when there is no such baseline.
        """
        outcomes = read_outcomes(Path(config.hydra.sweep.dir))
        if not outcomes:  # a command that measures nothing
            return
        console = Console(highlight=False)
        counts = {state: sum(o.status == state for o in outcomes) for state in STATES}
        parts = [f"{count} {state}" for state, count in counts.items() if count]
        console.print(f"{len(outcomes)} jobs: {', '.join(parts)}")
        for outcome in (o for o in outcomes if o.status == FAILED):
            label = f"job {outcome.number}, {outcome.name}, seed {outcome.seed}"
            reason = escape(outcome.error or "")
            console.print(f"[red]failed[/red] {escape(label)}: {reason}", soft_wrap=True)
        try:
            if config.results_store is not None:
                _print_tables(console, config, outcomes)
        except UsageError as error:
            console.print(f"crane: {escape(str(error))}", soft_wrap=True)
            raise SystemExit(2) from error
        if counts[FAILED]:
            raise SystemExit(1)


STATES = (FINISHED, SKIPPED, FAILED)
"""How a job may end."""


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
    """Lay out mean ± standard deviation over the seeds, in percent, for each setting and target.

    Args:
        numbers: Of `sweep_numbers`.
        metrics: Which metrics to show.
    """
    table = _table("Mean ± standard deviation over seeds, %", ("seeds",), metrics)
    for (name, dataset), rows in numbers.groupby(["name", "dataset"], sort=False):
        cells = [_spread(rows.loc[rows["metric"] == metric, "value"]) for metric in metrics]
        table.add_row(_lines(name), escape(dataset), str(rows["seed"].nunique()), *cells)
    return table


def paired_table(numbers: pd.DataFrame, metrics: Sequence[str], baseline: str) -> Table:
    """Lay out each setting's difference from the baseline, seed by seed and target by target.

    Args:
        numbers: Of `sweep_numbers`.
        metrics: Which metrics to show.
        baseline: The name of the setting subtracted.
    """
    table = _table(f"Difference from {baseline}, paired by seed, points", ("pairs",), metrics)
    keys = ["dataset", "metric", "seed"]
    numbers = numbers.drop_duplicates(["name", *keys])
    base = numbers[numbers["name"] == baseline][[*keys, "value"]]
    others = numbers[numbers["name"] != baseline]
    pairs = others.merge(base, on=keys, how="left", suffixes=("", "_base"))
    pairs["value"] = pairs["value"] - pairs["value_base"]
    for (name, dataset), rows in pairs.groupby(["name", "dataset"], sort=False):
        cells = [_spread(rows.loc[rows["metric"] == m, "value"], sign="+") for m in metrics]
        num_pairs = rows.dropna(subset="value")["seed"].nunique()
        table.add_row(_lines(name), escape(dataset), str(num_pairs), *cells)
    return table


def _table(title: str, counts: Sequence[str], metrics: Sequence[str]) -> Table:
    table = Table(title=escape(title), box=SIMPLE, padding=(0, 1, 0, 0), title_justify="left")
    table.add_column("setting", no_wrap=True)
    table.add_column("data set", no_wrap=True)
    for heading in (*counts, *(HEADINGS.get(metric, metric) for metric in metrics)):
        table.add_column(heading, justify="right")
    return table


def _lines(name: str) -> str:
    """A setting's name with a line for each override; commas inside brackets stay."""
    return escape(re.sub(r",(?=[~+]*[\w.@/]+=)", "\n", name))


def _spread(values: pd.Series, sign: str = "") -> str:
    """Mean and sample standard deviation in percent; `-` for what no run has defined."""
    known = 100 * values.dropna()
    if known.empty:
        return "-"
    mean = f"{known.mean():{sign}.1f}"
    return mean if len(known) == 1 else f"{mean} ±{known.std(ddof=1):.1f}"
