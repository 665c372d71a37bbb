"""The text of a user's mistake, and how it travels."""

import pickle
import re
from pathlib import Path

import pytest

from crane.errors import EXTRAS, InvalidValueError, UsageError, unwritable, usage_error


@pytest.mark.parametrize(
    ("message", "key", "text"),
    [
        ("unknown attention 'foo'; choose vv", "attention", "unknown attention 'foo'; choose vv"),
        ("no such file", "input", "input: no such file"),
        ("must be an integer, not 2.5", "seed", "seed must be an integer, not 2.5"),
        ("two keys disagree", None, "two keys disagree"),
    ],
)
def test_the_sentence_names_its_key_once(message, key, text):
    error = UsageError(message, key=key)
    assert str(error) == text
    assert error.key == key


@pytest.mark.parametrize("kind", [UsageError, InvalidValueError])
def test_it_survives_the_way_between_processes(kind):
    error = kind("must be an integer, not 2.5", key="data.batch_size")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert (str(again), again.key) == (str(error), error.key)


def test_the_key_of_a_value_is_completed_from_outside():
    error = InvalidValueError("must be true or false, not 'x'", key="drop_last")
    assert str(error.under("data")) == "data.drop_last must be true or false, not 'x'"
    assert str(error.under("")) == "drop_last must be true or false, not 'x'"


def test_the_mistake_behind_an_error_is_found_however_deep():
    mistake = UsageError("this")
    error = RuntimeError("outer")
    error.__cause__ = ValueError("middle")
    error.__cause__.__context__ = mistake
    assert usage_error(error) is mistake
    assert usage_error(mistake) is mistake
    assert usage_error(ValueError("no mistake")) is None


def test_a_folder_that_cannot_be_written():
    error = unwritable("runs", PermissionError(13, "Permission denied"), "hydra.run.dir")
    assert str(error) == "cannot write to runs: Permission denied; choose another hydra.run.dir"
    assert str(unwritable("runs", OSError("no reason"), "output")).startswith(
        "cannot write to runs"
    )


@pytest.mark.parametrize(
    "error",
    [
        ModuleNotFoundError("No module named 'tensorboard.data'", name="tensorboard.data"),
        ModuleNotFoundError("Neither `tensorboard` nor `tensorboardX` is available."),
    ],
)
def test_a_missing_package_of_an_extra_is_named_with_it(error):
    wrapped = RuntimeError("Error in call to target")
    wrapped.__cause__ = error
    said = "tensorboard is not installed; pip install 'crane-ad[tensorboard]'"
    assert str(usage_error(wrapped)) == said
    assert usage_error(ModuleNotFoundError("No module named 'torch'", name="torch")) is None


def test_every_extra_is_one_of_the_project():
    project = Path(__file__).resolve().parents[3] / "pyproject.toml"
    section = project.read_text().split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = re.findall(r"^([\w-]+) =", section, flags=re.MULTILINE)
    assert set(EXTRAS.values()) <= set(extras)


def test_the_key_is_named_even_when_a_path_contains_its_letters():
    error = UsageError("must be a file of a training, not runs/resume/resume.pt", key="resume")
    assert str(error).startswith("resume must be a file")
    error = UsageError("out/first/resumed.pt does not exist", key="resume")
    assert str(error) == "resume: out/first/resumed.pt does not exist"
    error = UsageError("choose another resume", key="resume")
    assert str(error) == "choose another resume"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2>"), "/dev/shm"),
        (RuntimeError("unable to write to file </torch_6_7>"), "/dev/shm"),
        (RuntimeError("DataLoader worker (pid 4) is killed by signal: Bus error. "), "/dev/shm"),
        (RuntimeError("DataLoader worker (pid(s) 4) exited unexpectedly"), "num_workers=0"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "lower batch_size"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "lower batch_size"),
        (MemoryError(), "lower batch_size"),
        (RuntimeError("[enforce fail] PytorchStreamWriter failed writing file"), "free some space"),
        (OSError("32400 requested and 19872 written"), "free some space"),
        (OSError(28, "No space left on device", "a"), "a: No space left on device; what was"),
        (OSError(30, "Read-only file system"), "that you may read and write"),
        (OSError(24, "Too many open files"), "ulimit -n"),
    ],
)
def test_limits_of_the_machine_are_told_in_a_sentence(error, said):
    outer = ValueError("outer")
    outer.__cause__ = error
    assert said in str(usage_error(outer))
    error.__context__ = UsageError("a mistake of the user")
    assert str(usage_error(outer)) == "a mistake of the user"


@pytest.mark.parametrize("error", [FileNotFoundError(2, "No such file"), EOFError(), OSError()])
def test_faults_of_the_program_are_no_limits(error):
    assert usage_error(error) is None
