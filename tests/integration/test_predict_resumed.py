"""`crane predict` shared by processes, killed, and typed again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crane import training
from crane.config import compose

NUM_IMAGES, PART_SIZE = 30, 3


@pytest.fixture(scope="module")
def checkpoint(tiny, use, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    data = [*use("source", "alpha"), *use("targets")]
    return training.train(compose("train", [*tiny, *data, f"run_dir={folder}"])).checkpoint


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A list of images large enough to take a while; one is none."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    names = [f"{place:02d}.png" for place in range(NUM_IMAGES)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(folder / name)
    (folder / names[7]).write_text("not an image")
    (folder / "list.txt").write_text("\n".join(reversed(names)))
    return folder / "list.txt"


@pytest.fixture
def type_in(crane, typed):
    """Type `crane predict` with some values changed."""
    return lambda *overrides: crane(*changed(typed, *overrides))


def changed(typed, *overrides):
    keys = {override.partition("=")[0] for override in overrides}
    return *(word for word in typed if word.partition("=")[0] not in keys), *overrides


@pytest.fixture
def typed(checkpoint, listed):
    return (
        *("predict", f"checkpoint={checkpoint}", f"input={listed}", "overlays=none", "maps=none"),
        *(f"part_size={PART_SIZE}", "batch_size=1", "num_workers=0", "accelerator=cpu"),
    )


def parts(output: Path) -> list[Path]:
    return sorted((output / "scores").glob("part-*.csv"))


@pytest.mark.long
def test_killed_and_typed_again(type_in, typed, tmp_path):
    # Maps and overlays of a kind that takes its time: the kill comes while images are written.
    output, pictures = tmp_path / "killed", ("maps=npy", "overlays=png")
    words = changed(typed, *pictures, f"output={output}")
    command = [sys.executable, "-m", "crane", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        deadline = time.monotonic() + 240
        while len(parts(output)) < 2 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        said = process.communicate()[0].decode()
    assert process.returncode == -signal.SIGKILL, f"it ended before it was killed:\n{said}"
    before = {path: path.stat().st_mtime_ns for path in parts(output)}
    assert 2 <= len(before) < NUM_IMAGES / PART_SIZE
    assert not (output / "scores.csv").exists()

    outcome = type_in(*pictures, f"output={output}")
    assert outcome.code == 0, outcome.err
    assert f"{NUM_IMAGES - 1} of {NUM_IMAGES} images scored" in outcome.out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list((output / "maps").iterdir())) == NUM_IMAGES - 1

    whole = tmp_path / "whole"
    assert type_in(*pictures, f"output={whole}").code == 0
    assert (output / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()
    assert (output / "scores.json").read_bytes() == (whole / "scores.json").read_bytes()
    for path in (whole / "maps").iterdir():
        assert path.read_bytes() == (output / "maps" / path.name).read_bytes()


@pytest.mark.long
@pytest.mark.parametrize(
    ("rank", "size"), [("RANK", "WORLD_SIZE"), ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS")]
)
def test_processes_take_their_shares(rank, size, type_in, tmp_path, monkeypatch):
    monkeypatch.setenv(size, "3")
    for number in (1, 2, 0):
        monkeypatch.setenv(rank, str(number))
        outcome = type_in(f"output={tmp_path / 'shared'}")
        assert outcome.code == 0, outcome.err
        assert ("are left to other processes" in outcome.out) == (number > 0)
    assert f"{NUM_IMAGES - 1} of {NUM_IMAGES} images scored" in outcome.out
    monkeypatch.delenv(size)
    assert type_in(f"output={tmp_path / 'whole'}").code == 0
    whole = (tmp_path / "whole" / "scores.csv").read_bytes()
    assert (tmp_path / "shared" / "scores.csv").read_bytes() == whole


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["output=here", "overwrite=true"], "would remove the scores of other processes"),
        ([], "several processes need output=FOLDER, the same for all of them"),
        (["output=here", "engine=ray"], "engine=ray is one process"),
        (["output=here", "watch=true"], "watch=true is one process"),
    ],
)
def test_what_several_processes_cannot_do(words, said, type_in, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    outcome = type_in(*words)
    assert outcome.code == 2
    assert said in outcome.err


@pytest.mark.long
def test_other_settings_are_refused(type_in, checkpoint, tmp_path):
    where = f"output={tmp_path / 'out'}"
    assert type_in(where).code == 0
    for override, key in (
        ("image_size=112", "image_size"),
        ("scoring.blur_sigma=1", "scoring"),
        ("precision=bf16-mixed", "precision"),
    ):
        outcome = type_in(where, override)
        assert outcome.code == 2
        assert f"another {key}" in outcome.err
        assert "overwrite=true" in outcome.err
    model, other = training.load_model(checkpoint), tmp_path / "other.safetensors"
    with torch.no_grad():
        next(model.prompts.parameters()).add_(0.1)
    training.save_prompts(other, model, training.read_checkpoint(checkpoint).config, {})
    outcome = type_in(where, f"checkpoint={other}")
    assert "another checkpoint" in outcome.err
    outcome = type_in(where, f"checkpoint={other}", "overwrite=true")
    assert outcome.code == 0, outcome.err


@pytest.mark.long
def test_half_precision_agrees(type_in, scores_of, tmp_path):
    for precision in ("32-true", "bf16-mixed"):
        output = f"output={tmp_path / precision}"
        assert type_in(output, f"precision={precision}", "batch_size=8").code == 0
    full, half = scores_of(tmp_path / "32-true"), scores_of(tmp_path / "bf16-mixed")
    gaps = [
        abs(float(full[name]["score"]) - float(half[name]["score"]))
        for name in full
        if full[name]["score"]
    ]
    assert len(gaps) == NUM_IMAGES - 1
    assert 0 < max(gaps) < 0.05, "bfloat16 has 8 bits"


@pytest.mark.slow
def test_processes_of_torchrun_share_the_images(type_in, typed, tmp_path):
    shared, whole = tmp_path / "shared", tmp_path / "whole"
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    done = subprocess.run(
        [sys.executable, *torchrun, "-m", "crane", *typed, f"output={shared}"],
        cwd=tmp_path, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{NUM_IMAGES - 1} of {NUM_IMAGES} images scored" in done.stdout
    assert type_in(f"output={whole}").code == 0
    assert (shared / "scores.csv").read_bytes() == (whole / "scores.csv").read_bytes()


@pytest.mark.slow
def test_compiled_towers_agree(type_in, scores_of, tmp_path):
    for compile in ("none", "default"):
        output = f"output={tmp_path / compile}"
        outcome = type_in(output, f"compile={compile}", "batch_size=3")
        assert outcome.code == 0, outcome.err
    plain, compiled = scores_of(tmp_path / "none"), scores_of(tmp_path / "default")
    scored = [name for name in plain if plain[name]["score"]]
    for name in scored:
        wanted = pytest.approx(float(plain[name]["score"]), abs=1e-5)
        assert float(compiled[name]["score"]) == wanted
    assert len(scored) == NUM_IMAGES - 1
    assert type_in(f"output={tmp_path / 'x'}", "compile=quick").code == 2
