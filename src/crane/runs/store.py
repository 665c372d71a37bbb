"""The results store: one table on disk to which every run adds its numbers.

A folder of small Parquet files, one per run, each written whole or not at all: any number of
processes may write at once, and pandas and DuckDB read the folder as one table.
"""

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from crane.errors import UsageError
from crane.files import write_bytes
from crane.identity import OPTIONS
from crane.metrics.counts import DatasetResult
from crane.runs.frame import Measurement, measurements
from crane.runs.record import StoredRun

if TYPE_CHECKING:  # imported where a store is read or written, which few commands do
    import pandas as pd
    import pyarrow as pa

logger = logging.getLogger(__name__)

FINISHED, FAILED = "finished", "failed"
"""How a run ended."""

TYPES: Mapping[str, str] = {
    **dict.fromkeys(("run_id", "setting", "command", "status", "error"), "string"),
    "time": "time",
    **dict.fromkeys(("folder", *OPTIONS), "string"),
    "seed": "int64",
    **dict.fromkeys(("overrides", "sources", "dataset", "class", "metric"), "string"),
    **dict.fromkeys(("value", "bound"), "float64"),
    **dict.fromkeys(("reason", "commit"), "string"),
    "dirty": "bool",
    **dict.fromkeys(("device", "versions", "data", "weights"), "string"),
}
"""The columns of the table with their types; every file has the same."""

YOUNGER = {"views"}
"""Columns that files of earlier versions do not have."""

ABOUT = ("setting", "seed", "status", "time", "run_id", "folder", "data", "weights")
"""The columns that say which run wrote a file, and with which data and weights."""

SUFFIX = ".parquet"


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
    """A run of the store, and the files it was made from."""

    place: StoredPlace
    """Where it is found."""
    data: Mapping[str, str]
    """Data set to the fingerprint of its files."""
    weights: Mapping[str, str]
    """Weights to their sha256."""
    setting: str
    """What it computed, see `crane.identity.setting_of`."""
    seed: int


@cache
def schema() -> "pa.Schema":
    """The columns of the table as pyarrow knows them."""
    import pyarrow as pa

    time = pa.timestamp("us", tz="UTC")
    return pa.schema([(n, time if t == "time" else t) for n, t in TYPES.items()])


def store_run(folder: Path, run: StoredRun, results: Sequence[DatasetResult] = ()) -> Path:
    """Add a run to the store: a row for each number, or one row without numbers.

    Args:
        folder: The store; made if missing.
        run: The run.
        results: Its numbers, one entry per target.

    Returns:
        The file written, which is on the disk when this returns.
    """
    import pyarrow as pa
    from pyarrow import parquet

    about = {
        **{name: value for name, value in asdict(run).items() if name in TYPES},
        **{group: run.options.get(group) for group in OPTIONS},
        "overrides": json.dumps(list(run.overrides), ensure_ascii=False),
        "sources": ",".join(run.sources),
        **{name: _json(getattr(run, name)) for name in ("versions", "data", "weights")},
    }
    numbers = [row for result in results for row in measurements(result, run.setting, run.seed)]
    rows = [{**about, **_columns(row)} for row in numbers] or [about]
    content = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema()), content)
    path = folder / f"{run.setting}-{run.seed}-{run.run_id}{SUFFIX}"
    return write_bytes(path, content.getvalue().to_pybytes(), durable=True)


def _columns(row: Measurement) -> dict[str, object]:
    return {
        "dataset": row.dataset,
        "class": row.class_name,
        "metric": row.metric,
        "value": None if math.isnan(row.value) else float(row.value),
        "bound": None if math.isnan(row.bound) else float(row.bound),
        "reason": row.reason or None,
    }


def _json(content: Mapping[str, object]) -> str:
    return json.dumps(dict(content), sort_keys=True, ensure_ascii=False)


def read_store(folder: Path | str, run_ids: Iterable[str] | None = None) -> "pd.DataFrame":
    """Read the store as a table.

    Args:
        folder: The store.
        run_ids: Only these runs; None for all.

    Returns:
        The columns `TYPES`, a row for each number of each run, oldest run first; empty if there is
        no store yet.

    Raises:
        UsageError: A run that is asked for is not in the folder.
    """
    frame: pd.DataFrame = _read_runs(folder, run_ids).to_pandas()
    return frame.sort_values(["time", "run_id"], kind="stable", ignore_index=True)


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
        UsageError: A run that is asked for is not in the folder.
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


