"""Jobs side by side share the cores."""

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from crane.cli import cores
from crane.cli.cores import share_cores, side_by_side
from crane.config import compose
from crane.data import loader

JOBLIB = "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


@pytest.fixture
def launcher(monkeypatch):
    """Be a job of some launcher on a machine of 32 cores."""
    monkeypatch.setattr(cores.os, "cpu_count", lambda: 32)
    monkeypatch.setattr(loader.os, "sched_getaffinity", lambda _: set(range(32)), raising=False)

    def use(target, **facts):
        hydra = {"hydra": {"launcher": {"_target_": target, **facts}}}
        monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create(hydra))

    return use


@pytest.mark.parametrize(("n_jobs", "number"), [(4, 4), (-1, 32), (-2, 31), (1, 1)])
def test_joblib_says_how_many_run_at_a_time(launcher, n_jobs, number):
    launcher(JOBLIB, n_jobs=n_jobs)
    assert side_by_side() == number


def test_one_runs_at_a_time_elsewhere(launcher):
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
def test_loading_processes_are_shared_out(launcher, n_jobs, overrides, num_workers):
    launcher(JOBLIB, n_jobs=n_jobs)
    config = compose("train", overrides)
    share_cores(config)
    assert config.data.num_workers == num_workers


def test_without_data_there_is_nothing_to_share(launcher):
    launcher(JOBLIB, n_jobs=4)
    config = OmegaConf.create({"seed": 1})
    share_cores(config)
    assert config == {"seed": 1}
