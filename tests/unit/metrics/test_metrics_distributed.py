import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import crane.metrics

pytestmark = pytest.mark.long

PROCESS = Path(__file__).with_name("metrics_process.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What each process of 1, 2 and 3 gloo processes computes."""
    folder = tmp_path_factory.mktemp("processes")
    source = Path(crane.metrics.__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, PROCESS, str(rank), folder],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


@pytest.mark.parametrize("mode", ["binned", "exact"])
@pytest.mark.parametrize("process", ["2_0", "2_1", "3_0", "3_1", "3_2"])
def test_any_number_of_processes_gives_the_values_of_one(results, mode, process):
    alone, shared = results["1_0"][mode], results[process][mode]
    assert set(alone["means"]) == set(shared["means"])
    for name, mean in alone["means"].items():
        assert shared["means"][name] == pytest.approx(mean, abs=1e-9)
        for what in ("values", "bounds"):
            assert shared[what][name] == pytest.approx(alone[what][name], abs=1e-9, nan_ok=True)
    assert shared["num_images"] == alone["num_images"]
    assert sum(map(sum, alone["num_images"])) == 10


def test_the_values_are_numbers(results):
    values = results["1_0"]["binned"]["values"]
    assert len(values) == 8
    assert all(value == value for own in values.values() for value in own[:2])
    assert all(own[2] != own[2] for own in values.values())


@pytest.mark.parametrize("process", ["2_0", "2_1", "3_0", "3_1", "3_2"])
def test_an_image_two_processes_evaluate_is_named_on_all(results, process):
    assert "image 4 was evaluated more than once" in results[process]["repeated"]
