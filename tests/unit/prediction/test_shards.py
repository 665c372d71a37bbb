import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane.errors import UsageError
from crane.prediction.shards import Shard, find_shard
from crane.processes import local_rank


@given(count=st.integers(1, 9), num_parts=st.integers(0, 40))
def test_every_part_is_in_exactly_one_shard(count: int, num_parts: int) -> None:
    parts = [part for index in range(count) for part in Shard(index, count).parts(num_parts)]
    assert sorted(parts) == list(range(num_parts))
    sizes = [len(Shard(index, count).parts(num_parts)) for index in range(count)]
    assert max(sizes) - min(sizes) <= 1


def array(number: int, first: int, last: int, step: int, count: int) -> dict[str, str]:
    facts = {"ID": number, "MIN": first, "MAX": last, "STEP": step, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{name}": str(fact) for name, fact in facts.items()}


STEP = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1"}
TORCHRUN = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "2"}


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        (TORCHRUN, Shard(2, 4)),
        (STEP, Shard(3, 4)),
        (TORCHRUN | STEP, Shard(2, 4)),
        (array(5, 0, 7, 1, 8), Shard(5, 8)),
        (array(7, 1, 10, 3, 4), Shard(2, 4)),
        (array(3, 3, 3, 1, 1), Shard(0, 1)),  # one of an array again: all that is missing
        (array(1, 0, 2, 1, 3) | TORCHRUN, Shard(6, 12)),
        (array(2, 0, 2, 1, 3) | STEP, Shard(11, 12)),
        # Inside a batch script without srun, the allocation's tasks are no processes.
        (array(0, 0, 1, 1, 2) | {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, Shard(0, 2)),
        ({"RANK": "0", "WORLD_SIZE": "1"}, Shard(0, 1)),
    ],
)
def test_auto_asks_the_environment(environment: dict[str, str], wanted: Shard) -> None:
    assert find_shard("auto", environment) == wanted


def test_tasks_of_a_step_in_an_array_are_all_different() -> None:
    found = {
        find_shard("auto", array(number, 0, 2, 1, 3) | STEP | {"SLURM_PROCID": str(process)})
        for number in range(3)
        for process in range(4)
    }
    assert found == {Shard(index, 12) for index in range(12)}


@pytest.mark.parametrize(
    ("spec", "environment", "wanted"),
    [
        ("auto", {}, "shard=auto needs torchrun, srun or a Slurm array"),
        ("auto", array(3, 1, 7, 1, 3), "not evenly spaced"),
        ("auto", {"RANK": "one", "WORLD_SIZE": "2"}, "RANK must be an integer, not 'one'"),
        ("whole", TORCHRUN, "each of 4 processes would predict on all images; shard=auto"),
        ("whole", STEP, "each of 4 processes would predict on all images; shard=auto"),
        ("4/4", {}, "shard must be K/N with K from 0 to N - 1"),
        ("half", {}, "shard must be whole, auto or K/N such as 0/4, not 'half'"),
        ("-1/4", {}, "shard must be whole, auto or K/N such as 0/4, not '-1/4'"),
    ],
)
def test_mistakes(spec: str, environment: dict[str, str], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted):
        find_shard(spec, environment)


def test_processes_of_a_machine_are_told_apart() -> None:
    assert [local_rank(environment) for environment in ({}, STEP, TORCHRUN)] == [0, 1, 2]
