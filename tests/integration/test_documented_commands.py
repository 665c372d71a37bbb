"""Whatever the documentation shows, runs: its commands compose, and the tour is taken."""

import importlib.util
import inspect
import math
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crane.cli.arguments import Arguments
from crane.cli.main import COMMANDS
from crane.cli.validation import check_arguments
from documents import PAGES, ROOT, blocks, shell_lines

TOUR = "## A tour without downloads"


def crane_lines() -> list[str]:
    """Commands as typed, or as torchrun, srun and `VARIABLE=value` start them."""
    # Those of CONTRIBUTING and of tutorials need the files shown there, and are run with them.
    pages = [page for page in PAGES if page.name != "CONTRIBUTING.md"]
    pages = [page for page in pages if page.parent.name != "tutorials"]
    lines = [line for page in pages for line in shell_lines(page.read_text(encoding="utf-8"))]
    found = [re.search(r"(?:^|\s)(crane [a-z].*?)(?: &)?$", line) for line in lines]
    return [command[1] for command in found if command]


def tour_lines() -> list[str]:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split(TOUR)[1].split("\n## ")[0]
    return shell_lines(section)


def test_there_are_commands_to_check():
    assert len(crane_lines()) >= 10
    assert len(tour_lines()) >= 4


@pytest.mark.usefixtures("composed_once")
@pytest.mark.parametrize("line", crane_lines())
def test_every_documented_command_is_accepted(line):
    _, command, *arguments = shlex.split(line, comments=True)
    assert command in COMMANDS
    check_arguments(Arguments(command, arguments))


def test_every_documented_make_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", text, flags=re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), f"{page}: {target}"


@pytest.mark.long
def test_the_tour_runs_as_written(tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": path_with_crane()}
    for line in tour_lines():
        words = shlex.split(line, comments=True)
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{line}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    run = tmp_path / "runs" / "tour"
    for name in ("results.csv", "results.json", "config.yaml", "record.json", "overlays"):
        assert (run / name).exists()
    predictions = next((tmp_path / "runs" / "predict").glob("*/predictions/scores.csv"))
    assert len(predictions.read_text().splitlines()) == 1 + 34  # brick: 16 normal, 18 anomalous
    assert len(list((tmp_path / "runs").glob("train/*_sweep/*/results.json"))) == 2
    assert load_as_documented(run / "prompts" / "epoch_1.safetensors") == (2, (2, 112, 112))


PYTHON = [ROOT / "README.md", ROOT / "docs" / "python.md"]
NEWCOMERS = [ROOT / "docs" / name for name in ("index.md", "from/anomalib.md")]


@pytest.mark.parametrize("page", PYTHON, ids=[page.name for page in PYTHON])
def test_python_runs_as_written(page, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for folder, names in (("known_good", range(19)), ("photos", ("part", "other"))):
        (tmp_path / folder).mkdir()
        for name in names:
            pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    section = (
        page.read_text(encoding="utf-8").partition("From Python\n")[2].split("\n## What is")[0]
    )
    shown = [block.text for block in blocks(section) if block.language == "python"]
    names = {"images": torch.rand(2, 3, 224, 224)}
    for text in shown:
        exec(text, names)
    assert shown
    assert (tmp_path / "my_parts.safetensors").is_file()


@pytest.mark.parametrize("page", NEWCOMERS, ids=[page.name for page in NEWCOMERS])
def test_python_for_newcomers_runs_as_written(page, tmp_path, monkeypatch):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / "photos" / "part.png")
    monkeypatch.chdir(tmp_path)
    shown = [
        one.text for one in blocks(page.read_text(encoding="utf-8")) if one.language == "python"
    ]
    for text in shown:
        exec(text, {})
    assert shown


def load_as_documented(checkpoint: Path) -> tuple[int, tuple[int, ...]]:
    from crane.methods import load_model

    model = load_model(checkpoint)
    score, anomaly_map = model(torch.rand(2, 3, 112, 112))
    return len(score), tuple(anomaly_map.shape)


def path_with_crane() -> str:
    return str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]


PROMISES = [ROOT / "SECURITY.md", ROOT / "docs" / "reliability.md"]


@pytest.mark.parametrize("page", PROMISES, ids=[page.name for page in PROMISES])
def test_every_test_that_a_promise_cites_exists(page):
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if "| `test_" in line]
    cited = [re.findall(r"`(test_\w+\.py)::(test_\w+)`", row) for row in rows]
    assert len(rows) >= 10
    assert all(cited), "a promise without a test"
    for file, name in (one for row in cited for one in row):
        (path,) = (ROOT / "tests").rglob(file)
        assert f"def {name}(" in path.read_text(encoding="utf-8"), f"{file}::{name}"


