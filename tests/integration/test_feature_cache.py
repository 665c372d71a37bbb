"""`cache=…` in whole runs: equal numbers, each image seen once, nothing stale or broken."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from crane.backbones import VisionTower
from crane.cache import CacheFolder, Entry
from crane.methods import read_checkpoint


@pytest.fixture
def seen(monkeypatch):
    """Counts the images that pass the vision tower."""
    count = {"images": 0}
    embed = VisionTower.embed

    def counted(self, images, *resize):
        count["images"] += len(images)
        return embed(self, images, *resize)

    monkeypatch.setattr(VisionTower, "embed", counted)
    return count


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "features"


@pytest.fixture
def run(train, results_of, seen, folder):
    """Train with a cache; gives the prompts, the results and how many images were seen."""

    def go(name, *overrides, **sets):
        seen["images"] = 0
        trained = train(f"cache.folder={folder}", *overrides, name=name, **sets)
        last = max((trained.folder / "prompts").iterdir())
        return read_checkpoint(last).prompts, results_of(trained.folder), seen["images"]

    return go


def same(one, other):
    assert one[0].keys() == other[0].keys()
    assert all(torch.equal(one[0][name], other[0][name]) for name in one[0])
    assert one[1] == other[1]


@pytest.mark.long
@pytest.mark.parametrize(
    "method",
    [
        [],
        ["method=vand"],
        ["method=adaclip", "method.detector.depth=2", "method.detector.ensemble=clip"],
    ],
)
def test_equal_bits_and_every_image_once(run, method):
    two_epochs = (*method, "trainer.max_epochs=2", "guide=tiny")
    plain = run("plain", "cache=off", *two_epochs)
    cold = run("cold", "cache=all", *two_epochs)
    warm = run("warm", "cache=all", *two_epochs)
    same(plain, cold)
    same(plain, warm)
    source, target = 12, 7  # alpha, gamma
    assert plain[2] == 2 * source + target
    assert cold[2] == source + target
    assert warm[2] == 0


@pytest.mark.long
def test_prompts_and_targets_share_what_vision_settings_do_not(run):
    first = run("first", "cache=all")[2]
    assert first == 12 + 7
    assert run("prompt", "cache=all", "prompt=none")[2] == 0
    assert run("other_target", "cache=all", targets=("alpha",))[2] == 0
    assert run("vv", "cache=all", "attention=vv")[2] == first
    assert run("size", "cache=all", "image_size=42")[2] == first
    assert run("weights", "cache=all", "backbone.model.seed=1")[2] == first


@pytest.mark.long
def test_the_source_is_cached_where_it_pays(run, folder):
    assert run("once", "cache=source")[2] == 12 + 7
    assert not list(CacheFolder(folder).entries())
    assert run("twice", "cache=source", "trainer.max_epochs=2")[2] == 12 + 7
    (entry,) = dict(CacheFolder(folder).entries()).values()
    assert entry.description.data_set == "alpha"
    assert entry.num_images == 12


@pytest.mark.long
def test_features_of_another_number_of_threads_are_used_and_named(run, tmp_path):
    threads = torch.get_num_threads()
    run("first", "cache=all")
    torch.set_num_threads(threads + 1)
    try:
        assert run("second", "cache=all")[2] == 0
    finally:
        torch.set_num_threads(threads)
    said = f"computed with another number of threads ({threads})"
    logs = sorted(tmp_path.rglob("train.log"), key=lambda path: path.stat().st_mtime_ns)
    assert [log.read_text().count(said) for log in logs] == [0, 2]


@pytest.mark.long
def test_half_precision_takes_half_the_room_and_says_what_it_is(run, folder, tmp_path):
    def scores(name):
        with (tmp_path / name / "scores.csv").open() as file:
            return np.array([float(row["score"]) for row in csv.DictReader(file)])

    run("whole", "cache=all")
    whole = sum(entry.num_bytes for _, entry in CacheFolder(folder).entries())
    run("half", "cache=all", "cache.dtype=float16", "cache.folder=half")
    half = dict(CacheFolder("half").entries()).values()
    assert sum(entry.num_bytes for entry in half) < 0.7 * whole
    assert {entry.description.dtype for entry in half} == {"float16"}
    assert {entry.description.computed_in for entry in half} == {"float32"}
    assert 0 < np.abs(scores("half") - scores("whole")).max() < 0.01


@pytest.mark.long
@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("data.mosaic_rate=0.5",), "data.mosaic_rate makes new images each epoch"),
        (("guide=tiny", "guide.attention.mean=batch"), "features depend on the rest of the batch"),
    ],
)
def test_off_by_itself_where_it_would_be_wrong(run, folder, tmp_path, overrides, reason):
    same(run("off", "cache=off", *overrides), run("all", "cache=all", *overrides))
    cached = {entry.description.data_set for _, entry in CacheFolder(folder).entries()}
    assert "alpha" not in cached
    assert any(reason in path.read_text() for path in (tmp_path / "runs").rglob("train.log"))


@pytest.mark.long
def test_changed_images_are_seen_again(crane, run, data_sets, tmp_path, use, tiny):
    root = tmp_path / "own" / "alpha"
    shutil.copytree(data_sets / "alpha", root)
    sets = [*use("source", "alpha", folder=tmp_path / "own"), *use("targets")]

    def entries():
        typed = ("train", *tiny, *sets, "cache=all", "cache.folder=own_cache", "test=false")
        outcome = crane(*typed, "run_dir=own_run")
        assert outcome.code == 0, outcome.err
        return {name for name, _ in CacheFolder("own_cache").entries()}

    before = entries()
    assert entries() == before
    file = next((root / "bolt" / "test" / "good").iterdir())
    changed = np.asarray(Image.open(file)).copy()
    changed[0, 0] ^= 1
    Image.fromarray(changed).save(file)
    assert len(entries()) == 2


@pytest.mark.long
def test_a_damaged_entry_is_computed_again(run, folder, tmp_path):
    cold = run("cold", "cache=all")
    for _, entry in CacheFolder(folder).entries():
        content = json.loads((entry.folder / "entry.json").read_text())
        content["num_images"] += 1
        (entry.folder / "entry.json").write_text(json.dumps(content))
    again = run("again", "cache=all")
    same(cold, again)
    assert again[2] == cold[2]
    logs = "".join(path.read_text() for path in (tmp_path / "runs").rglob("train.log"))
    assert "is damaged" in logs


@pytest.mark.long
def test_an_altered_row_is_refused_and_then_computed_again(crane, run, folder, tiny, use):
    cold = run("cold", "cache=all")
    for _, entry in CacheFolder(folder).entries():
        if entry.description.data_set == "alpha":
            with (entry.folder / "patches.npy").open("r+b") as file:
                file.seek(-4, 2)
                file.write(b"\x00\x00\x01\x02")
    data = [*use("source", "alpha"), *use("targets", "gamma")]
    outcome = crane("train", *tiny, *data, "cache=all", f"cache.folder={folder}", "run_dir=x")
    assert outcome.code == 2
    assert "are damaged" in outcome.err
    assert "crane cache prune" in outcome.err
    same(cold, run("again", "cache=all"))


def test_no_room_is_an_error_before_anything_is_written(crane, tiny, use, monkeypatch, tmp_path):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        "crane.cache.cache_folder.shutil.disk_usage", lambda path: usage._replace(free=9)
    )
    data = [*use("source", "alpha"), *use("targets", "gamma")]
    outcome = crane("train", *tiny, *data, "cache=all", "cache.folder=full", "run_dir=x")
    assert outcome.code == 2
    assert "cache.dtype=float16 takes half" in outcome.err
    assert not list(tmp_path.glob("full/entries/*"))


@pytest.mark.parametrize(
    ("override", "wanted"),
    [
        ("cache.dtype=float8", "cache.dtype must be float32, float16 or bfloat16"),
        ("cache.source=sometimes", "cache.source must be never, pays or always"),
    ],
)
def test_values_that_cannot_be(crane, tiny, use, override, wanted):
    data = [*use("source", "alpha"), *use("targets", "gamma")]
    outcome = crane("train", *tiny, *data, "cache=all", override, "run_dir=x")
    assert outcome.code == 2
    assert wanted in outcome.err


@pytest.mark.long
def test_two_processes_fill_one_entry_together(run, tiny, use, last_of, folder, tmp_path):
    """Both write rows; what a run of one process reads is what it would have computed."""
    data = [*use("source", "alpha"), *use("targets", "gamma")]
    sizes = ("data.batch_size=2", "data.test_batch_size=1")
    ddp = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    typed = last_of(*tiny, *data, *sizes, *ddp, "cache=all", f"cache.folder={folder}")
    command = [sys.executable, "-m", "crane", "train", *typed, f"run_dir={tmp_path / 'ddp'}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    entries = [entry for _, entry in CacheFolder(folder).entries()]
    assert all(isinstance(entry, Entry) for entry in entries)
    assert sorted(entry.num_images for entry in entries) == [7, 12]
    warm = run("warm", "cache=all", *sizes)
    assert warm[2] == 0
    same(warm, run("plain", "cache=off", *sizes))
