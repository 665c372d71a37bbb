"""Files that are written whole or not at all."""

import csv
import io
import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from crane.files import (
    MAX_NAME_BYTES,
    cell,
    csv_text,
    file_name,
    file_names,
    replacing,
    sha256,
    shown_path,
    uncell,
    write_bytes,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = write_text(tmp_path / "deep" / "a.txt", "old")

    def fail() -> None:
        with replacing(path) as part:
            part.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert list(path.parent.iterdir()) == [path]


def test_a_good_write_replaces_the_file(tmp_path: Path) -> None:
    path = write_text(tmp_path / "a.txt", "old")
    write_text(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_standard(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a.json", {"a": 0.1, "b": None})
    assert json.loads(path.read_text()) == {"a": 0.1, "b": None}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "b.json", {"a": float("nan")})
    assert not (tmp_path / "b.json").exists()


def test_a_durable_write_reaches_the_disk_first(tmp_path: Path, monkeypatch) -> None:
    synced = []
    monkeypatch.setattr("os.fsync", synced.append)
    write_bytes(tmp_path / "a", b"1")
    assert not synced
    write_bytes(tmp_path / "a", b"2", durable=True)
    assert len(synced) == 1
    assert (tmp_path / "a").read_bytes() == b"2"


def test_a_checksum_follows_the_file(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a", b"abc")
    assert sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(path) != sha256(write_bytes(path, b"abd"))


def test_a_path_below_the_current_folder_is_shown_from_there(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_path(tmp_path / "a" / "b") == "a/b"
    assert shown_path(Path("/elsewhere")) == "/elsewhere"


@given(st.lists(st.text(max_size=300), max_size=12))
def test_file_names_are_safe_and_distinct(texts: list[str]) -> None:
    names = file_names(texts)
    assert names.keys() == set(texts)
    assert len({name.casefold() for name in names.values()}) == len(names)
    for name in names.values():
        assert 0 < len(os.fsencode(name)) <= MAX_NAME_BYTES
        assert not set(name) & set('/\\:*?"<>|\0\n')
        assert not name.startswith(".")
    assert file_names(texts[::-1]) == names, "whatever their order"


def test_names_that_are_plain_stay_as_they_are() -> None:
    names = ["bolt", "metal_nut", "Ü-1.5", "a" * 255]
    assert list(file_names(names).values()) == names
    assert file_name("b" * 300) != file_name("b" * 301)
    assert file_name("\udcff.png") == "_.png"


def test_names_that_are_not_utf_8_are_written_with_escapes(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff.png")
    assert write_text(tmp_path / "a.csv", name).read_bytes() == b"\\udcff.png"
    path = write_json(tmp_path / "a.json", {"image": name})
    assert json.loads(path.read_text(encoding="utf-8")) == {"image": name}


@given(st.text(max_size=20))
@example("a\rb")
def test_text_of_a_csv_is_harmless_and_read_back(text: str) -> None:
    assert uncell(cell(text)) == text
    (row,) = csv.reader(io.StringIO(csv_text([["x", text, "y"]]), newline=""))
    assert uncell(row[1]) == text


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "'=1"])
def test_formulas_are_quoted(text: str) -> None:
    assert cell(text) == f"'{text}"