def num_cases(path: Path) -> int:
    """Cases of the tests of a file that type commands: the values they are parametrised with."""
    spec = importlib.util.spec_from_file_location(f"cases_of_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    tests = [test for name, test in vars(module).items() if name.startswith("test_")]
    marks = [
        [mark.args[1] for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
        for test in tests
        if "crane" in inspect.signature(test).parameters
    ]
    return sum(math.prod(map(len, values)) for values in marks)


def test_the_number_of_cases_is_at_least_what_the_page_says():
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    files = {file for file, _ in re.findall(r"`(test_\w+\.py)::(test_\w+)`", page)}
    paths = [path for file in files for path in (ROOT / "tests").rglob(file)]
    told = int(re.search(r"(\d+) cases of commands", page)[1])
    counts = {path.name: num_cases(path) for path in paths}
    assert 120 <= told <= sum(counts.values()), counts


TUTORIALS = [
    pytest.param(["own_images"], marks=pytest.mark.long),
    # Each goes on in the folder of the last.
    pytest.param(["new_attention", "ablation", "reading_a_report"], marks=pytest.mark.long),
    pytest.param(["metrics_alone"]),
]
FAST = ("trainer=cpu", "image_size=56", "data.num_workers=0", "trainer.enable_progress_bar=false")


@pytest.mark.parametrize("names", TUTORIALS, ids="+".join)
def test_a_tutorial_runs_as_written(names, crane, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    if names == ["metrics_alone"]:
        monkeypatch.setitem(sys.modules, "crane.methods", None)  # importing it is an error
    python: dict[str, object] = {}
    for name in names:
        page = (ROOT / "docs" / "tutorials" / f"{name}.md").read_text(encoding="utf-8")
        for block in blocks(page):
            if block.file:
                (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / block.file).write_text(block.text, encoding="utf-8")
            elif block.language == "python":
                exec(block.text, python)
            elif block.language == "sh":
                for line in block.text.splitlines():
                    type_in(crane, line)
    for name, wanted in LEFT.items():
        assert (name not in names) or [path for path in wanted if not Path(path).exists()] == []


LEFT = {
    "own_images": ["scored/predictions.html", "calibrated/regions.csv", "good_ones/scores.csv"],
    "new_attention": ["runs/nearest/results.csv", "runs/grass/results.csv"],
    "reading_a_report": ["report/report.html", "report/figures/embedded_photos/settings.pdf"],
}
"""What tutorials say they leave."""


def test_every_tutorial_is_run():
    shown = {path.stem for path in (ROOT / "docs" / "tutorials").glob("*.md")}
    assert shown == {name for one in TUTORIALS for name in one.values[0]}


def type_in(crane, line: str) -> None:
    """Run a line of a tutorial in this process; trainings in small."""
    words = shlex.split(line, comments=True)
    words = words[words.index("crane") + 1 :]
    outcome = crane(*words, *(FAST if words[0] == "train" else ()))
    assert outcome.code == 0, f"{line}\n{outcome.out[-3000:]}\n{outcome.err[-3000:]}"


GLOSSARY = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
TERMS = re.findall(r"^## (.*)$", GLOSSARY, flags=re.MULTILINE)
SITE = [page for page in PAGES if ROOT / "docs" in page.parents]


def test_the_glossary_is_sorted_short_and_complete():
    assert sorted(TERMS, key=str.casefold) == TERMS
    entries = GLOSSARY.split("\n## ")[1:]
    assert all(len(entry.split()) < 60 for entry in entries)
    wanted = ("tap", "guide", "stream", "source", "target", "grid", "prompts", "region overlap")
    wanted += ("aupro", "false-alarm rate", "seed", "setting", "recipe")
    assert set(wanted) <= {term.casefold() for term in TERMS}


@pytest.mark.parametrize("folder", ["tutorials", "from"])
def test_a_newcomers_pages_link_the_terms_that_they_use(folder):
    """Each page of a tutorial, and each page for users of a peer, leads to the glossary."""
    for page in (page for page in SITE if page.parent.name == folder):
        text = page.read_text(encoding="utf-8")
        linked = {
            term.casefold() for term in re.findall(r"\[([^\]]+)\]\([\w./]*glossary\.md#", text)
        }
        prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", " ", text, flags=re.DOTALL).casefold()
        special = ("region overlap", "false-alarm rate", "false-positive rate", "recipe", "tap")
        for term in special:
            if re.search(rf"\b{term}s?\b", prose):
                assert any(one in (term, f"{term}s") for one in linked), f"{page.name}: {term}"
