"""One process or two change nothing, for every method."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from crane import training
from crane.cli.validation import options
from crane.config import compose, conf_dir
from crane.methods import adopt_config, read_checkpoint

pytestmark = pytest.mark.long

METHODS = options(conf_dir() / "method")
PICTURES = [
    f"overlay.{group}num_{kind}=0" for group in ("", "gallery.") for kind in ("normal", "anomalous")
]
TWO = ["trainer.devices=2", "trainer.strategy=ddp"]


@pytest.fixture(scope="module")
def overrides(tiny, use):
    """From a method to command and overrides; images of 56 px, two towers with random weights."""

    def chosen(method):
        base = compose("test", [f"method={method}"])
        command = "train" if OmegaConf.is_missing(base, "checkpoint") else "test"
        typed = [one for one in tiny if not one.startswith(("trainer.max", "overlay"))]
        typed += ["trainer.max_epochs=1"] if command == "train" else []
        typed += [f"method={method}", *use("targets", "gamma"), "cache=off", *PICTURES]
        typed += ["guide=tiny"] if base.guide.features is not None else []
        if "ensemble" in (base.method.get("detector") or {}):
            typed.append("method.detector.ensemble=clip")  # two sentences instead of hundreds
        return command, [*typed, *(use("source", "alpha") if command == "train" else [])]

    return chosen


@pytest.fixture(scope="module")
def both(overrides, tmp_path_factory):
    """What each of two processes found, and the plan."""
    folder = tmp_path_factory.mktemp("both")
    plan = {method: overrides(method) for method in METHODS}
    for _, typed in plan.values():
        typed += TWO
    (folder / "plan.json").write_text(json.dumps(plan))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    facts = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "NODE_RANK": "0"}
    facts |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "two"}
    started = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("method_process.py"), "plan.json", folder],
            cwd=folder,
            env=os.environ | facts | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=300)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said[0][-3000:] + said[1][-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_give_the_results_of_one(method, both, overrides, tmp_path):
    first, second = both
    assert first[method]["means"] == second[method]["means"]
    command, typed = overrides(method)
    prompts = first[method]["prompts"]
    assert (prompts is None) == (command == "test")
    typed = [one for one in typed if not one.startswith(("trainer.max", "data.batch", "+source"))]
    typed = [one for one in typed if not one.startswith("dataset@source")]
    checkpoint = read_checkpoint(prompts) if prompts else None
    config = compose("test", [*typed, f"run_dir={tmp_path}", f"checkpoint={prompts or 'null'}"])
    if checkpoint is not None:
        config = adopt_config(config, checkpoint, typed)
    results = training.test(config, checkpoint).results
    for result in results:
        wanted = first[method]["means"][result.dataset]
        assert dict(result.means) == pytest.approx(wanted, abs=1e-5, nan_ok=True)
    assert 0 < results[0].means["pixel_auroc"] < 1
