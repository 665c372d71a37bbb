"""One, two or three processes change nothing, for every method; one that dies ends the run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from conftest import write_data_set
from crane import training
from crane.cli.validation import options
from crane.config import compose, conf_dir
from crane.methods import adaclip, adopt_config, read_checkpoint

pytestmark = pytest.mark.long

METHODS = options(conf_dir() / "method")
PICTURES = [
    f"overlay.{group}num_{kind}=0" for group in ("", "gallery.") for kind in ("normal", "anomalous")
]
GLOBAL_BATCH, NUM_STEPS = 6, 2
PROGRAM = Path(__file__).with_name("method_process.py")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Data sets: the second target has two images, so that one of three processes gets none."""
    folder = tmp_path_factory.mktemp("sets")
    write_data_set(folder / "alpha", ("bolt", "nut"), 3, 3)
    write_data_set(folder / "gamma", ("tile",), 3, 4)
    write_data_set(folder / "pair", ("tile",), 1, 1)
    return folder


@pytest.fixture(scope="module")
def overrides(tiny, use, places):
    """From a method to command and overrides; images of 56 px, two towers with random weights.

    Images are tested one by one: the last bits of products depend on the size of a batch. Deep
    prompts are not rounded: their gradients would pass through float16 too (docs/scaling.md).
    """

    def chosen(method):
        base = compose("test", [f"method={method}"])
        command = "train" if OmegaConf.is_missing(base, "checkpoint") else "test"
        typed = [one for one in tiny if not one.startswith(("trainer.max", "overlay", "data.b"))]
        typed += [f"method={method}", *use("targets", "gamma", "pair", folder=places)]
        typed += ["cache=off", "data.test_batch_size=1", *PICTURES]
        typed += ["guide=tiny"] if base.guide.features is not None else []
        if "ensemble" in (base.method.get("detector") or {}):
            typed.append("method.detector.ensemble=clip")  # two sentences instead of hundreds
        if base.prompt is not None and "words" in base.prompt:
            typed.append("prompt.round_deep_to_half=false")
        own = [*use("source", "alpha", folder=places), "trainer.max_epochs=1"]
        return command, [*typed, *(own if command == "train" else [])]

    return chosen


def started(arguments, num_processes, folder):
    """Processes as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    world = str(num_processes)
    facts = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "GROUP_RANK": "0", "NODE_RANK": "0"}
    facts |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "two"}
    return [
        subprocess.Popen(
            [sys.executable, PROGRAM, *map(str, arguments)],
            cwd=folder,
            env=os.environ | facts | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_processes)
    ]


def planned(overrides, num_processes):
    """The plan of all methods, with batches that together are as large as one process's."""
    plan = {method: overrides(method) for method in METHODS}
    for command, typed in plan.values():
        if command == "train":
            typed.append(f"data.batch_size={GLOBAL_BATCH // num_processes}")
        if num_processes > 1:
            typed += [f"trainer.devices={num_processes}", "trainer.strategy=ddp"]
    return plan


@pytest.fixture(scope="module", params=[2, 3])
def several(overrides, tmp_path_factory, request):
    """What each of several processes found."""
    folder = tmp_path_factory.mktemp("several")
    (folder / "plan.json").write_text(json.dumps(planned(overrides, request.param)))
    processes = started(["plan.json", folder], request.param, folder)
    said = [process.communicate(timeout=400)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said[0][-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(len(processes))]


@pytest.fixture(autouse=True)
def _unrounded(monkeypatch):
    monkeypatch.setattr(adaclip, "rounded", lambda prompts: prompts)


@pytest.mark.parametrize("method", METHODS)
def test_metrics_are_those_of_one_process(method, several, overrides, tmp_path):
    first, *others = several
    assert all(first[method]["means"] == other[method]["means"] for other in others)
    command, typed = overrides(method)
    prompts = first[method]["prompts"]
    assert (prompts is None) == (command == "test")
    typed = [one for one in typed if not one.startswith(("trainer.max", "+source"))]
    typed = [one for one in typed if not one.startswith("dataset@source")]
    checkpoint = read_checkpoint(prompts) if prompts else None
    typed += [f"run_dir={tmp_path}", f"checkpoint={prompts or 'null'}"]
    config = compose("test", typed)
    if checkpoint is not None:
        config = adopt_config(config, checkpoint, typed)
    results = training.test(config, checkpoint).results
    assert [result.dataset for result in results] == ["gamma", "pair"]
    for result in results:
        wanted = first[method]["means"][result.dataset]
        assert dict(result.means) == pytest.approx(wanted, abs=1e-9, nan_ok=True)
    assert 0 < results[0].means["pixel_auroc"] < 1


@pytest.mark.parametrize("method", METHODS)
def test_prompts_are_those_of_one_process(method, several, overrides, tmp_path):
    """Up to the order of sums, which AdaCLIP's large rate shows (docs/scaling.md)."""
    if (path := several[0][method]["prompts"]) is None:
        return
    command, typed = planned(overrides, 1)[method]
    config = compose(command, [*typed, f"run_dir={tmp_path}", "test=false"])
    run = training.train(config)
    ours, theirs = (read_checkpoint(one).prompts for one in (path, run.checkpoint))
    assert ours.keys() == theirs.keys()
    gaps = {name: float((ours[name] - theirs[name]).abs().max()) for name in ours}
    limit = 2 * config.optimizer.lr * NUM_STEPS if method == "adaclip" else 1e-6
    assert max(gaps.values()) < limit, gaps


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if path.read_text().rpartition(")")[2].split()[1] == str(pid):
                found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("victim", ["the first", "the second"])
def test_a_process_that_dies_ends_the_run(victim, overrides, tmp_path):
    _, typed = overrides("crane")
    typed = [one for one in typed if not one.startswith(("trainer.max", "trainer=cpu"))]
    typed += ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    command = [sys.executable, "-m", "crane", "train", *typed, "trainer.max_epochs=100000"]
    with (tmp_path / "log").open("w") as log:
        first = subprocess.Popen(
            [*command, f"run_dir={tmp_path / 'run'}"], cwd=tmp_path, stdout=log, stderr=log
        )
    processes = [first.pid]
    try:
        waited_for(lambda: (tmp_path / "run" / "prompts" / "epoch_1.safetensors").exists(), first)
        processes += children_of(first.pid)
        assert len(processes) == 2, (tmp_path / "log").read_text()[-2000:]
        os.kill(processes[victim == "the second"], signal.SIGKILL)
        assert first.wait(120) != 0
        waited_for(lambda: not any(map(is_alive, processes)))
    finally:
        for pid in filter(is_alive, processes):
            os.kill(pid, signal.SIGKILL)
        first.wait()


def waited_for(happened, process=None, seconds=240):
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        assert process is None or process.poll() is None, "the run ended before it"
        time.sleep(0.1)
