"""Every example of CONTRIBUTING.md works: its files are written as shown, then used."""

import importlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import balanced_accuracy_score

import benchmarks
import crane.backbones
from benchmarks._harness import Options
from conftest import write_data_set
from crane.attention import SumOfSelfCorrelations
from crane.cli.arguments import Arguments
from crane.cli.validation import check_arguments
from crane.config import compose
from crane.errors import UsageError
from crane.gate import build
from crane.methods import build_model
from crane.metrics import group_scores
from crane.scoring import mean_of_softmax_maps
from documents import ROOT, shell_lines, shown_files
from miniatures import MINIATURES
from reproductions import SMALL

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = shown_files(PAGE)
COMMANDS = shell_lines(PAGE)
PACKAGES = ("attention", "methods", "prompts", "scoring", "metrics")
TINY = ("backbone=tiny", "image_size=56")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder with a copy of `conf/` and the files of all examples, in use in place of ours."""
    root = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "conf", root / "conf")
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        # `crane.config.conf_dir` starts from the file's place.
        patch.setattr("crane.config.__file__", str(root / "src" / "crane" / "config.py"))
        for package in PACKAGES:
            module = importlib.import_module(f"crane.{package}")
            folder = str(root / "src" / "crane" / package)
            patch.setattr(module, "__path__", [*module.__path__, folder])
        patch.setattr(benchmarks, "__path__", [*benchmarks.__path__, str(root / "benchmarks")])
        yield root


@pytest.fixture
def images():
    return torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def test_there_is_an_example_for_each_kind_of_addition():
    groups = {Path(name).parent.as_posix() for name in FILES if name.startswith("conf/")}
    kinds = (
        "method",
        "attention",
        "prompt",
        "scoring",
        "backbone",
        "guide",
        "dataset",
        "metrics",
        "logger",
    )
    assert groups == {f"conf/{kind}" for kind in kinds}
    others = {name.partition("/")[0] for name in FILES} - {"conf", "src"}
    assert others == {"experiments", "benchmarks"}
    assert not [name for name in FILES if (ROOT / name).exists()]


def test_every_yaml_file_starts_with_its_help(clone):
    for name in FILES:
        if name.startswith("conf/"):
            assert FILES[name].startswith("# "), name


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("crane ")])
def test_every_command_is_accepted(clone, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("epoch_5.safetensors").touch()
    shutil.copytree(clone / "experiments", "experiments")
    _, command, *typed = shlex.split(line)
    check_arguments(Arguments(command, typed))


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".py")])
def test_python_examples_pass_the_checks_of_style(name):
    pytest.importorskip("ruff", reason="ruff is not installed")
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--stdin-filename", name, "-"]
        done = subprocess.run(command, input=FILES[name], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stdout


@pytest.mark.long
def test_the_method_trains_and_is_loaded_again(clone, crane, use, tmp_path):
    trained = tmp_path / "trained"
    typed = (*TINY, "method=shifted", "trainer=cpu", "trainer.max_epochs=1", "data.num_workers=0")
    data = [*use("source", "alpha"), *use("targets", "beta")]
    outcome = crane("train", *typed, *data, "cache=all", f"hydra.run.dir={trained}")
    assert outcome.code == 0, outcome.err
    checkpoint = trained / "prompts" / "epoch_1.safetensors"
    again = crane(
        *("test", f"checkpoint={checkpoint}", "method=shifted", "trainer=cpu"),
        *("data.num_workers=0", *use("targets", "beta"), f"hydra.run.dir={tmp_path / 'tested'}"),
    )
    assert again.code == 0, again.err
    tables = [(folder / "results.csv").read_text() for folder in (trained, tmp_path / "tested")]
    assert tables[0] == tables[1]


def test_the_attention_variant(clone, images):
    config = compose("train", [*TINY, "attention=vv_sharp"])
    attend = build(config.attention, "attention").correlation
    q, k, v = torch.randn(3, 2, 4, 10, 8)
    plain = SumOfSelfCorrelations(["v"])
    assert not torch.allclose(attend(q, k, v), plain(q, k, v))
    attend.sharpness = 1.0
    torch.testing.assert_close(attend(q, k, v), plain(q, k, v))
    maps = [
        build_model(compose("train", [*TINY, f"attention={a}"]))(images).map
        for a in ("vv", "vv_sharp")
    ]
    assert not torch.allclose(*maps)


def test_its_argument_is_checked(clone):
    config = compose("train", [*TINY, "attention=vv_sharp", "attention.correlation.sharpness=0"])
    with pytest.raises(UsageError, match=r"attention\.correlation\.sharpness must be a number abo"):
        build_model(config)


def test_a_function_of_another_library_is_an_attention_variant(clone, images):
    name = "torch.nn.functional.scaled_dot_product_attention"
    assert name in PAGE
    text = FILES["conf/attention/vv_sharp.yaml"].splitlines()[:3]
    text += [f"  _target_: {name}", "  _partial_: true"]
    (clone / "conf" / "attention" / "library.yaml").write_text("\n".join(text))
    config = compose("train", [*TINY, "attention=library"])
    assert build_model(config)(images).map.isfinite().all()


def test_the_prompt_mode(clone, images):
    model = build_model(compose("train", [*TINY, "prompt=pad_middle"]))
    tokens = model.vision(images)
    rows = model.prompts(tokens.global_).rows
    words = model.prompts.words["normal"]
    half = len(words) // 2
    torch.testing.assert_close(rows[0, 1 : 1 + half], words[:half])
    torch.testing.assert_close(rows[0, 1 + half], tokens.global_[0])
    torch.testing.assert_close(rows[0, 2 + half : 2 + len(words)], words[half:])


def test_the_aggregation(clone):
    config = compose("train", [*TINY, "scoring=max_of_softmax"])
    aggregate = build(config.scoring, "scoring").aggregate
    logits = torch.randn(2, 3, 16, 2)
    largest, mean = (f(logits, (4, 4), (4, 4)) for f in (aggregate, mean_of_softmax_maps))
    torch.testing.assert_close(largest.flatten(1), logits.softmax(-1)[..., 1].amax(0))
    assert (largest >= mean).all()


def test_the_backbone(clone, monkeypatch):
    load = crane.backbones.load_open_clip

    def on_meta(*args, **kwargs):  # shapes without numbers: nothing is computed
        with torch.device("meta"):
            return load(*args, **kwargs)

    monkeypatch.setattr(crane.backbones, "load_open_clip", on_meta)
    chosen = ["backbone=clip_vit_b32_256", "backbone.model.weights=random"]
    config = compose("train", chosen)
    model = build_model(config).to("meta")
    tokens = model.vision(torch.rand(1, 3, 512, 512, device="meta"))
    assert tokens.grid == (16, 16)
    assert len(model.vision.tower.blocks) * 19 // 24 == config.backbone.num_attention_blocks


def test_the_guide(clone, images):
    chosen = ["method=crane_plus", "guide=dino_vits16", "guide.features.weights=random"]
    model = build_model(compose("train", [*TINY, *chosen]))
    assert model.vision.guide(images).shape == (2, 384, 4, 4)
    assert model(images).map.isfinite().all()


def test_the_data_set(clone, tmp_path):
    write_data_set(tmp_path / "bolts", ("hex", "flat"), 2, 3)
    config = compose("train", ["dataset@source=[bolts]", f"datasets_dir={tmp_path}"])
    index = build(config.source.bolts, "source.bolts")
    assert index.class_names == ("flat", "hex")
    assert len(index.samples) == 2 * (2 + 3)
    assert sum(sample.mask is not None for sample in index.samples) == 6


def test_the_metric(clone):
    measure = importlib.import_module("crane.metrics.balanced").balanced_accuracy_max
    rng = np.random.default_rng(0)
    labels, scores = rng.random(40) < 0.4, rng.integers(0, 9, 40) / 10
    wanted = max(balanced_accuracy_score(labels, scores >= t) for t in np.unique(scores))
    exact, _ = group_scores(scores, labels, unit="pixel")
    value = measure(exact)
    assert value.value == pytest.approx(wanted)
    assert value.error == 0
    assert balanced_accuracy_score(labels, scores >= value.threshold) == pytest.approx(wanted)
    binned = measure(_two_by_two(exact))
    assert binned.low <= wanted <= binned.high
    assert "no anomalous pixel" in measure(group_scores(scores, labels & False, "pixel")[0]).reason


def _two_by_two(counts):
    """Counts in which neighbouring groups share a bin, so that their order is unknown."""
    starts = np.arange(0, len(counts.lower), 2)
    ends = np.minimum(starts + 1, len(counts.lower) - 1)
    negatives, positives = (
        np.add.reduceat(n, starts) for n in (counts.negatives, counts.positives)
    )
    return counts._replace(
        lower=counts.lower[ends], upper=counts.upper[starts], negatives=negatives,
        positives=positives, regions=counts.regions[:, starts],
    )  # fmt: skip


def test_the_benchmark(clone, tmp_path):
    run = importlib.import_module("benchmarks.blur").run
    report = run(Options("cpu", small=True, output=tmp_path))
    assert [name for name, _ in report.rows] == ["crane", "SciPy"]
    assert report.claims[0].measured > 0


@pytest.mark.long
def test_all_in_one_training_and_one_test(clone, crane, tiny, use, tmp_path):
    """Everything but backbone and guide in one run; its checkpoint needs one's own parts named."""
    chosen = ["attention=vv_sharp", "prompt=pad_middle", "scoring=max_of_softmax"]
    write_data_set(tmp_path / "datasets" / "bolts", ("hex",), 3, 3)
    data = ["source=[bolts]", *use("targets", "gamma")]
    measured = "metrics=balanced"
    typed = [*chosen, measured, "logger=steps", "trainer.log_every_n_steps=1"]
    outcome = crane("train", *tiny, *typed, *data, "run_dir=run")
    assert outcome.code == 0, outcome.err
    (result,) = json.loads(Path("run/results.json").read_text())["datasets"]
    assert 0.5 <= result["means"]["image_balanced"] <= 1
    assert "image_balanced_threshold" in result["means"]
    assert "train/loss" in Path("run/steps/metrics.csv").read_text()

    test = [
        "checkpoint=run/prompts/epoch_1.safetensors",
        "trainer=cpu",
        "data.num_workers=0",
        measured,
    ]
    refused = crane("test", *test, *data[1:], "run_dir=refused")
    assert refused.code == 2
    assert "attention=…" in refused.err
    outcome = crane("test", *test, *chosen, *data[1:], "run_dir=again")
    assert outcome.code == 0, outcome.err
    (again,) = json.loads(Path("again/results.json").read_text())["datasets"]
    assert again["means"] == result["means"]


