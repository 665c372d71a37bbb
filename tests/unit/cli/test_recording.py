"""What an optimising sweeper is told."""

import math

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from crane.cli.recording import is_optimising, mean_objective, worst_objective
from crane.errors import UsageError

BASIC = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"
OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"


@pytest.fixture
def sweeper(monkeypatch):
    """Be a job of a multirun with some sweeper."""

    def use(target, **facts):
        sweeper = {"sweeper": {"_target_": target, **facts}}
        monkeypatch.setattr(HydraConfig.instance(), "cfg", OmegaConf.create({"hydra": sweeper}))

    return use


def test_the_objective_is_the_mean_over_targets():
    assert mean_objective("aupro", {"a": 0.25, "b": 0.75, "c": 0.5}) == 0.5


def test_an_undefined_objective_is_refused_with_the_target():
    with pytest.raises(UsageError, match="aupro is not defined on plain; choose another objective"):
        mean_objective("aupro", {"gamma": 0.5, "plain": math.nan})
    with pytest.raises(UsageError, match="at least one target"):
        mean_objective("aupro", {})


def test_the_basic_sweeper_wants_no_objective(sweeper):
    sweeper(BASIC)
    assert not is_optimising()
    sweeper(OPTUNA, direction="maximize")
    assert is_optimising()


def test_a_failed_job_is_the_worst_in_either_direction(sweeper):
    sweeper(OPTUNA, direction="maximize")
    assert worst_objective() == -math.inf
    sweeper(OPTUNA, direction="minimize")
    assert worst_objective() == math.inf
