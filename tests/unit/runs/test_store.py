"""The results store: whole rows, whole files, read alike by pandas, DuckDB and crane."""

import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import pytest

from crane.errors import UsageError
from crane.identity import setting_of
from crane.runs import StoredRun, finished_runs, read_measurements, read_store, store_run
from crane.runs.frame import measurements
from crane.runs.results import MEAN, DatasetResult
from crane.runs.store import FAILED, FINISHED, OPTIONS, TYPES, stored_folder

NAN = math.nan
PAGE = Path(__file__).resolve().parents[3] / "docs" / "sweeps.md"
START = datetime(2026, 1, 2, tzinfo=timezone.utc)


def run(number=0, **changes):
    facts = {
        "setting": "s",
        "command": "train",
        "status": FINISHED,
        "folder": f"runs/{number}",
        "seed": 1,
        "overrides": ["attention=vv", "seed=1"],
        "sources": ["mvtec", "btad"],
        "options": {"attention": "vv", "backbone": "tiny"},
        "commit": "abc",
        "dirty": False,
        "device": "1 x 1 cpu",
        "versions": {"torch": "2.6", "crane": None},
        "data": {"targets.visa": "f" * 64},
        "weights": {"backbone": "random, seed 0"},
        "run_id": f"run{number}",
        "time": START + timedelta(seconds=number),
    }
    return StoredRun(**{**facts, **changes})


RESULT = DatasetResult(
    dataset="visa",
    class_names=("candle", "pcb"),
    values={"image_auroc": (0.9, 0.7), "aupro": (0.5, NAN)},
    means={"image_auroc": 0.8, "aupro": 0.5},
    num_normal=(1, 2),
    num_anomalous=(3, 4),
    reasons={("aupro", "pcb"): "no image with a mask"},
    bounds={"aupro": (0.001, NAN)},
    mean_bounds={"aupro": 0.0005},
)


def test_every_number_is_a_row_with_its_bound_or_its_reason(tmp_path):
    store_run(tmp_path, run(), [RESULT])
    frame = read_store(tmp_path)
    assert list(frame.columns) == list(TYPES)
    values = {(row["class"], row.metric): row.value for _, row in frame.iterrows()}
    assert values["candle", "image_auroc"] == 0.9
    assert values["mean", "image_auroc"] == 0.8
    assert values["mean", "aupro"] == 0.5
    assert math.isnan(values["pcb", "aupro"])
    assert len(values) == len(frame) == 6
    undefined = frame[frame["value"].isna()]
    assert list(undefined["reason"]) == ["no image with a mask"]
    assert frame[frame["value"].notna()]["reason"].isna().all()
    bounds = frame.set_index(["class", "metric"])["bound"]
    assert bounds["candle", "aupro"] == 0.001
    assert bounds["mean", "aupro"] == 0.0005
    assert math.isnan(bounds["candle", "image_auroc"])


def test_what_a_run_was_is_in_each_of_its_rows(tmp_path):
    store_run(tmp_path, run(), [RESULT])
    for _, row in read_store(tmp_path).iterrows():
        assert (row.setting, row.seed, row.status, row.folder) == ("s", 1, FINISHED, "runs/0")
        assert row.overrides == '["attention=vv", "seed=1"]'
        assert row.sources == "mvtec,btad"
        assert row.versions == '{"crane": null, "torch": "2.6"}'
        assert row.data == f'{{"targets.visa": "{"f" * 64}"}}'
        assert (row.attention, row.backbone) == ("vv", "tiny")
        assert all(pd.isna(row[group]) for group in set(OPTIONS) - {"attention", "backbone"})
        assert not row.dirty
        assert row.time == pd.Timestamp(START)


