"""Files that are damaged, foreign or made to do harm, each through the command that reads it."""

import csv
import io
import json
import os
import pickle
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

from crane import training
from crane.config import compose
from longer import one_by_default


class Touch:
    """What a pickle runs when it is loaded by a careless program."""

    def __reduce__(self):
        return Path.touch, (Path("PWNED"),)


@pytest.fixture(scope="module")
def base(tiny, use, tmp_path_factory) -> Path:
    """A training, and photographs with a prediction of theirs."""
    folder = tmp_path_factory.mktemp("base")
    data = [*use("source", "gamma"), *use("targets")]
    training.train(compose("train", [*tiny, *data, f"run_dir={folder / 'run'}"]))
    (folder / "photos").mkdir()
    for number in range(3):
        pixels = np.full((40, 40, 3), 60 * number, np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{number}.png")
    return folder


@pytest.fixture
def here(base, tmp_path) -> Path:
    """A copy of it in the current folder, which a test may damage."""
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    return tmp_path


CHECKPOINT = Path("run/prompts/epoch_1.safetensors")
LAST = Path("run/checkpoints/last.ckpt")
PREDICT = (
    *("predict", f"checkpoint={CHECKPOINT}", "input=photos", "output=out", "image_size=56"),
    *("accelerator=cpu", "num_workers=0", "maps=none", "overlays=none", "batch_size=2"),
)
CALIBRATED = (*PREDICT, "calibration.input=photos")


def write(name: str | Path, content: bytes | str = b"") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def reconfigured(**changes: Any) -> None:
    """Change the configuration of the checkpoint, without a checksum, as a stranger may."""
    with safe_open(CHECKPOINT, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = json.loads(metadata["config"])
    for key, value in changes.items():
        *parents, last = key.split("__")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    metadata = {"format": metadata["format"], "config": json.dumps(config)}
    save_file(tensors, CHECKPOINT, metadata=metadata)


RUN = {"_target_": "torch.utils.collect_env.run", "command": "touch PWNED"}
HTML = "<!DOCTYPE html><title>Sign in</title>"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n"

CHECKPOINTS: dict[str, tuple[Callable[[], Any], str]] = {
    "builds": (lambda: reconfigured(scoring__blur_sigma=RUN), "wants to build torch.utils"),
    "builds deep": (lambda: reconfigured(method={"a": [[RUN]]}), "wants to build torch.utils"),
    "reads the environment": (
        lambda: reconfigured(prompt__words__normal="${oc.env:HOME}"),
        "refers to ${oc.env:HOME}",
    ),
    "a value of another type": (
        lambda: reconfigured(scoring__blur_sigma="much"),
        "scoring.blur_sigma must be a number",
    ),
    "no value": (lambda: reconfigured(scoring__blur_sigma=None), "scoring.blur_sigma must be"),
    "not a mapping": (lambda: reconfigured(prompt=[1, 2]), "prompt"),
    "a pickle": (lambda: write(CHECKPOINT, pickle.dumps(Touch())), "not a whole safetensors file"),
    "cut": (
        lambda: write(CHECKPOINT, CHECKPOINT.read_bytes()[:-9]),
        "not a whole safetensors file",
    ),
    "empty": (lambda: write(CHECKPOINT), "not a whole safetensors file"),
    "a web page": (lambda: write(CHECKPOINT, HTML), "is a web page, not the file itself"),
    "a pointer": (lambda: write(CHECKPOINT, POINTER), "is a Git LFS pointer"),
    "a picture": (
        lambda: shutil.copy("photos/0.png", CHECKPOINT),
        "not a whole safetensors file",
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_is_refused_in_one_line(crane, here, name):
    damage, said = CHECKPOINTS[name]
    damage()
    refused(crane(*PREDICT), said)


def refused(outcome, *said):
    assert outcome.code == 2, outcome.err
    for one in said:
        assert one in outcome.err
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("crane: ")]
    assert "weights_only=False" not in line, "torch's advice is unsafe"
    assert "Traceback" not in outcome.err
    assert not Path("PWNED").exists()


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".pt"])
def test_a_pickle_that_runs_code_is_refused(crane, here, suffix):
    torch.save({"prompt_learner": Touch()}, f"evil{suffix}")
    typed = [f"checkpoint=evil{suffix}", *(word for word in PREDICT if "checkpoint=" not in word)]
    refused(crane(*typed[1:2], typed[0], *typed[2:]), "refused because it could run code")


def altered(change: Callable[[dict], Any]) -> None:
    content = torch.load(LAST, weights_only=True)
    change(content)
    torch.save(content, LAST)


def spoilt(content: dict) -> None:
    for name, value in content["state_dict"].items():
        if "prompts" in name and value.is_floating_point():
            content["state_dict"][name] = torch.full_like(value, torch.nan)


RESUMED: dict[str, tuple[Callable[[], Any], str]] = {
    "no optimizer": (lambda: altered(lambda c: c.pop("optimizer_states")), "optimizer_states"),
    "no loops": (lambda: altered(lambda c: c.pop("loops")), "loops"),
    "other loops": (lambda: altered(lambda c: c.update(loops=[1])), "cannot be resumed"),
    "other optimizer": (
        lambda: altered(lambda c: c.update(optimizer_states=[{"state": 1}])),
        "cannot be resumed: it lacks 'param_groups'",
    ),
    "optimizer of other tensors": (
        lambda: altered(lambda c: c["optimizer_states"][0]["param_groups"][0]["params"].append(9)),
        "cannot be resumed",
    ),
    "no tensors": (lambda: altered(lambda c: c.pop("state_dict")), "state_dict"),
    "NaN": (lambda: altered(spoilt), "NaN or infinity"),
    "code": (lambda: torch.save({"crane": Touch()}, LAST), "could run code"),
    "cut": (lambda: write(LAST, LAST.read_bytes()[:1000]), "is not a checkpoint"),
    "empty": (lambda: write(LAST), "is not a checkpoint"),
}


@pytest.mark.parametrize("name", one_by_default(RESUMED))
def test_a_training_is_not_resumed_from(crane, tiny, use, here, name):
    damage, said = RESUMED[name]
    damage()
    longer = [word.replace("max_epochs=1", "max_epochs=2") for word in tiny]
    data = [*use("source", "gamma"), *use("targets")]
    refused(crane("train", *longer, *data, f"resume={LAST}", "results_store=null"), said)


PREDICTIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "calibration: a list": (lambda: write("out/calibration.json", "[]"), "calibration.json"),
    "calibration: text": (
        lambda: write("out/calibration.json", '{"value": "0.5"}'),
        "calibration.json",
    ),
    "calibration: NaN": (lambda: write("out/calibration.json", '{"value": NaN}'), "calibration"),
    "calibration: other keys": (
        lambda: write("out/calibration.json", '{"threshold": 0.5}'),
        "calibration.json",
    ),
    "calibration: text for a score": (
        lambda: write(
            "out/calibration.json",
            re.sub(
                r'"scores": \[\s*[\d.]+', '"scores": ["x"', Path("out/calibration.json").read_text()
            ),
        ),
        "calibration.json",
    ),
    "calibration: bytes": (lambda: write("out/calibration.json", b"\xff\xfe"), "calibration.json"),
    "settings: a list": (lambda: write("out/settings.json", "[1]"), "settings.json"),
    "settings: bytes": (lambda: write("out/settings.json", b"\x80"), "settings.json"),
    "settings: cut": (
        lambda: write("out/settings.json", Path("out/settings.json").read_bytes()[:-9]),
        "settings.json",
    ),
    "part: other images": (
        lambda: write(part(), part().read_text().replace("1.png", "9.png", 1)),
        "holds rows of other images",
    ),
    "part: one row less": (
        lambda: write(part(), "".join(part().read_text().splitlines(True)[:-1])),
        "rows or other columns",
    ),
    "part: other columns": (
        lambda: write(part(), part().read_text().replace("height", "depth")),
        "cannot be read",
    ),
    "part: text for a score": (
        lambda: write(part(), part().read_text().replace("1.png,0", "1.png,x")),
        "cannot be read",
    ),
    "part: bytes": (lambda: write(part(), b"\xff" * 100), "cannot be read"),
    "part: empty": (lambda: write(part()), "part-00000000.csv"),
}