@pytest.mark.long
def test_files_outside_the_repository_serve_as_well(crane, tiny, use, tmp_path, monkeypatch):
    assert "--config-dir my_conf" in PAGE
    module = tmp_path / "sharpened_elsewhere.py"
    module.write_text(FILES["src/crane/attention/sharpened.py"])
    own = tmp_path / "my_conf" / "attention" / "elsewhere.yaml"
    own.parent.mkdir(parents=True)
    text = FILES["conf/attention/vv_sharp.yaml"]
    own.write_text(text.replace("crane.attention.sharpened", "sharpened_elsewhere"))
    monkeypatch.syspath_prepend(tmp_path)
    data = [*use("source", "alpha"), *use("targets")]
    typed = ["attention=elsewhere", "test=false", "run_dir=run"]
    outcome = crane("train", "--config-dir", "my_conf", *tiny, *data, *typed)
    assert outcome.code == 0, outcome.err
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    assert config["attention"]["correlation"]["_target_"].startswith("sharpened_elsewhere.")


@pytest.mark.long
def test_the_recipe(clone, crane, tmp_path):
    folder = shutil.copytree(clone / "experiments" / "ablation_blur", tmp_path / "ablation_blur")
    for name in ("mvtec", "visa"):
        MINIATURES[name].make(tmp_path / "datasets" / MINIATURES[name].folder)
    places = [f"hydra.run.dir={tmp_path / 'runs'}", f"results_store={tmp_path / 'store'}"]
    typed = [folder, f"overrides={SMALL}", "train=trainer.max_epochs=1", *places]
    outcome = crane("reproduce", *typed)
    assert outcome.code == 0, outcome.out + outcome.err
    assert "1 training, 2 tests" in outcome.out
    page = (folder / "README.md").read_text()
    assert "\n# Ablation: blur of the maps\n" in page
