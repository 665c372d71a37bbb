"""What a sweeper that optimises is told."""

import math

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from crane.cli.objective import (
    check_objective,
    is_optimising,
    objective,
    with_direction,
    worst_objective,
)
from crane.config import compose
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


@pytest.mark.parametrize(
    ("arguments", "is_told"),
    [
        (["-m", "hydra/sweeper=optuna", "seed=1,2"], True),
        (["-m", "hydra/sweeper=optuna", "hydra.sweeper.direction=minimize"], False),
        (["-m", "seed=1,2"], False),
        (["-m", "hydra/sweeper=basic", "seed=1,2"], False),
    ],
)
def test_optuna_is_told_that_more_is_better_unless_someone_has_said(arguments, is_told):
    assert (with_direction(arguments) != arguments) == is_told


def test_the_objective_is_the_mean_over_targets():
    assert objective("aupro", {"a": 0.25, "b": 0.75, "c": 0.5}) == 0.5


def test_an_undefined_objective_is_refused_with_the_target():
    with pytest.raises(UsageError, match=r"aupro on every target.*none on plain.*objective"):
        objective("aupro", {"gamma": 0.5, "plain": math.nan})
    with pytest.raises(UsageError, match="no target"):
        objective("aupro", {})


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


def test_an_objective_that_nothing_measures_is_refused_before_any_job():
    config = compose("train", ["objective=aupr"])
    OmegaConf.set_struct(config, False)
    config.hydra = {"sweeper": {"_target_": OPTUNA}}
    with pytest.raises(UsageError, match=r"image_auroc.*aupro.*'aupr'.*objective"):
        check_objective(config)
    config.objective = "aupro"
    check_objective(config)
    config.objective, config.hydra.sweeper._target_ = "aupr", BASIC
    check_objective(config)
