"""Lists of images and stores of results that are damaged or made to do harm, by command."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROW = {"img_path": "a/1.png", "mask_path": "m/1.png", "cls_name": "a", "anomaly": 1}


@pytest.fixture
def here(tmp_path) -> Path:
    """Two images of a class and a mask; a file beside their folder that no list may name."""
    (tmp_path / "set" / "a").mkdir(parents=True)
    (tmp_path / "set" / "m").mkdir()
    for number in range(2):
        pixels = np.full((20, 30, 3), 90 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "set" / "a" / f"{number}.png")
        Image.fromarray(pixels).save(tmp_path / "secret.png")
    Image.fromarray(np.full((20, 30), 255, np.uint8)).save(tmp_path / "set" / "m" / "1.png")
    return tmp_path


def rows(**changed: Any) -> str:
    """A meta.json whose second row is changed."""
    first = {**ROW, "img_path": "a/0.png", "mask_path": "", "anomaly": 0}
    return json.dumps({"test": {"a": [first, {**ROW, **changed}]}})


METAS: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "cannot read"),
    "text": ("images", "cannot read"),
    "a number": ("5", "not a int"),
    "cut": (rows()[:-9], "cannot read"),
    "UTF-16": (rows().encode("utf-16"), "cannot read"),
    "bytes": (b"\xff\xfe\x00{", "cannot read"),
    "no split": ("{}", "has no split test"),
    "a row of text": ('{"test": {"a": ["a/0.png"]}}', "must be an object with a path and a label"),
    "a class twice": ('{"test": {"a": [], "a": []}}', "holds 'a' twice"),
    "no path": (rows(img_path=None), "left out 1 entry of test without a path"),
    "a path of numbers": (rows(img_path=5), "must be a path, not 5"),
    "paths": (rows(img_path=["a/1.png", "a/0.png"]), "must be a path, not ['a/1.png'"),
    "NUL": (rows(img_path="a/1.png\0.txt"), "must be a path"),
    "above the folder": (rows(img_path="../secret.png"), "a path outside that folder"),
    "elsewhere": (rows(img_path="/etc/hostname"), "1 file listed in"),
    "no file": (rows(img_path="a/7.png"), "is missing: a/7.png"),
    "a long name": (rows(img_path="x" * 5000), "is missing"),
    "a mask above": (rows(mask_path="../secret.png"), "a path outside that folder"),
    "masks of numbers": (rows(mask_path=["m/1.png", 5]), "mask_path: must be a path, not 5"),
    "no mask file": (rows(mask_path="m/7.png"), "is missing: m/7.png"),
    "no label": (rows(anomaly=None), "it is unclear whether None is normal"),
    "NaN": (rows(anomaly=float("nan")), "it is unclear whether nan is normal"),
    "a label of lists": (rows(anomaly=[1]), "anomaly: must be one label, not [1]"),
    "another class": (rows(cls_name="b"), "is b, but it is listed under a"),
    "a box of text": (rows(box="0,0,9,9"), "box: must be [left, top, right, bottom]"),
    "a box outside": (rows(box=[0, 0, 900, 9]), "is not inside"),
    "the name of the average": (
        rows().replace('{"a":', '{"mean":').replace('"cls_name": "a"', '"cls_name": "mean"'),
        "no class may be called 'mean'",
    ),
}
TABLES: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "has no split test"),
    "a header": ("path,label\n", "has no split test"),
    "no header": ("a/0.png,0\na/1.png,1", "no column of"),
    "an open quote": ('path,label\n"a/0.png,0\na/1.png,1', "unexpected end of data"),
    "more cells": ("path,label\na/0.png,0,0", "more or fewer cells than the header"),
    "fewer cells": ("path,label\na/0.png", "more or fewer cells than the header"),
    "NUL": ("path,label\na/0.png\0,0", "wrong.csv"),
    "a long cell": ("path,label\n" + "x" * 200_000 + ",0", "field larger than field limit"),
    "UTF-16": ("path,label\na/0.png,0".encode("utf-16"), "cannot read"),
    "two columns": ("path,label,label\na/0.png,0,1", "two columns of one name"),
    "a formula": ("path,label\n=1+1,0\na/1.png,1", "is missing: =1+1"),
    "above": ("path,label\n../secret.png,0\na/1.png,1", "a path outside that folder"),
    "a web page": ("<!DOCTYPE html><title>Sign in</title>", "no split test"),
    "yes": ("path,label\na/0.png,yes\na/1.png,no", "it is unclear whether 'yes' is normal"),
    "a probability": ("path,label\na/0.png,0.0\na/1.png,0.7", "unclear whether '0.7' is normal"),
    "unknown words": ("path,label\na/0.png,fine\na/1.png,cut", "which of the labels fine, cut"),
    "another split": ("path,label,split\na/0.png,0,train", "no split test in"),
}
CASES = [("meta_json", name, *case) for name, case in METAS.items()]
CASES += [("table", name, *case) for name, case in TABLES.items()]


@pytest.mark.parametrize(
    ("kind", "name", "content", "said"), CASES, ids=[f"{k}: {n}" for k, n, *_ in CASES]
)
def test_a_list_is_refused_or_read_in_part_with_a_word(crane, here, kind, name, content, said):
    path = here / "set" / ("meta.json" if kind == "meta_json" else "wrong.csv")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    key = f"targets.{kind}.{'root=set' if kind == 'meta_json' else 'file=set/wrong.csv'}"
    outcome = crane(
        "test",
        "method=clip",
        "backbone=tiny",
        f"targets=[{kind}]",
        key,
        "trainer=cpu",
        "data.num_workers=0",
    )
    assert said in outcome.out + outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.code == (0 if "left out" in said else 2)
    assert outcome.code == 0 or outcome.err.splitlines()[-1].startswith("crane: ")


def test_a_list_that_is_a_pipe_is_refused(crane, here):
    os.mkfifo("set/meta.json")
    outcome = crane("data", "verify", "meta_json", "targets.meta_json.root=set")
    assert outcome.code != 0
    assert "meta.json" in outcome.out + outcome.err


STORES: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda path: path.write_bytes(b"PAR1" + b"\xff" * 100),
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-20]),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "other columns": lambda path: rewritten(path, {"seed": ["one"], "value": [[1, 2]]}),
    "no JSON": lambda path: rewritten(path, {"data": ["]"], "weights": ["{"]}),
    "null": lambda path: rewritten(path, {"data": [None], "time": [None]}),
}


def rewritten(path: Path, columns: dict[str, list[Any]]) -> None:
    """Replace columns of a file of a store, or everything by columns that it does not have."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    is_own = set(columns) <= set(table.column_names) and "value" not in columns
    for name, values in columns.items() if is_own else ():
        full = pa.array(values * len(table), table.schema.field(name).type)
        table = table.set_column(table.column_names.index(name), table.schema.field(name), full)
    pq.write_table(table if is_own else pa.table(columns), path)


@pytest.mark.long
def test_damaged_files_of_a_store_stop_no_multirun(crane, here):
    (here / "set/meta.json").write_text(rows())
    typed = ("test", "-m", "method=clip", "backbone=tiny", "targets=[meta_json]", "seed=1")
    typed += ("targets.meta_json.root=set", "trainer=cpu", "data.num_workers=0", "image_size=56")
    typed += ("overlay.num_normal=0", "overlay.num_anomalous=0")
    assert crane(*typed).code == 0
    (path,) = Path("runs/store").glob("*.parquet")
    places = {name: path.with_stem(f"{path.stem}{number}") for number, name in enumerate(STORES)}
    for name, place in places.items():
        shutil.copy(path, place)
        STORES[name](place)
    path.unlink()
    outcome = crane(*typed)
    assert outcome.code == 0, outcome.err
    for place in places.values():
        assert f"{place} is left out" in outcome.out + outcome.err
    assert "skipped" not in outcome.out + outcome.err
