"""Finding, locking, removing, and what a disk has room for."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import Timeout

from crane.cache import BrokenEntryError, CacheFolder
from crane.cache.arrays import Features
from crane.errors import UsageError

ONE, OTHER = "1" * 16, "2" * 16


def test_nothing_is_made_by_looking(folder):
    assert folder.find(ONE) is None
    assert list(folder.entries()) == []
    assert folder.leftovers() == []
    assert not folder.path.exists()


def test_entries_come_with_what_is_wrong_with_them(folder, make):
    make(ONE)
    (make(OTHER).folder / "global.npy").unlink()
    entries = dict(folder.entries())
    assert entries[ONE].description.data_set == "parts"
    assert isinstance(entries[OTHER], BrokenEntryError)


def test_a_damaged_entry_gives_way(folder, make, caplog):
    (make(ONE).folder / "patches.npy").unlink()
    assert folder.find_whole(ONE) is None
    assert "is damaged" in caplog.text
    assert make(ONE).num_images == 6


def test_what_an_interrupted_run_left_gives_way(folder, make):
    folder.building(ONE).mkdir(parents=True)
    assert [path.name for path in folder.leftovers()] == [f"{ONE}.building"]
    assert folder.find_whole(ONE) is None
    assert folder.leftovers() == []
    folder.building(ONE).mkdir(parents=True)
    assert folder.clean() == 1
    assert folder.clean() == 0


def test_what_is_being_filled_is_left_alone(folder):
    with folder.lock(ONE):
        folder.building(ONE).mkdir(parents=True)
        held = CacheFolder(folder.path)
        script = (
            "import sys; from crane.cache import CacheFolder; f = CacheFolder(sys.argv[1]);"
            f"print(len(f.leftovers()), f.remove({ONE!r}))"
        )
        command = [sys.executable, "-c", script, str(held.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "False"]


def test_a_lock_ends_with_its_process(folder, tmp_path):
    ready = tmp_path / "ready"
    script = (
        "import pathlib, sys, time; from crane.cache import CacheFolder;"
        f"lock = CacheFolder(sys.argv[1]).lock({ONE!r}); lock.acquire();"
        "pathlib.Path(sys.argv[2]).touch(); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(folder.path), str(ready)]) as other:
        try:
            while not ready.exists():
                assert other.poll() is None
                time.sleep(0.05)
            with pytest.raises(Timeout):
                folder.lock(ONE).acquire(timeout=0)
        finally:
            other.kill()
    with folder.lock(ONE).acquire(timeout=5):
        pass


def test_opening_counts_as_use(folder, make):
    entry = make(ONE)
    os.utime(entry.folder / "used", (1, 1))
    assert entry.last_used == 1
    Features(entry)
    assert time.time() - entry.last_used < 60


def test_room_is_checked(folder, monkeypatch):
    monkeypatch.setattr(
        "crane.cache.cache_folder.shutil.disk_usage", lambda path: SimpleNamespace(free=10**9)
    )
    assert folder.check_space(5 * 10**8) == 10**9
    with pytest.raises(
        UsageError, match=r"cache\.folder: .* has 1\.0 GB free, but 1\.1 GB are needed"
    ):
        folder.check_space(9 * 10**8)


@pytest.fixture
def read_only(folder, make, monkeypatch):
    """A cache with one entry, in which nothing can be written; root may write what has no w."""
    make(ONE)

    def fail(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    open_ = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda p, mode="r", *a, **k: (fail if "a" in mode else open_)(p, mode, *a, **k),
    )
    monkeypatch.setattr("crane.cache.arrays.os.utime", fail)
    monkeypatch.setattr(Path, "rename", fail)
    return folder


def test_a_cache_that_can_only_be_read_serves_what_is_whole(read_only, read):
    lock = read_only.lock(ONE)
    with lock.acquire(timeout=0):
        own = Path(lock.lock_file).parent
        assert not own.is_relative_to(read_only.path)
        read(read_only.find_whole(ONE))
    del lock
    gc.collect()
    assert not own.exists()
    with pytest.raises(UsageError, match=r"Read-only file system.*cache\.folder"):
        read_only.lock(OTHER)
    with pytest.raises(UsageError, match=r"Read-only file system.*cache\.folder"):
        read_only.remove(ONE)
    read_only.building(OTHER).mkdir()
    assert read_only.leftovers() == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    folder = CacheFolder(tmp_path / "file" / "cache")
    with pytest.raises(UsageError, match=r"cannot write to .*; choose another cache\.folder"):
        folder.lock(ONE)
    with pytest.raises(UsageError, match=r"cannot write to .*; choose another cache\.folder"):
        folder.check_space(1)
