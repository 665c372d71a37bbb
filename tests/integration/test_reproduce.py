"""`crane reproduce`: Table 1 whole on miniature data sets, killed and resumed; what is missing."""

import csv
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from crane.config import compose
from crane.methods import build_model
from crane.reproduce import read_recipe
from crane.reproduce.numbers import OUTSIDE, WITHIN, read_numbers, read_provenance
from miniatures import MINIATURES, VARIANTS
from reference.build import official_names
from reproductions import EXPERIMENTS, SMALL, runs_of

DATASETS = read_recipe(EXPERIMENTS / "table1_zero_shot").targets
MEDICAL = DATASETS[DATASETS.index("headct") :]
NAMES = {"ksdd_anomalyclip": "ksdd", "cvc_colondb": "cvc-colondb", "cvc_clinicdb": "cvc-clinicdb"}
"""Their names in the published table, where they differ."""


@pytest.fixture
def table1(tmp_path):
    """A folder with the rows of Crane in table 1 for the tiny backbone and guide, all its data sets
    in miniature, and checkpoints in the authors' format."""
    root = tmp_path
    folder = root / "table1_zero_shot"
    folder.mkdir()
    shutil.copy(EXPERIMENTS / "table1_zero_shot" / "published.csv", folder)
    content = yaml.safe_load((EXPERIMENTS / "table1_zero_shot" / "recipe.yaml").read_text())
    content["metrics"].remove("aupro")  # which is not published
    content["rows"] = [row for row in content["rows"] if row["name"].startswith("Crane")]
    for row in content["rows"]:
        if "method=crane_plus" in row["overrides"]:
            row["overrides"].append("guide=tiny")
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    for name in content["targets"]:
        miniature = (MINIATURES | VARIANTS)[name]
        miniature.make(root / "datasets" / miniature.folder)
    write_checkpoints(root / "checkpoints")
    return root


def write_checkpoints(folder: Path) -> None:
    """Prompts under the authors' names and in their format, as wide as the tiny backbone's."""
    names = official_names(build_model(compose("train", ["backbone=tiny"])))
    draw = torch.Generator().manual_seed(0)
    for source, kind, epoch in itertools.product(("mvtec", "visa"), ("crane", "cranep"), (1, 5)):
        state = {n: torch.randn(x.shape, generator=draw) / 50 for n, x in names.items()}
        path = folder / f"trained_on_{source}_{kind}" / f"epoch_{epoch}.pth"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"prompt_learner": state}, path)


def typed(root: Path, *more: str) -> list[str]:
    return [
        *("reproduce", str(root / "table1_zero_shot"), f"datasets_dir={root / 'datasets'}"),
        *(f"checkpoints_dir={root / 'checkpoints'}", f"hydra.run.dir={root / 'runs'}"),
        *(f"results_store={root / 'store'}", f"overrides={SMALL}", *more),
    ]