def test_runs_of_earlier_versions_have_no_view(tmp_path):
    store_run(tmp_path, run(), [RESULT])
    (file,) = tmp_path.glob("*.parquet")
    pd.read_parquet(file).drop(columns="views").to_parquet(file, index=False)
    store_run(tmp_path, run(1), [RESULT])
    assert len(read_store(tmp_path)) == 2 * 6
    assert read_store(tmp_path)["views"].isna().all()


def test_a_run_that_failed_is_one_row_without_numbers(tmp_path):
    store_run(tmp_path, run(status=FAILED, error="out of memory"))
    (row,) = read_store(tmp_path).to_dict("records")
    assert (row["status"], row["error"]) == (FAILED, "out of memory")
    assert pd.isna(row["metric"])
    assert math.isnan(row["value"])


def test_pandas_and_duckdb_read_the_folder_as_one_table(tmp_path):
    for number in range(3):
        store_run(tmp_path, run(number, seed=number), [RESULT])
    store_run(tmp_path, run(3, status=FAILED, seed=3))  # its columns of numbers are all null
    (tmp_path / f".{'0' * 32}.part").write_bytes(b"half a file of a run that was killed")
    ours = read_store(tmp_path)
    assert len(ours) == 3 * 6 + 1
    theirs = pd.read_parquet(tmp_path).sort_values("time", kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(theirs, ours, check_dtype=False)
    query = f"""
        SELECT seed, avg(value) AS value, count(value) AS known, count(*) AS number
        FROM '{tmp_path}/*.parquet' WHERE status = 'finished' AND class <> 'mean'
        GROUP BY seed ORDER BY seed
    """
    rows = duckdb.sql(query).fetchall()
    assert rows == [(seed, pytest.approx(0.7), 3, 4) for seed in range(3)]


def test_many_may_write_while_others_read(tmp_path):
    """A reader meets whole runs only, and none is lost."""

    def write(number):
        store_run(tmp_path, run(number), [RESULT])

    with ThreadPoolExecutor(8) as pool:
        writing = [pool.submit(write, number) for number in range(120)]
        counts = []
        while not all(job.done() for job in writing):
            counts.append(len(read_store(tmp_path)))
            finished_runs(tmp_path, "s", 1)
    assert all(job.exception() is None for job in writing)
    assert all(count % 6 == 0 for count in counts)
    assert counts == sorted(counts)
    assert read_store(tmp_path)["run_id"].nunique() == 120


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(descriptor):
        (part,) = tmp_path.iterdir()
        assert part.suffix == ".part"  # readers of *.parquet do not see it
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)  # which also shows that it is written durably
    with pytest.raises(OSError, match="no space"):
        store_run(tmp_path, run(), [RESULT])
    assert list(tmp_path.iterdir()) == []
    assert read_store(tmp_path).empty


def test_a_store_that_does_not_exist_has_no_rows(tmp_path):
    frame = read_store(tmp_path / "none")
    assert frame.empty
    assert list(frame.columns) == list(TYPES)
    assert finished_runs(tmp_path / "none", "s", 1) == []


def test_some_runs_can_be_read(tmp_path):
    for number in range(3):
        store_run(tmp_path, run(number), [RESULT])
    assert set(read_store(tmp_path, ["run2", "run0", "run2"])["run_id"]) == {"run0", "run2"}
    with pytest.raises(UsageError, match=r"results_store: there is no run run9 in "):
        read_store(tmp_path, ["run9"])


def test_a_file_of_someone_else_is_named_and_left_out(tmp_path, caplog):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "theirs.parquet")
    for read in (read_store, lambda store: finished_runs(store, "s", 1)):
        caplog.clear()
        assert not len(read(tmp_path))
        assert caplog.text.count("theirs.parquet is left out") == 1


