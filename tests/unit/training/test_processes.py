"""Processes beside this one: those of a failed run end with it, and strangers are refused."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
from lightning import Trainer

from crane.errors import UsageError
from crane.training import processes
from crane.training.processes import check_processes, ending_together


class Started(Trainer):
    """What counts of a trainer here: how many processes it knows of, and those it started."""

    world_size, strategy = 1, None

    def __init__(self, world_size=1, procs=None):
        launcher = None if procs is None else SimpleNamespace(procs=procs)
        self.world_size, self.strategy = world_size, SimpleNamespace(launcher=launcher)


@pytest.mark.parametrize(("num_started", "world_size"), [(None, 1), (None, 2), ("1", 4), ("2", 2)])
def test_processes_that_know_of_each_other_may_run(monkeypatch, num_started, world_size):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if num_started is not None:
        monkeypatch.setenv("WORLD_SIZE", num_started)
    check_processes(Started(world_size))


def test_processes_that_would_each_do_the_whole_run_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match=r"the 2 processes that were started.*one of 1.*ddp"):
        check_processes(Started(world_size=1))


def start(code):
    return subprocess.Popen([sys.executable, "-c", code])


def test_the_processes_of_a_failed_run_end_and_are_watched_no_more(monkeypatch):
    """One ends by itself and may say why, the other waits for ever."""
    monkeypatch.setattr(processes, "PATIENCE", 2)
    watched = started = [start("raise SystemExit(3)"), start("import time; time.sleep(600)")]
    first, second = started
    with pytest.raises(ValueError, match="the run's own"), ending_together(Started(procs=watched)):
        raise ValueError("the run's own")
    assert watched == []
    assert first.returncode == 3
    assert second.returncode == -9


def test_a_run_that_ends_well_leaves_its_processes_to_lightning():
    watched = [start("pass")]
    with ending_together(Started(procs=watched)):
        pass
    assert len(watched) == 1
    assert watched[0].wait() == 0
    with pytest.raises(ValueError, match="alone"), ending_together(Started()):
        raise ValueError("alone")