def part() -> Path:
    return Path("out/scores/part-00000000.csv")


@pytest.mark.parametrize("name", one_by_default(PREDICTIONS))
def test_a_prediction_is_not_resumed_from(crane, here, name):
    damage, said = PREDICTIONS[name]
    assert crane(*CALIBRATED).code == 0
    damage()
    refused(crane(*CALIBRATED), said)
    assert crane(*CALIBRATED, "overwrite=true").code == 0


@pytest.mark.parametrize("member", ["../evil.png", "/tmp/evil.png", "a/../../evil.png"])
def test_an_archive_does_not_leave_its_folder(crane, tmp_path, member):
    with tarfile.open(tmp_path / "data.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(member), io.BytesIO())
    typed = ("data", "prepare", "folder", "targets.folder.root=new", "archive=data.tar")
    refused(crane(*typed), "evil.png")
    assert not list(tmp_path.rglob("evil.png"))


CLASSES = ["..", "a b", "a_b", "=1+1", "[red]x", "x" * 300]


def test_odd_class_names_cost_nothing_and_stay_inside(crane, here):
    rows = {}
    for number, name in enumerate(CLASSES):
        images = [str(shutil.copy("photos/0.png", f"photos/{number}_{n}.png")) for n in range(2)]
        rows[name] = [entry(image, name, label) for label, image in enumerate(images)]
    write("meta.json", json.dumps({"test": rows}))
    before = {*Path().rglob("*")}
    outcome = crane(
        *("test", f"checkpoint={CHECKPOINT}", "targets=[meta_json]", "targets.meta_json.root=."),
        *("trainer=cpu", "data.num_workers=0", "image_size=56", "results_store=null"),
        *("run_dir=run/inside", "overlay.tile=60"),
    )
    assert outcome.code == 0, outcome.err
    new = {*Path().rglob("*")} - before
    assert all("run/inside" in f"{path}" or "runs" in path.parts for path in new)
    table = list(csv.DictReader(io.StringIO(Path("run/inside/results.csv").read_text())))
    written = ["'=1+1" if name == "=1+1" else name for name in CLASSES]
    assert {row["class"] for row in table} == {*written, "mean"}
    assert len(list(Path("run/inside/overlays/meta_json").iterdir())) == len(CLASSES) + 1
    assert "[red]x" in outcome.out


def entry(image: str, name: str, anomaly: int) -> dict[str, object]:
    facts = {"mask_path": "", "specie_name": "good" if anomaly == 0 else "bad"}
    return {"img_path": image, "cls_name": name, "anomaly": anomaly, **facts}


CACHES: dict[str, Callable[[Path], Any]] = {
    "digests: a list": lambda cache: rewrite(cache, "digests/*.json", b"[1, 2]"),
    "digests: other rows": lambda cache: rewrite(cache, "digests/*.json", b'{"a": 1, "b": [2]}'),
    "digests: bytes": lambda cache: rewrite(cache, "digests/*.json", b"\xff\xfe"),
    "array: header": lambda cache: edit(cache, "patches.npy", b"'shape': (7", b"'shape': (9"),
    "array: order": lambda cache: edit(cache, "global.npy", b"order': False", b"order': True "),
    "array: pickle": lambda cache: edit(cache, "global.npy", b"'<f4'", b"'|O' "),
    "array: cut": lambda cache: edit(cache, "checksums.npy", None, b""),
    "entry: a list": lambda cache: rewrite(cache, "entries/*/entry.json", b"[]"),
    "entry: text": lambda cache: rewrite(cache, "entries/*/entry.json", b"shape"),
    "names: other": lambda cache: rewrite(cache, "entries/*/images.json", b'["a"]'),
}


def rewrite(cache: Path, pattern: str, content: bytes) -> None:
    paths = list(cache.glob(pattern))
    assert paths
    for path in paths:
        path.write_bytes(content)


def edit(cache: Path, name: str, old: bytes | None, new: bytes) -> None:
    (path,) = cache.glob(f"entries/*/{name}")
    content = path.read_bytes()
    assert old is None or content.count(old) == 1
    path.write_bytes(content[:-8] if old is None else content.replace(old, new))


@pytest.fixture(scope="module")
def cached(tiny, use, tmp_path_factory) -> tuple[Path, list[str], bytes]:
    """A cache, the overrides that fill it, and the prompts that a training has with it."""
    folder = tmp_path_factory.mktemp("cached")
    typed = [*tiny, *use("source", "gamma"), *use("targets"), "cache.source=always"]
    config = compose("train", [*typed, f"cache.folder={folder / 'c'}", f"run_dir={folder}"])
    prompts = training.train(config).checkpoint
    return folder / "c", typed, prompts.read_bytes()


@pytest.mark.parametrize("name", one_by_default(CACHES))
def test_a_damaged_cache_is_made_again(crane, cached, tmp_path, name):
    whole, typed, prompts = cached
    shutil.copytree(whole, tmp_path / "c")
    CACHES[name](tmp_path / "c")
    outcome = crane("train", *typed, "cache.folder=c", "run_dir=again", "results_store=null")
    assert outcome.code == 0, outcome.err
    assert Path("again/prompts/epoch_1.safetensors").read_bytes() == prompts


WEIGHTS: dict[str, tuple[Callable[[], Any], str]] = {
    "pointer.safetensors": (lambda: write("pointer.safetensors", POINTER), "git lfs pull"),
    "page.pt": (lambda: write("page.pt", HTML), "is a web page"),
    "code.pt": (lambda: torch.save(Touch(), "code.pt"), "more than tensors"),
    "empty.pt": (lambda: write("empty.pt"), "is damaged"),
    "cut.safetensors": (lambda: write("cut.safetensors", b"\x10" * 20), "not a whole safetensors"),
    "none.pt": (lambda: torch.save([], "none.pt"), "holds no tensors by name"),
    "clip.safetensors": (
        lambda: save_file({"vision_model.embeddings.c": torch.zeros(2)}, "clip.safetensors"),
        "Hugging Face's transformers library",
    ),
    "siglip.safetensors": (
        lambda: save_file({"text_model.encoder.w": torch.zeros(2)}, "siglip.safetensors"),
        "Hugging Face's transformers library",
    ),
    "other.safetensors": (
        lambda: save_file({"visual.proj": torch.zeros(2)}, "other.safetensors"),
        "does not fit the architecture",
    ),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_file_of_weights_is_refused(crane, tiny, use, tmp_path, name):
    WEIGHTS[name][0]()
    typed = [*use("source", "gamma"), *use("targets"), f"backbone.model.weights={name}"]
    outcome = crane("train", *tiny, *typed, "results_store=null")
    refused(outcome, WEIGHTS[name][1])


HUBCONF = {
    "raise SystemExit(0)\n": "fails with SystemExit",
    "import nowhere_at_all\n": "No module named 'nowhere_at_all'",
    "def vit(pretrained): return 5\n": "not a int",
    "syntax error\n": "fails with SyntaxError",
}


@pytest.mark.parametrize("code", one_by_default(HUBCONF))
def test_the_code_of_a_guide_that_fails_is_an_error(crane, tiny, use, tmp_path, code):
    write("clone/hubconf.py", code)
    own = ["guide=dinov2_vitb14_reg", "guide.features.source=local"]
    own += ["guide.features.repo_dir=clone", "guide.features.entry=vit"]
    own += ["guide.features.weights=random", *use("source", "gamma"), *use("targets")]
    refused(crane("train", *tiny, *own, "results_store=null"), HUBCONF[code])


def test_names_that_are_not_utf_8_cost_nothing(crane, here):
    for kind, number in (("good", 0), ("bad", 1)):
        for letter in (b"\xff", b"\xfe"):
            folder = os.fsencode(Path("odd") / kind)
            Path(os.fsdecode(folder)).mkdir(parents=True, exist_ok=True)
            shutil.copy(f"photos/{number}.png", os.fsdecode(folder + b"/" + letter + b".png"))
    typed = ["test", f"checkpoint={CHECKPOINT}", "targets=[folder]", "targets.folder.root=odd"]
    typed += ["trainer=cpu", "data.num_workers=0", "image_size=56", "results_store=null"]
    outcome = crane(*typed, "run_dir=tested", "overlay.tile=60")
    assert outcome.code == 0, outcome.err
    assert "\\udcff.png" in Path("tested/scores.csv").read_text()
