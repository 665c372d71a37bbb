import json
import subprocess
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from crane.runs.record import (
    PACKAGES,
    begin_record,
    processor_name,
    source_state,
    write_record,
)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    package = tmp_path / "repository" / "src" / "package"
    package.mkdir(parents=True)
    git(tmp_path / "repository", "init", "-q")
    (package / "a.py").write_text("a = 1\n")
    git(package, "add", ".")
    git(package, "commit", "-q", "-m", "first")
    return package


def test_commit_and_changes_of_the_sources(repository: Path) -> None:
    commit = git(repository, "rev-parse", "HEAD")
    assert source_state(repository) == (commit, False)
    (repository.parents[1] / "results.csv").write_text("written by a run")
    assert source_state(repository) == (commit, False)
    (repository / "a.py").write_text("a = 2\n")
    assert source_state(repository) == (commit, True)


def test_a_new_source_file_is_a_change(repository: Path) -> None:
    (repository / "b.py").touch()
    assert source_state(repository)[1] is True


def test_sources_outside_git_have_no_commit(tmp_path: Path, repository: Path) -> None:
    (tmp_path / "plain").mkdir()
    assert source_state(tmp_path / "plain") == (None, None)
    # An installed copy within somebody's repository is not at that repository's commit.
    installed = repository.parents[1] / ".venv" / "package"
    installed.mkdir(parents=True)
    (installed / "a.py").touch()
    assert source_state(installed) == (None, None)


def test_record_holds_what_a_result_needs(tmp_path: Path) -> None:
    record = begin_record(
        seed=111, device="cpu", data={"mvtec": "ab12"}, weights={"backbone": "random, seed 0"}
    )
    config = {"seed": 111, "method": {"name": "crane"}, "taps": [6, 12], "rate": None, "a": "ü"}
    path = write_record(tmp_path / "run", record, config)
    content = json.loads(path.read_text())
    assert content["ended"] is None
    assert content["seed"] == 111
    assert content["data"] == {"mvtec": "ab12"}
    assert content["versions"]["numpy"] == np.__version__
    assert set(content["versions"]) == {"python", *PACKAGES}
    assert content["command"]
    assert content["threads"] == torch.get_num_threads()
    assert content["processor"] == processor_name()
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert saved == config
    assert list(saved) == list(config)

    write_record(tmp_path / "run", record.finished(), config)
    content = json.loads(path.read_text())
    start, end = (datetime.fromisoformat(content[key]) for key in ("started", "ended"))
    assert start <= end
    assert start.utcoffset() is not None
