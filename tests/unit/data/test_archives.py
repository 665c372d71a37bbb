import errno
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from crane.datasets import preparation
from crane.datasets.preparation import unpack
from crane.errors import UsageError

FILES = {"a/1.png": b"one" * 500, "a/b/2.png": b"two" * 700, "readme.txt": b"text"}


def make(path: Path, files=FILES) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, f"w:{path.suffix[1:].replace('tar', '')}") as archive:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


KINDS = ["x.zip", "x.tar", "x.tar.xz", "x.TAR.gz"]


@pytest.mark.parametrize("name", KINDS)
def test_unpacks_once(tmp_path, name):
    archive, folder = make(tmp_path / name), tmp_path / "sets" / "thing"
    heard = []
    assert unpack(archive, folder, lambda done, total: heard.append((done, total)))
    assert tree(folder) == FILES
    assert heard[-1] == (3604, 3604)
    assert not unpack(archive, folder)
    (folder / "meta.json").write_text("{}")  # what is beside the files does not matter
    assert not unpack(archive, folder)
    assert [path.name for path in folder.parent.iterdir()] == ["thing"]


def test_an_empty_folder_is_filled_and_a_full_one_is_not(tmp_path):
    archive, folder = make(tmp_path / "x.zip"), tmp_path / "thing"
    folder.mkdir()
    assert unpack(archive, folder)
    (folder / "readme.txt").write_text("longer than it was")
    with pytest.raises(UsageError, match=r"does not hold readme.txt .*nothing is overwritten"):
        unpack(archive, folder)
    assert (folder / "readme.txt").read_text() == "longer than it was"


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("name", ["../out.png", "/tmp/out.png", "a/../../out.png", "C:/out.png"])
def test_no_path_leaves_the_folder(tmp_path, kind, name):
    archive = make(tmp_path / f"x.{kind}", {**FILES, name: b"x"})
    with pytest.raises(UsageError, match="holds a path outside its folder"):
        unpack(archive, tmp_path / "sets" / "thing")
    assert not (tmp_path / "sets").exists()
    assert not Path("/tmp/out.png").exists()


def test_backslashes_are_slashes(tmp_path):
    with pytest.raises(UsageError, match="holds a path outside its folder"):
        unpack(make(tmp_path / "x.zip", {"..\\out.png": b"x"}), tmp_path / "thing")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_tar_links_and_devices_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("a/link")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(UsageError, match="holds a link or a device: a/link"):
        unpack(tmp_path / "x.tar", tmp_path / "thing")


def test_zip_links_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(UsageError, match="holds a link or a device: link"):
        unpack(tmp_path / "x.zip", tmp_path / "thing")


def test_one_path_twice_is_refused(tmp_path):
    archive = make(tmp_path / "x.tar", {"a/1.png": b"x", "A/1.PNG": b"y"})
    with pytest.raises(UsageError, match=r"two files at one place: A/1\.PNG"):
        unpack(archive, tmp_path / "thing")


@pytest.mark.parametrize("name", KINDS)
def test_an_archive_cut_short_leaves_nothing(tmp_path, name):
    noise = {f"{i}.bin": os.urandom(20_000) for i in range(5)}
    archive = make(tmp_path / name, noise)
    archive.write_bytes(archive.read_bytes()[: -archive.stat().st_size // 2])
    with pytest.raises(UsageError, match=r"cannot read the archive .*download it again"):
        unpack(archive, tmp_path / "sets" / "thing")
    assert not list((tmp_path / "sets").glob("*")) if (tmp_path / "sets").exists() else True


def test_changed_bytes_are_noticed(tmp_path):
    archive = make(tmp_path / "x.zip", {"1.bin": os.urandom(5000)})
    content = bytearray(archive.read_bytes())
    content[2000] ^= 255
    archive.write_bytes(content)
    with pytest.raises(UsageError, match="cannot read the archive"):
        unpack(archive, tmp_path / "sets" / "thing")
    assert not list((tmp_path / "sets").iterdir())


def test_an_interrupted_run_leaves_nothing_and_the_next_makes_it_good(tmp_path):
    archive, folder = make(tmp_path / "x.tar"), tmp_path / "sets" / "thing"

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, folder, interrupt)
    assert not list(folder.parent.iterdir())
    left = folder.with_name(".thing-killed")  # of a run that was killed
    left.mkdir()
    (left / "half.png").write_bytes(b"ha")
    assert unpack(archive, folder)
    assert tree(folder) == FILES
    assert not left.exists()


def test_other_mistakes(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"there is no archive .*none\.zip"):
        unpack(tmp_path / "none.zip", tmp_path / "thing")
    (tmp_path / "x.rar").write_bytes(b"x")
    with pytest.raises(UsageError, match=r"x.rar must end in one of .zip, .tar"):
        unpack(tmp_path / "x.rar", tmp_path / "thing")
    with pytest.raises(UsageError, match=r"x.zip holds no files"):
        unpack(make(tmp_path / "x.zip", {}), tmp_path / "thing")
    monkeypatch.setattr(
        preparation.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})()
    )
    with pytest.raises(UsageError, match=r"unpacking needs 0.0 GB in .*, but only 0.0 GB are free"):
        unpack(make(tmp_path / "y.zip"), tmp_path / "thing")


