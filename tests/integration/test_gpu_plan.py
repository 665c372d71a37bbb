"""The plan of `make gpu`: its order, its limits, and results that survive a step."""

import json
import sys

import pytest

from benchmarks.on_gpu import PLAN, Step, judged, run, targets, write

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
    write({"head": "x", "steps": {"table": {"state": "not run"}}}, tmp_path)
    assert "## table\n\nnot run" in (tmp_path / "gpu.md").read_text()


def test_a_step_without_a_command_is_left_out(tmp_path):
    steps = run((Step("table official", 20),), tmp_path, lambda *_: None, "head")["steps"]
    assert steps == {"table official": {"state": "not run"}}


def test_every_target_is_judged():
    def row(rate, memory, peak="10.0%"):
        return {"found": [{"batch": 8, "images/s": rate, "GB": memory, "peak": peak}]}

    steps = {
        "table float32": row("10", "5"),
        "table bfloat16": row("60", "2", "55.0%"),
        "table compiled": row("80", "2", "61.5%"),
        "table official": row("10", "8", "not run"),
        "goldens bfloat16": {"found": [{"method": "clip", "map": "0.004"}, {"map": "2e-05"}]},
        "crane test": {"found": [{"images": 256, "images/s": "2"}]},
    }
    rows = [judged(target) for target in targets(steps)]
    verdicts = [line.split(" | ")[-2:] for line in rows]
    assert verdicts == [
        ["6", "yes |"],
        ["0.25", "yes |"],
        ["61.5", "yes |"],
        ["0.004", "yes |"],
        ["0.138", "**no** |"],
        ["not run", "not run |"],
    ]
    steps["table official"] = {"found": [{"batch": 8, "images/s": "out of memory"}]}
    assert all("not run" in judged(target) for target in targets(steps)[:2])
    assert all("not run" in judged(target) for target in targets({}))
