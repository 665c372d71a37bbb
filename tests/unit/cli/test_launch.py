"""Starting a run: its folder, its share of the cores, required values."""

import subprocess
import sys

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from crane.cli import launch
from crane.cli.launch import (
    LOCK,
    alone_in,
    check_alone,
    own_folder,
    share_cores,
    side_by_side,
)
from crane.config import compose
from crane.data import loader
from crane.errors import UsageError

JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


def test_a_name_that_is_taken_is_numbered(tmp_path):
    wanted = str(tmp_path / "runs" / "now")
    assert [own_folder(wanted) for _ in range(3)] == [wanted, f"{wanted}_2", f"{wanted}_3"]


def test_processes_that_start_together_get_different_folders(tmp_path):
    code = "import sys; from crane.cli.launch import own_folder; print(own_folder(sys.argv[1]))"
    words = [sys.executable, "-c", code, str(tmp_path / "now")]
    processes = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    names = [process.communicate()[0] for process in processes]
    assert len(set(names)) == 4


@pytest.mark.parametrize("rank", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_further_processes_of_a_run_create_no_folder(tmp_path, monkeypatch, rank):
    monkeypatch.setenv(rank, "1")
    wanted = tmp_path / "now"
    assert own_folder(str(wanted)) == str(wanted)
    assert not wanted.exists()


def test_a_folder_that_cannot_be_created_is_refused(tmp_path):
    (tmp_path / "runs").touch()
    with pytest.raises(UsageError, match=r"cannot write to .*choose another hydra\.run\.dir"):
        own_folder(str(tmp_path / "runs" / "now"))
    with (
        pytest.raises(UsageError, match=r"cannot write to .*choose another run_dir"),
        alone_in(tmp_path / "runs" / "now", "run_dir"),
    ):
        pass


def test_a_folder_has_one_run_at_a_time(tmp_path):
    with alone_in(tmp_path / "run", "run_dir"):
        assert (tmp_path / "run" / LOCK).is_file()
        with (
            pytest.raises(UsageError, match=r"another run is writing to .*another run_dir"),
            alone_in(tmp_path / "run", "run_dir"),
        ):
            pass
    with alone_in(tmp_path / "run", "run_dir"):
        pass


@pytest.mark.parametrize(
    "environment",
    [
        {"WORLD_SIZE": "2", "RANK": "0"},
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0"},
    ],
)
def test_a_multirun_runs_in_one_process(monkeypatch, environment):
    check_alone()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"started 2; use trainer\.devices or hydra/launcher"):
        check_alone()


@pytest.fixture
def launcher(monkeypatch):
    """Be a job of some launcher on a machine of 32 cores."""
    monkeypatch.setattr(launch.os, "cpu_count", lambda: 32)
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda _: set(range(32)), raising=False)

    def use(target, **facts):
        hydra = {"hydra": {"launcher": {"_target_": target, **facts}}}
        monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create(hydra))

    return use


@pytest.mark.parametrize(("n_jobs", "number"), [(4, 4), (-1, 32), (-2, 31), (1, 1)])
def test_joblib_says_how_many_jobs_run_at_a_time(launcher, n_jobs, number):
    launcher(JOBLIB, n_jobs=n_jobs)
    assert side_by_side() == number


def test_other_launchers_run_one_job_at_a_time(launcher):
    launcher(BASIC)
    assert side_by_side() == 1


@pytest.mark.parametrize(
    ("n_jobs", "overrides", "num_workers"),
    [
        (4, [], 7),  # 8 cores each, one of them computes
        (4, ["trainer.devices=2"], 3),
        (-1, [], 0),
        (4, ["data.num_workers=5"], 5),
        (1, [], "auto"),
    ],
)
def test_loading_processes_are_divided(launcher, n_jobs, overrides, num_workers):
    launcher(JOBLIB, n_jobs=n_jobs)
    config = compose("train", overrides)
    share_cores(config)
    assert config.data.num_workers == num_workers


def test_a_command_without_data_divides_nothing(launcher):
    launcher(JOBLIB, n_jobs=4)
    config = OmegaConf.create({"seed": 1})
    share_cores(config)
    assert config == {"seed": 1}