def test_folders_that_windows_ends_in_a_backslash_are_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for name, content in (("head_ct\\", b""), ("head_ct\\001.png", b"x")):
            info = zipfile.ZipInfo("x")
            info.filename, info.create_system = name, 0
            archive.writestr(info, content)
    assert unpack(tmp_path / "x.zip", tmp_path / "thing")
    assert tree(tmp_path / "thing") == {"head_ct/001.png": b"x"}


@pytest.mark.parametrize("files", [("a", "a/b"), ("a/b", "A"), ("x/a", "x/a/c/b")])
def test_paths_below_a_file_are_refused(tmp_path, files):
    archive = make(tmp_path / "x.tar", dict.fromkeys(files, b"x"))
    with pytest.raises(UsageError, match=r"archive.*x.tar holds two files at one place"):
        unpack(archive, tmp_path / "thing")
    assert not (tmp_path / "thing").exists()


def test_a_name_that_no_disk_holds_is_the_archives_fault(tmp_path):
    archive = make(tmp_path / "x.zip", {"a/1.png": b"x", "n" * 300: b"x"})
    with pytest.raises(UsageError, match=r"archive: it holds paths that cannot be written here"):
        unpack(archive, tmp_path / "sets" / "thing")
    assert not list((tmp_path / "sets").iterdir())


def test_a_disk_that_fills_up_leaves_nothing(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = make(tmp_path / "x.tar.gz")
    monkeypatch.setattr(preparation.tarfile, "copyfileobj", full)
    message = "thing: No space left on device; choose another datasets_dir"
    with pytest.raises(UsageError, match=message):
        unpack(archive, tmp_path / "sets" / "thing")
    assert not list((tmp_path / "sets").iterdir())


def test_an_archive_that_would_fill_the_disk_is_refused_unopened(tmp_path):
    """A bomb: some kilobytes that claim to be 430 GB."""
    archive = make(tmp_path / "x.zip", {f"{i}.bin": b"x" for i in range(100)})
    parts = archive.read_bytes().split(b"PK\x01\x02")  # the entries of the central directory
    claimed = [part[:20] + (2**32 - 2).to_bytes(4, "little") + part[24:] for part in parts[1:]]
    archive.write_bytes(b"PK\x01\x02".join([parts[0], *claimed]))
    with pytest.raises(UsageError, match=r"unpacking needs 429\.5 GB in .*sets, but only"):
        unpack(archive, tmp_path / "sets" / "thing")
    assert not list((tmp_path / "sets").iterdir())


@pytest.mark.parametrize("kind", ["zip", "tar.xz"])
def test_folders_that_cannot_be_are_named(tmp_path, kind):
    archive = make(tmp_path / f"x.{kind}")
    (tmp_path / "file").write_text("")
    for folder in (Path("/proc/x/thing"), tmp_path / "file" / "thing", tmp_path / "file"):
        with pytest.raises(UsageError, match=r"cannot write to .*; choose another datasets_dir"):
            unpack(archive, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", archive.name]


def test_what_the_check_refuses_leaves_nothing(tmp_path):
    def refuse(folder: Path) -> None:
        assert folder.name == "thing"
        assert tree(folder) == FILES
        raise UsageError("another archive")

    with pytest.raises(UsageError, match="another archive"):
        unpack(make(tmp_path / "x.zip"), tmp_path / "sets" / "thing", check=refuse)
    assert not list((tmp_path / "sets").iterdir())