def kill_after(arguments: list[str], tests: int) -> str:
    """Start the command, kill it once so many tests are done; what it printed."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "crane", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if sum(": tested in" in one for one in lines) == tests:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    return "".join(lines)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_table_1_killed_and_resumed_fills_every_cell(table1, crane):
    killed = kill_after(typed(table1), tests=6)
    assert killed.count(": tested in") == 6, killed
    store, folder = table1 / "store", table1 / "table1_zero_shot"
    before = runs_of(store)
    assert not (folder / "results.csv").exists()

    outcome = crane(*typed(table1))
    assert outcome.code == 1, outcome.err  # random towers are not as good as published
    finished = int(re.search(r"finished before: (\d+) tests", outcome.out).group(1))
    assert finished == (before["command"] == "test").sum() >= 6
    runs = runs_of(store)
    assert set(before["run_id"]) < set(runs["run_id"])
    assert not runs.duplicated(["setting", "seed"]).any()  # nothing was repeated
    assert runs["command"].value_counts().to_dict() == {"test": 4 * 14, "train": 4}
    assert f"\n{len(runs) - len(before)} runs" in outcome.out

    numbers = read_numbers(folder / "results.csv")
    per_row = 3 * (10 + 11 + 4)  # detection, localisation, and the averages of both fields
    assert len(numbers) == 4 * per_row
    assert {number.state for number in numbers} <= {WITHIN, OUTSIDE}
    assert all(0 <= number.percent <= 100 and number.seeds == "111" for number in numbers)
    check_provenance(read_provenance(folder / "results.csv"))
    assert shown_beside_published(folder / "README.md") == list(published_lines(folder))
    for _, run in runs[runs["command"] == "test"].iterrows():
        check_protocol(Path(run["folder"]))

    # Changed data are measured anew.
    image = next((table1 / "datasets" / "mpdd").rglob("test/good/*.png"))
    image.write_bytes(image.read_bytes() + b" ")  # another size, another fingerprint
    outcome = crane(*typed(table1, "plan_only=true"))
    assert "finished before: 52 tests" in outcome.out
    assert "to run: 0 trainings, 4 tests" in outcome.out


def check_provenance(found: dict) -> None:
    """Sources, machine and versions once; fingerprints of every data set, weights of every row."""
    (run,) = found["runs"]
    assert run["commit"]
    assert run["processor"]
    assert (run["device"], run["threads"]) == ("1 x 1 cpu", torch.get_num_threads())
    assert torch.__version__.startswith(run["versions"]["torch"])
    assert set(found["data"]) == set(DATASETS)
    assert all(len(digest) == 64 for (digest,) in found["data"].values())
    assert len(found["weights"]) == 4


def check_protocol(folder: Path) -> None:
    """A test ran as the paper's did: scoring, epoch, source, mean of D-Attn."""
    config = yaml.safe_load((folder / "config.yaml").read_text())
    (dataset,) = config["targets"]
    is_plus, is_medical = config["method"]["name"] == "Crane+", dataset in MEDICAL
    source = "visa" if dataset == "mvtec" else "mvtec"
    mean_of_softmax = "mean_of_softmax" in config["scoring"]["aggregate"]["_target_"]
    assert mean_of_softmax == (not is_plus or is_medical or dataset == "dagm"), dataset
    file = Path(config["checkpoint"])
    assert file.stem == ("epoch_1" if is_plus and is_medical else "epoch_5"), dataset
    if file.suffix == ".pth":
        assert file.parent.name == f"trained_on_{source}_{'cranep' if is_plus else 'crane'}"
        assert not is_plus or config["guide"]["attention"]["mean"] == "batch"
    else:
        record = json.loads((file.parents[1] / "record.json").read_text())
        assert list(record["data"]) == [f"source.{source}"]


def shown_beside_published(page: Path) -> list[list[str]]:
    """The first two cells of every line that has a difference."""
    lines = [line for line in page.read_text().splitlines() if re.match(r"\|.*\| \**[+-]\d", line)]
    return [[cell.strip() for cell in line.strip("|").split("|")][:2] for line in lines]


def published_lines(folder: Path) -> Iterator[list[str]]:
    """Data set and AUROC of each line that the page must have, in its order."""
    with (folder / "published.csv").open() as file:
        published = {
            (line["level"], line["metric"], line["dataset"], line["method"]): line["percent"]
            for line in csv.DictReader(file)
        }
    for method, level in itertools.product(("Crane", "Crane+") * 2, ("image", "pixel")):
        for name in (*DATASETS, "average_industrial", "average_medical"):
            key = (level, "auroc", NAMES.get(name, name), method)
            if key in published:
                yield [name.replace("average_", "average "), published[key]]


@pytest.mark.long
def test_what_is_not_here_is_missing_with_its_reason(crane, tmp_path):
    folder = tmp_path / "table1_zero_shot"
    shutil.copytree(EXPERIMENTS / "table1_zero_shot", folder)
    for file in ("results.csv", "results_mini.csv", "README.md"):
        (folder / file).unlink(missing_ok=True)
    places = [f"{name}={tmp_path}" for name in ("datasets_dir", "weights_dir", "checkpoints_dir")]
    outcome = crane("reproduce", folder, *places)
    assert outcome.code == 3, outcome.err
    assert "missing data visa: " in outcome.out
    assert "VisA_20220922.tar" in outcome.out  # where to get it
    assert "missing checkpoint trained_on_visa_crane/epoch_5.pth" in outcome.out
    numbers = read_numbers(folder / "results.csv")
    # Some published averages are not those of the published lines, and left out.
    others = {n.state for n in numbers if not n.dataset.startswith("average")}
    assert others == {"missing"}
    assert all(number.reason and number.percent is None for number in numbers)
    of_btad = {n.reason for n in numbers if n.dataset == "btad" and n.row == "Crane, trained here"}
    assert of_btad == {"data mvtec + btad, weights ViT-L-14-336/openai"}
    page = (folder / "README.md").read_text()
    assert "| btad | 94.4 | missing: data, weights (" in page
    assert not re.search(r"\| *\|", page)  # no cell is blank