def test_a_broken_file_is_named_and_left_out(tmp_path, caplog):
    store_run(tmp_path, run(1), [RESULT])
    whole = next(tmp_path.glob("*.parquet"))
    (tmp_path / "s-1-empty.parquet").touch()
    (tmp_path / "s-1-half.parquet").write_bytes(whole.read_bytes()[:-200])
    (tmp_path / "earlier.parquet").write_bytes(b"PAR1" + bytes(50) + b"PAR1")
    for read, number in ((finished_runs, 1), (read_store, 6)):
        caplog.clear()
        assert len(read(tmp_path)) == number
        for name in ("s-1-empty", "s-1-half", "earlier"):
            assert caplog.text.count(f"{name}.parquet") == 1
    assert stored_folder(tmp_path, "half") is None
    assert stored_folder(tmp_path, "run1") == Path("runs/1")


def test_a_setting_is_looked_for_without_opening_other_files(tmp_path, monkeypatch):
    for number in range(8):
        setting = f"{number % 4}" * 16
        store_run(tmp_path, run(number, setting=setting, seed=number // 4 - 1), [RESULT])
    opened = []
    read = pq.ParquetFile

    def counted(path):
        opened.append(path)
        return read(path)

    monkeypatch.setattr(pq, "ParquetFile", counted)
    (found,) = finished_runs(tmp_path, "2" * 16, -1)
    assert (found.place.run_id, found.setting, found.seed) == ("run2", "2" * 16, -1)
    assert len(opened) == 1
    assert len(finished_runs(tmp_path)) == 8
    assert len(opened) == 8


def test_runs_in_files_of_earlier_names_are_found(tmp_path):
    for number in (1, 2):
        store_run(tmp_path, run(number, setting="a-1-b"), [RESULT])
    path = next(tmp_path.glob("*-run1.parquet"))
    path.rename(tmp_path / "run1.parquet")
    found = finished_runs(tmp_path, "a-1-b", 1)
    assert [one.place.run_id for one in found] == ["run2", "run1"]
    assert finished_runs(tmp_path, "a", 1) == []
    assert set(read_store(tmp_path, ["run1"])["run_id"]) == {"run1"}
    assert stored_folder(tmp_path, "run1") == Path("runs/1")


def test_a_stored_place_knows_whether_its_folder_is_there(tmp_path):
    for number, folder in ((1, tmp_path / "gone"), (2, tmp_path)):
        store_run(tmp_path / "store", run(number, folder=str(folder)))
    assert [one.place.is_there for one in finished_runs(tmp_path / "store")] == [True, False]


def test_the_latest_finished_run_of_a_setting_and_seed_comes_first(tmp_path):
    store_run(tmp_path, run(1), [RESULT])
    store_run(tmp_path, run(2, data={"targets.visa": "e" * 64}), [RESULT])
    store_run(tmp_path, run(3, status=FAILED))
    store_run(tmp_path, run(4, seed=2), [RESULT])
    store_run(tmp_path, run(5, setting="t"), [RESULT])
    found = finished_runs(tmp_path, "s", 1)
    assert [entry.place for entry in found] == [("run2", "runs/2"), ("run1", "runs/1")]
    assert [entry.data["targets.visa"][0] for entry in found] == ["e", "f"]
    assert found[0].weights == {"backbone": "random, seed 0"}


@pytest.mark.parametrize(
    ("change", "is_another"),
    [
        ({"image_size": 518}, True),
        ({"data": {"k_shot": 2, "num_workers": 0}}, True),
        ({"trainer": {"precision": "bf16-mixed"}}, True),
        ({"data": {"k_shot": 0, "num_workers": 8}}, False),
        ({"trainer": {"precision": "32-true", "devices": 2, "strategy": "ddp"}}, False),
        ({"run_dir": "elsewhere", "baseline": "attention=vv", "objective": "aupro"}, False),
        ({"logger": {"_target_": "W"}, "results_store": None, "skip_finished": False}, False),
        ({"overlay": {"num_normal": 1}}, False),
        ({"weights_dir": "elsewhere", "allow_download": False}, False),
        ({"datasets_dir": "/e", "source": {"parts": {"root": "/e/embedded"}}}, False),
        ({"source": {"parts": {"root": "d/embedded", "datasets_dir": "e"}}}, False),
        ({"source": {"parts": {"root": "/mine"}}}, True),
        ({"source": {"parts": {"root": "d/embedded", "classes": ["a"]}}}, True),
        ({"backbone": {"model": {"weights_dir": "elsewhere"}}}, False),
        ({"backbone": {"model": {"weights": "others"}}}, True),
    ],
)
def test_a_setting_is_what_is_computed_not_where_or_how_fast(change, is_another):
    config = {
        "image_size": 56,
        "data": {"k_shot": 0, "num_workers": 0},
        "trainer": {"precision": "32-true"},
        "datasets_dir": "d",
        "source": {"parts": {"root": "d/embedded", "datasets_dir": "d"}},
        "backbone": {"model": {"weights_dir": "w"}},
    }
    assert (setting_of({**config, **change}, "train") != setting_of(config, "train")) == is_another


def test_the_page_names_every_column():
    rows = PAGE.read_text("utf-8").split("| column | what it is |")[1].splitlines()[2:]
    cells = [row.split("|")[1] for row in rows if row.startswith("|")]
    assert set(re.findall(r"`(\w+)`", " ".join(cells))) == set(TYPES)


def test_the_queries_of_the_page_average_the_seeds_of_a_setting(tmp_path, monkeypatch, capfd):
    """Two seeds of a training, one of them twice, and three tested checkpoints, told apart."""
    trained = [run(0, seed=0), run(1, seed=1), run(2, seed=1)]
    checkpoints = [
        run(number, setting=f"c{number}", seed=1, options={}, command="test")
        for number in (3, 4, 5)
    ]
    values = (0.5, 0.1, 0.75, 0.2, 0.3, 0.4)
    for one, value in zip((*trained, *checkpoints), values, strict=True):
        result = replace(RESULT, means={"image_auroc": value, "aupro": 0.5})
        store_run(tmp_path / "runs" / "store", one, [result])
    monkeypatch.chdir(tmp_path)
    by_pandas, by_duckdb = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    names = {}
    exec(by_pandas, names)
    spread = names["spread"].xs("image_auroc", level="metric")
    assert spread.loc[("s", "visa")].tolist() == pytest.approx([0.625, 0.1767767, 2])
    alone = [spread.loc[(f"c{number}", "visa"), "mean"] for number in (3, 4, 5)]
    assert alone == [0.2, 0.3, 0.4]
    exec(by_duckdb, {})
    printed = capfd.readouterr().out
    assert re.search(r"vv\s+│ .*│ visa\s+│\s+0\.625 │ 0\.1767\d+ │\s+2 │", printed)
    assert len(re.findall(r"NULL\s+│ .*│ visa\s+│\s+0\.[234] │\s+NULL │\s+1 │", printed)) == 3


def test_numbers_are_read_as_rows_of_the_long_frame(tmp_path):
    first, again, failed = run(1), run(2, seed=2), run(3, status=FAILED, error="no memory")
    for one in (first, again):
        store_run(tmp_path, one, [RESULT])
    store_run(tmp_path, failed)
    asked = [(again.run_id, "b"), (first.run_id, "a"), (first.run_id, "c"), (failed.run_id, "a")]
    means = read_measurements(tmp_path, asked, MEAN)
    labels = [(row.setting, row.seed, row.run_id) for row in means if row.metric == "image_auroc"]
    assert labels == [("b", 2, again.run_id), ("a", 1, first.run_id), ("c", 1, first.run_id)]
    every = read_measurements(tmp_path, [(first.run_id, "a")])
    expected = measurements(RESULT, "a", 1, first.run_id)
    assert sorted(map(repr, every)) == sorted(map(repr, expected))


def test_reading_runs_does_not_wait_for_torch_or_pandas():
    code = "import sys, crane.runs; print({'torch', 'pandas', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
