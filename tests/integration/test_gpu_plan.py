"""The plan of `make gpu`: its order, its limits, and results that survive a step."""

import json
import sys

import pytest

from benchmarks.on_gpu import PLAN, Step, run

WRITES = "import sys, time; open(sys.argv[1], 'w').write('{\"a\": 1}\\n')"
PROGRAMS = {"good": WRITES, "bad": f"{WRITES}; sys.exit(3)", "late": f"{WRITES}; time.sleep(60)"}


def test_the_plan_takes_at_most_eight_minutes_in_the_order_of_what_matters():
    assert sum(step.limit for step in PLAN) <= 480
    kinds = list(dict.fromkeys(step.name.split()[0] for step in PLAN))
    assert kinds == ["goldens", "pytest", "table", "loader", "crane"]


def test_a_step_that_fails_or_is_late_keeps_its_results_and_leaves_the_others(tmp_path):
    plan = tuple(Step(name, 2 if name == "late" else 20) for name in ("bad", "late", "good"))

    def command(step, lines):
        return [sys.executable, "-c", PROGRAMS[step.name], str(lines)]

    run(plan, tmp_path, command, "head")
    steps = json.loads((tmp_path / "results" / "on_gpu.json").read_text())["steps"]
    states = {name: step["state"] for name, step in steps.items()}
    assert states == {"bad": "failed (3)", "late": "stopped after 2 s", "good": "done"}
    assert all(step["found"] == [{"a": 1}] for step in steps.values())
    run((), tmp_path, command, "nothing")


@pytest.mark.parametrize(
    ("said", "state"),
    [("3 passed, 5 skipped in 1.0s", "done"), ("8 skipped in 1.0s", "not run: every test")],
)
def test_tests_that_were_all_skipped_are_not_done(tmp_path, said, state):
    def command(step, lines):
        return [sys.executable, "-c", f"print('=== {said} ===')"]

    found = run((Step("pytest -m gpu", 20),), tmp_path, command, "head")["steps"]["pytest -m gpu"]
    assert found["state"].startswith(state)
    assert found["found"] == [{"tests": said}]


def test_what_was_not_run_says_so(tmp_path):
    from benchmarks.on_gpu import write

    write({"head": "x", "steps": {"table": {"state": "not run"}}}, tmp_path)
    assert "## table\n\nnot run" in (tmp_path / "gpu.md").read_text()