def test_a_plan_changes_nothing(crane, tmp_path):
    folder = tmp_path / "ablation_temperature"
    shutil.copytree(EXPERIMENTS / "ablation_temperature", folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    outcome = crane("reproduce", folder, "plan_only=true", f"datasets_dir={tmp_path}")
    assert outcome.code == 0, outcome.err
    assert "16 cells by 16 tests of 4 trainings" in outcome.out
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["seeds=1"], "seeds must be a list, each entry an integer from 0 to 4294967295"),
        (["seeds=[a]"], "seeds must be a list"),
        (["seeds=[]"], "seeds must be a list of integers"),
        (["seeds=[1,1]"], "seeds must be a list of integers"),
        (["""overrides='a="b'"""], "overrides: No closing quotation"),
        (["overrides='trainer=cpu seed=5'"], "seed=5 has no effect here; seeds=[1,2] says which"),
        (["train=trainer.max_epochs=abc"], "trainer.max_epochs must be an integer of at least 1"),
        (["overrides=trainer.devices=2"], "trainer.devices must be 1"),
        (["suite.targets=btad"], "suite.targets must be a non-empty list"),
        (["overrides=[a]"], "overrides must be text"),
        (["plan_only=perhaps"], "plan_only must be true or false, not 'perhaps'"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(crane, words, message):
    outcome = crane("reproduce", EXPERIMENTS / "ablation_temperature", *words)
    assert outcome.code == 2
    assert message in outcome.err


@pytest.fixture
def temperatures(tmp_path):
    """A copy of the temperatures' recipe with one row and one target."""
    folder = tmp_path / "ablation_temperature"
    shutil.copytree(EXPERIMENTS / "ablation_temperature", folder)
    content = yaml.safe_load((folder / "recipe.yaml").read_text())
    content["rows"], content["targets"] = content["rows"][2:3], content["targets"][:1]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return folder


def test_a_metric_that_no_test_measures_is_refused_by_the_plan(crane, temperatures):
    path = temperatures / "recipe.yaml"
    path.write_text(path.read_text().replace("- aupro\n", "- auprro\n"))
    outcome = crane("reproduce", temperatures, "plan_only=true")
    assert outcome.code == 2
    assert f"metrics in {path}: unknown metric 'auprro'; did you mean aupro?" in outcome.err


def test_results_of_another_suite_that_cannot_be_read_are_refused_by_the_plan(crane, temperatures):
    (temperatures / "results_mini.csv").write_text("<<<<<<< HEAD\nrow\n")
    outcome = crane("reproduce", temperatures, "plan_only=true")
    assert outcome.code == 2
    assert "results_mini.csv is not a results file of crane reproduce" in outcome.err


def test_folders_are_told_apart(crane, temperatures, tmp_path, monkeypatch):
    other = tmp_path / "others" / temperatures.name
    shutil.copytree(temperatures, other)
    outcome = crane("reproduce", temperatures, other, "plan_only=true")
    assert outcome.code == 2
    assert "have the same name" in outcome.err
    monkeypatch.chdir(temperatures)
    outcome = crane("reproduce", ".", temperatures, "plan_only=true")
    assert f"{temperatures} is listed twice" in outcome.err
    outcome = crane("reproduce", ".", "plan_only=true", f"datasets_dir={tmp_path}")
    assert "Plan of ablation_temperature: " in outcome.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "experiments: nowhere has no recipe.yaml"),
        ([], "experiments=…"),
        (["nowhere", "suite=small"], "suite"),
    ],
)
def test_mistakes_are_refused(crane, words, message):
    outcome = crane("reproduce", *words)
    assert outcome.code == 2
    assert message in outcome.err
