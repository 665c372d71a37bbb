"""The results store: one table on disk to which every run adds its numbers.

A folder of small Parquet files, one a run, each written whole or not at all: any number of
processes may write at once, and pandas and DuckDB read the folder as one table.
"""

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from crane.errors import UsageError
from crane.identity import OPTIONS
from crane.runs.frame import Measurement
from crane.runs.results import MEAN, DatasetResult

logger = logging.getLogger(__name__)

FINISHED, FAILED = "finished", "failed"
"""How a run ended."""

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

NAME = re.compile(r"(?P<setting>[^-]+)-(?P<seed>-?\d+)-(?P<run_id>[^-]+)")
"""What files are called, so that most need not be opened; earlier ones are called `RUN_ID`."""

ABOUT = ("setting", "seed", "status", "time", "run_id", "folder", "data", "weights")
"""The columns that say which run a file is of, and from what it was made."""


class StoredPlace(NamedTuple):
    """Where a run is found."""

    run_id: str
    """The last part of its file's name in the store."""
    folder: str
    """Its own folder."""

    @property
    def is_there(self) -> bool:
        """Whether its folder still exists."""
        return Path(self.folder).is_dir()


class FinishedRun(NamedTuple):
    """A run that the store has, and the files it was made from."""

    place: StoredPlace
    """Where it is found."""
    data: Mapping[str, str]
    """Data set to the fingerprint of its files."""
    weights: Mapping[str, str]
    """Weights to their sha256."""
    setting: str
    """What it computed: see `setting_of`."""
    seed: int
    """Its seed."""


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
    """The last part of its file's name."""
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
    about = {
        **{k: v for k, v in asdict(run).items() if k in SCHEMA.names},
        **{group: run.options.get(group) for group in OPTIONS},
        "overrides": json.dumps(list(run.overrides), ensure_ascii=False),
        "sources": ",".join(run.sources),
        **{name: _json(getattr(run, name)) for name in ("versions", "data", "weights")},
    }
    rows = [{**about, **row} for result in results for row in _rows(result)] or [about]
    path = folder / f"{run.setting}-{run.seed}-{run.run_id}.parquet"
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f".{run.run_id}.part"  # its end keeps it out of `*.parquet`
    try:
        with part.open("wb") as file:
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), file)
            file.flush()
            os.fsync(file.fileno())  # a machine that goes down would leave an empty file
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
        UsageError: A file in it is not of the store, or a run is not in it.
    """
    frame: pd.DataFrame = _read_runs(folder, run_ids).to_pandas()
    return frame.sort_values(["time", "run_id"], kind="stable", ignore_index=True)


def _read_runs(folder: Path | str, run_ids: Iterable[str] | None) -> pa.Table:
    files = _files(Path(folder))
    if run_ids is not None:
        files = {one: files.get(one, Path(folder) / f"{one}.parquet") for one in run_ids}
    tables = [_read(path) for path in files.values()]
    return pa.concat_tables(
        [SCHEMA.empty_table(), *(table for table in tables if table is not None)]
    )


def read_measurements(
    folder: Path | str, runs: Iterable[tuple[str, str]], class_name: str | None = None
) -> list[Measurement]:
    """Read numbers of the store as rows of the long frame.

    Args:
        folder: The store.
        runs: Run id and label of its setting, in the order wanted; one run may have several
            labels. Runs without numbers, such as failed ones, give no rows.
        class_name: Only this class, or `MEAN`; None for all.

    Raises:
        UsageError: A run is not in the store, or a file of it is not of a store.
    """
    pairs = list(runs)
    table = _read_runs(folder, dict.fromkeys(run_id for run_id, _ in pairs))
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        if row["metric"] is not None and class_name in (None, row["class"]):
            rows.setdefault(row["run_id"], []).append(row)
    return [
        Measurement(
            setting=label,
            seed=row["seed"],
            dataset=row["dataset"],
            class_name=row["class"],
            metric=row["metric"],
            value=math.nan if row["value"] is None else row["value"],
            bound=math.nan if row["bound"] is None else row["bound"],
            reason=row["reason"] or "",
            run_id=run_id,
        )
        for run_id, label in pairs
        for row in rows.get(run_id, ())
    ]


def finished_runs(
    folder: Path | str, setting: str | None = None, seed: int | None = None
) -> list[FinishedRun]:
    """Find the finished runs of a setting and a seed, the latest first.

    Args:
        folder: The store.
        setting: What they computed; None for whatever.
        seed: Their seed; None for any.

    Raises:
        UsageError: A file in the folder is not of the store.
    """
    asked = {"setting": setting, "seed": seed}
    wanted = {name: value for name, value in asked.items() if value is not None}
    rows = []
    for path in _files(Path(folder)).values():
        name = NAME.fullmatch(path.stem)
        if name is not None and any(name[key] != str(value) for key, value in wanted.items()):
            continue
        row = _about(path)
        if row is not None and {**wanted, "status": FINISHED}.items() <= row.items():
            rows.append(row)
    rows.sort(key=lambda row: row["time"], reverse=True)
    return [
        FinishedRun(
            StoredPlace(row["run_id"], row["folder"]),
            json.loads(row["data"]),
            json.loads(row["weights"]),
            row["setting"],
            row["seed"],
        )
        for row in rows
    ]


def stored_folder(folder: Path | str, run_id: str) -> Path | None:
    """Where a run lies that the store has; None if it has not."""
    path = _files(Path(folder)).get(run_id)
    row = None if path is None else _about(path)
    return None if row is None else Path(row["folder"])


def _files(folder: Path) -> dict[str, Path]:
    """The file of each run."""
    paths = sorted(folder.glob("*.parquet"))
    names = [NAME.fullmatch(path.stem) for path in paths]
    run_ids = [p.stem if n is None else n["run_id"] for p, n in zip(paths, names, strict=True)]
    return dict(zip(run_ids, paths, strict=True))


def _about(path: Path) -> dict[str, Any] | None:
    """`ABOUT` of the run of a file; None where the file is gone or broken."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return _first_row(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=1 << 16)
def _first_row(path: Path, *of_state: int) -> dict[str, Any] | None:
    # A sweep asks for each of its jobs; a file is never changed.
    table = _read(path, ABOUT, is_first_row=True)
    return None if table is None else table.to_pylist()[0]


def _read(
    path: Path, columns: Sequence[str] = SCHEMA.names, *, is_first_row: bool = False
) -> pa.Table | None:
    """Some columns of a file; None, with a warning, where it is broken."""
    wanted = UsageError("a folder of results that crane wrote", str(path), key="results_store")
    try:
        with pq.ParquetFile(path) as file:
            if not set(columns) <= set(file.schema_arrow.names):
                raise wanted
            if is_first_row:
                batches = file.iter_batches(batch_size=1, columns=list(columns))
                table = pa.Table.from_batches([next(batches)])
            else:
                table = file.read(columns=list(columns))
    except FileNotFoundError as error:
        raise wanted from error
    except (pa.ArrowException, OSError, StopIteration) as error:
        why = str(error).partition("\n")[0]
        logger.warning("left out, as it is broken and may be deleted: %s (%s)", path, why)
        return None
    try:
        return table.select(columns).cast(pa.schema([SCHEMA.field(name) for name in columns]))
    except pa.ArrowException as error:
        raise wanted from error


def _json(content: Mapping[str, object]) -> str:
    return json.dumps(dict(content), sort_keys=True, ensure_ascii=False)
