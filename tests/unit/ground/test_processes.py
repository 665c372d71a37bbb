"""What launchers say of a process."""

import pytest

from crane.errors import UsageError
from crane.processes import Launched, is_first, launched, local_rank

TORCHRUN = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}
SRUN = {"SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, None),
        (TORCHRUN, Launched(5, 8, 1)),
        (SRUN, Launched(3, 4, 1)),
        ({**SRUN, **TORCHRUN}, Launched(5, 8, 1)),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4"}, None),  # a batch script, no step
        ({"WORLD_SIZE": "2"}, Launched(0, 2, 0)),
    ],
)
def test_the_place_among_processes(environment, wanted):
    assert launched(environment) == wanted


def test_the_place_on_the_machine():
    assert local_rank({}) == 0
    assert local_rank({"SLURM_LOCALID": "2"}) == 2
    assert local_rank({"SLURM_LOCALID": "2", "LOCAL_RANK": "1"}) == 1


def test_a_variable_that_is_no_number_is_named():
    with pytest.raises(UsageError, match="WORLD_SIZE must be an integer, not 'many'"):
        launched({"WORLD_SIZE": "many"})


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"])
def test_only_the_first_process_writes(monkeypatch, name):
    assert is_first()
    monkeypatch.setenv(name, "0")
    assert is_first()
    monkeypatch.setenv(name, "1")
    assert not is_first()