def _read_runs(folder: Path | str, run_ids: Iterable[str] | None) -> "pa.Table":
    import pyarrow as pa

    paths = _paths(Path(folder))
    if run_ids is not None:
        found = {_run_id(path): path for path in paths}
        paths = [found.get(one, Path(folder) / f"{one}{SUFFIX}") for one in run_ids]
    tables = [table for path in paths if (table := _read(path)) is not None]
    return pa.concat_tables([schema().empty_table(), *tables])


def finished_runs(
    folder: Path | str, setting: str | None = None, seed: int | None = None
) -> list[FinishedRun]:
    """Find the finished runs of a setting and a seed, the latest first.

    File names hold setting and seed, so that only the files asked for are opened.

    Args:
        folder: The store.
        setting: What they computed; None for any.
        seed: Their seed, of one setting; None for any.

    """
    asked = {"setting": setting, "seed": seed, "status": FINISHED}
    wanted = {name: value for name, value in asked.items() if value is not None}
    named = [] if setting is None else [setting] if seed is None else [setting, seed]
    paths = _paths(Path(folder), "".join(f"{part}-" for part in named))
    rows = [(path, row) for path in paths if (row := _first_row(path)) is not None]
    rows = [(path, row) for path, row in rows if wanted.items() <= row.items()]
    rows.sort(key=lambda item: str(item[1]["time"]), reverse=True)
    return [run for path, row in rows if (run := _finished(path, row)) is not None]


def _finished(path: Path, row: Mapping[str, Any]) -> FinishedRun | None:
    try:
        files = json.loads(row["data"]), json.loads(row["weights"])
    except (TypeError, ValueError) as error:
        _leave_out(path, error)
        return None
    place = StoredPlace(row["run_id"], row["folder"])
    return FinishedRun(place, *files, row["setting"], row["seed"])


def stored_folder(folder: Path | str, run_id: str) -> Path | None:
    """The folder of a run; None if the store does not have the run."""
    found = [path for path in _paths(Path(folder)) if _run_id(path) == run_id]
    row = _first_row(found[0]) if found else None
    return None if row is None else Path(row["folder"])


def _paths(folder: Path, prefix: str = "") -> list[Path]:
    """The files of a store whose name starts with a prefix, or does not tell.

    Files are named `SETTING-SEED-RUN_ID`; those of the first versions `RUN_ID` alone.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 - ten times as fast as iterdir in a large store
    except FileNotFoundError:
        return []
    return [
        folder / name
        for name in sorted(names)
        if name.endswith(SUFFIX)
        and (name.startswith(prefix) or "-" not in name)
        and not name.startswith(".")
    ]


def _run_id(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def _first_row(path: Path) -> dict[str, Any] | None:
    """`ABOUT` of a file's run; None if the file is gone or broken."""
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return _cached_row(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=1 << 16)
def _cached_row(path: Path, *state: int) -> dict[str, Any] | None:
    table = _read(path, ABOUT, is_first_row=True)
    return None if table is None else table.to_pylist()[0]


def _read(
    path: Path, columns: Sequence[str] = tuple(TYPES), *, is_first_row: bool = False
) -> "pa.Table | None":
    """Some columns of a file; None, with a warning that names it, if it is broken or foreign.

    One file at a time: a look-up in 10,000 runs by pyarrow.dataset opens every file and takes
    13 s, and all first rows 77 s and 4.5 GB, against 0.1 s and 24 s by name and first row.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            known = [name for name in columns if name in file.schema_arrow.names]
            added = set(columns) - set(known)  # a group younger than the file has no option there
            if not added <= YOUNGER:
                raise pa.ArrowInvalid("it has other columns")
            if is_first_row:
                batches = file.iter_batches(batch_size=1, columns=known)
                table = pa.Table.from_batches([next(batches)])
            else:
                table = file.read(columns=known)
            for name in added:
                table = table.append_column(name, pa.nulls(len(table), "string"))
    except FileNotFoundError as error:
        problem = f"there is no run {_run_id(path)} in {path.parent}"
        raise UsageError(problem, key="results_store") from error
    except (pa.ArrowException, OSError, StopIteration) as error:
        _leave_out(path, error)
        return None
    try:
        return table.select(columns).cast(pa.schema([schema().field(name) for name in columns]))
    except pa.ArrowException as error:
        _leave_out(path, error)
        return None


def _leave_out(path: Path, why: object) -> None:
    reason = str(why).partition("\n")[0]
    logger.warning("%s is left out: it is broken, or not of a results store (%s)", path, reason)
