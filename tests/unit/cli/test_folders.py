"""Each run has a folder of its own."""

import subprocess
import sys

import pytest

from crane.cli.folders import LOCK, alone_in, own_folder
from crane.errors import UsageError


def test_a_name_that_is_taken_is_numbered(tmp_path):
    wanted = str(tmp_path / "runs" / "now")
    assert [own_folder(wanted) for _ in range(3)] == [wanted, f"{wanted}_2", f"{wanted}_3"]


def test_processes_at_the_same_time_get_different_ones(tmp_path):
    code = "import sys; from crane.cli.folders import own_folder; print(own_folder(sys.argv[1]))"
    words = [sys.executable, "-c", code, str(tmp_path / "now")]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    names = [process.communicate()[0] for process in processes]
    assert len(set(names)) == 4


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_further_processes_of_a_run_make_none(tmp_path, monkeypatch, rank):
    monkeypatch.setenv(rank, "1")
    wanted = tmp_path / "now"
    assert own_folder(str(wanted)) == str(wanted)
    assert not wanted.exists()


def test_where_no_folder_can_be_made_is_said(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(UsageError, match=r"can be written.*hydra\.run\.dir"):
        own_folder(str(tmp_path / "runs" / "now"))
    with (
        pytest.raises(UsageError, match=r"can be written.*run_dir"),
        alone_in(tmp_path / "runs" / "now", "run_dir"),
    ):
        pass


def test_a_folder_has_one_run_at_a_time(tmp_path):
    with alone_in(tmp_path / "run", "run_dir"):
        assert (tmp_path / "run" / LOCK).is_file()
        with (
            pytest.raises(UsageError, match=r"no other run.*run_dir"),
            alone_in(tmp_path / "run", "run_dir"),
        ):
            pass
    with alone_in(tmp_path / "run", "run_dir"):
        pass
