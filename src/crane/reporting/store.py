"""The results store: one table on disk to which every run adds its numbers.

A folder of small Parquet files, one a run, each written whole or not at all: any number of
processes may write at once, and pandas and DuckDB read the folder as one table.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from crane.errors import UsageError
from crane.reporting.results import MEAN, DatasetResult

FINISHED, FAILED = "finished", "failed"
"""How a run ended."""

OPTIONS = ("method", "backbone", "guide", "attention", "prompt", "scoring", "loss")
"""The configuration groups whose chosen option has a column."""

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("run_id", "setting", "command", "status", "error")),
        ("time", pa.timestamp("us", tz="UTC")),
        *((name, pa.string()) for name in ("folder", *OPTIONS)),
        ("seed", pa.int64()),
        *((name, pa.string()) for name in ("overrides", "sources", "dataset", "class", "metric")),
        ("value", pa.float64()),
        ("bound", pa.float64()),
        *((name, pa.string()) for name in ("reason", "commit")),
        ("dirty", pa.bool_()),
        *((name, pa.string()) for name in ("device", "versions", "data", "weights")),
    ]
)
"""The columns of the table, the same in every file."""


NOT_THE_SETTING = (
    *("run_dir", "logger", "table_columns", "results_store", "skip_finished", "baseline"),
    *("objective", "overlay"),
)
"""Keys that do not change what a run computes: where it writes, what it prints and draws."""

PLACES = ("datasets_dir", "weights_dir", "allow_download")
"""The same at any depth: where files lie. What is in them is compared by `data` and `weights`."""

NOT_THE_SETTING_IN: Mapping[str, Sequence[str]] = {
    "trainer": (
        *("accelerator", "devices", "num_nodes", "strategy", "default_root_dir"),
        *("enable_progress_bar", "enable_model_summary", "log_every_n_steps"),
    ),
    "data": ("num_workers",),
    "cache": ("folder", "source", "targets"),  # cached features are equal to the last bit
}
"""The same, inside a group."""


class StoredPlace(NamedTuple):
    """Where a run is found."""

    run_id: str
    """The name of its file in the store."""
    folder: str
    """Its own folder."""


class FinishedRun(NamedTuple):
    """A run that the store has, and the files it was made from."""

    place: StoredPlace
    """Where it is found."""
    data: Mapping[str, str]
    """Data set to the fingerprint of its files."""
    weights: Mapping[str, str]
    """Weights to their sha256."""


@dataclass(frozen=True)
class StoredRun:
    """What the store keeps of a run, in each of its rows."""

    setting: str
    """What a run is apart from its seed: runs that differ in nothing else have the same one."""
    command: str
    """The command, such as `train`."""
    status: str
    """`finished` or `failed`."""
    folder: str
    """Where the rest of the run is."""
    seed: int
    """Seed of everything random."""
    overrides: Sequence[str]
    """What was typed after the command."""
    sources: Sequence[str]
    """Data sets trained on."""
    options: Mapping[str, str]
    """Configuration group to the option chosen; groups missing here are null in the table."""
    error: str | None = None
    """Why a run failed."""
    commit: str | None = None
    """Git commit of the sources."""
    dirty: bool | None = None
    """Whether the sources differ from the commit."""
    device: str | None = None
    """What it ran on."""
    versions: Mapping[str, str | None] = field(default_factory=dict)
    """Package to version."""
    data: Mapping[str, str] = field(default_factory=dict)
    """Data set to the fingerprint of its files."""
    weights: Mapping[str, str] = field(default_factory=dict)
    """Weights to their sha256."""
    run_id: str = field(default_factory=lambda: uuid4().hex)
    """The name of its file."""
    time: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    """When it was stored."""


def store_run(folder: Path, run: StoredRun, results: Sequence[DatasetResult] = ()) -> Path:
    """Add a run to the store: a row for each number, or one row when there is none.

    Args:
        folder: The store; made if missing.
        run: The run.
        results: Its numbers, one entry a target.

    Returns:
        The file written.
    """
    about: dict[str, object] = {
        **{k: v for k, v in asdict(run).items() if k in SCHEMA.names},
        **{group: run.options.get(group) for group in OPTIONS},
        "overrides": json.dumps(list(run.overrides), ensure_ascii=False),
        "sources": ",".join(run.sources),
        **{name: _json(getattr(run, name)) for name in ("versions", "data", "weights")},
    }
    rows = [{**about, **row} for result in results for row in _rows(result)] or [about]
    path = folder / f"{run.run_id}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{run.run_id}.part"  # its end keeps it out of `*.parquet`
    try:
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _rows(result: DatasetResult) -> Iterator[dict[str, object]]:
    """One row for each number; a value that is not defined is null and has a reason."""
    for metric, column in result.values.items():
        bounds = result.bounds.get(metric, (math.nan,) * len(column))
        lacking = sorted({why for (m, _), why in result.reasons.items() if m == metric})
        numbers = [
            (name, value, bound, result.reasons.get((metric, name)))
            for name, value, bound in zip(result.class_names, column, bounds, strict=True)
        ]
        mean, mean_bound = result.means[metric], result.mean_bounds.get(metric, math.nan)
        why = "; ".join(lacking) if math.isnan(mean) else None
        for name, value, bound, reason in [*numbers, (MEAN, mean, mean_bound, why)]:
            yield {
                "dataset": result.dataset,
                "class": name,
                "metric": metric,
                "value": None if math.isnan(value) else float(value),
                "bound": None if math.isnan(bound) else float(bound),
                "reason": reason,
            }


def read_store(folder: Path | str, run_ids: Iterable[str] | None = None) -> pd.DataFrame:
    """Read the store.

    Args:
        folder: The store.
        run_ids: Which runs; None for all.

    Returns:
        The columns of `SCHEMA`, a row for each number of each run, oldest run first; without rows
        where there is no store yet.

    Raises:
        UsageError: A file in it is not of the store.
    """
    if run_ids is None:
        files = sorted(Path(folder).glob("*.parquet"))
    else:
        files = [Path(folder) / f"{run_id}.parquet" for run_id in dict.fromkeys(run_ids)]
    tables = [_read(path) for path in files]
    frame: pd.DataFrame = pa.concat_tables([SCHEMA.empty_table(), *tables]).to_pandas()
    return frame.sort_values(["time", "run_id"], kind="stable", ignore_index=True)


def finished_runs(folder: Path | str, setting: str, seed: int) -> list[FinishedRun]:
    """Find the finished runs of a setting and a seed, the latest first.

    Raises:
        UsageError: A file in the folder is not of the store.
    """
    wanted = {"setting": setting, "seed": seed, "status": FINISHED}
    about = ("time", "run_id", "folder", "data", "weights")
    rows = []
    for path in Path(folder).glob("*.parquet"):
        row = _read(path, [*wanted, *about]).slice(0, 1).to_pylist()[0]
        if wanted.items() <= row.items():
            rows.append(row)
    rows.sort(key=lambda row: row["time"], reverse=True)
    return [
        FinishedRun(
            StoredPlace(row["run_id"], row["folder"]),
            json.loads(row["data"]),
            json.loads(row["weights"]),
        )
        for row in rows
    ]


def stored_folder(folder: Path | str, run_id: str) -> Path | None:
    """Where a run lies that the store has; None if it has not.

    Raises:
        UsageError: The file of that name is not of the store.
    """
    path = Path(folder) / f"{run_id}.parquet"
    if not path.is_file():
        return None
    return Path(_read(path, ["folder"]).slice(0, 1).to_pylist()[0]["folder"])


def _read(path: Path, columns: list[str] | None = None) -> pa.Table:
    try:
        table = pq.read_table(path, columns=columns or SCHEMA.names)
        return table.cast(pa.schema([SCHEMA.field(name) for name in columns or SCHEMA.names]))
    except (pa.ArrowException, OSError, ValueError) as error:
        wanted = "a folder of results that crane wrote"
        raise UsageError(wanted, str(path), key="results_store", hint=str(error)) from error


def setting_of(config: Mapping[str, Any], command: str) -> str:
    """Name what a run computes, apart from its seed and from where and how fast it runs.

    Args:
        config: The resolved configuration in plain dictionaries, its seed taken out.
        command: The command it is for.

    Returns:
        16 hexadecimal digits, the same for configurations that lead to the same numbers.

    >>> one = {"image_size": 56, "run_dir": "a", "trainer": {"devices": 1, "max_epochs": 1}}
    >>> two = {"image_size": 56, "run_dir": "b", "trainer": {"devices": 2, "max_epochs": 1}}
    >>> setting_of(one, "train") == setting_of(two, "train") != setting_of(one, "test")
    True
    """
    config = without_places(config)
    kept = {name: content for name, content in config.items() if name not in NOT_THE_SETTING}
    for group, names in NOT_THE_SETTING_IN.items():
        if isinstance(kept.get(group), Mapping):
            kept[group] = {k: v for k, v in kept[group].items() if k not in names}
    text = json.dumps({"command": command, "config": kept}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without what only says where files lie.

    The folder of a data set stays, as it is what tells a user's own data sets apart; below
    `datasets_dir` it is named from there.

    Args:
        config: The resolved configuration in plain dictionaries.

    >>> without_places({"datasets_dir": "d", "a": {"root": "d/x", "weights_dir": "w"}})
    {'a': {'root': 'x'}}
    """
    top = config.get("datasets_dir")

    def kept(node: Any) -> Any:
        if isinstance(node, list):
            return [kept(content) for content in node]
        if not isinstance(node, Mapping):
            return node
        found = {name: kept(content) for name, content in node.items() if name not in PLACES}
        root = found.get("root")
        if isinstance(root, str) and isinstance(top, str):
            with suppress(ValueError):
                found["root"] = PurePath(root).relative_to(top).as_posix()
        return found

    return {**kept(config)}


def _json(content: Mapping[str, object]) -> str:
    return json.dumps(dict(content), sort_keys=True, ensure_ascii=False)
