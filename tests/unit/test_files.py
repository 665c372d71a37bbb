import json
from pathlib import Path

import pytest

from crane.files import replacing, write_json, write_text


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
