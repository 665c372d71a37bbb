"""The files under conf/ themselves, and that they travel with the package."""

import re
from pathlib import Path

import pytest
import yaml

from crane import config
from crane.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "conf").rglob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT / "conf")))
def test_every_file_begins_with_what_help_prints(file):
    lines = file.read_text().splitlines()
    if lines[0].startswith("# @package"):
        lines = lines[1:]
    assert lines[0].startswith("# ")
    assert len(lines[0]) > 10
    if file.parent.name == "conf":
        assert re.match(rf"# crane {file.stem}\b.*: ", lines[0])
    assert isinstance(yaml.safe_load(file.read_text()), dict)


def test_every_command_has_its_file():
    assert {file.stem for file in FILES if file.parent.name == "conf"} == set(COMMANDS)


def test_the_wheel_carries_conf_where_the_package_looks_for_it(tmp_path, monkeypatch):
    text = (ROOT / "pyproject.toml").read_text()
    assert '"conf" = "crane/conf"' in text
    assert '"experiments" = "crane/experiments"' in text
    assert config.conf_dir() == ROOT / "conf"
    (tmp_path / "conf").mkdir()
    monkeypatch.setattr(config, "files", lambda package: tmp_path)
    assert config.conf_dir() == tmp_path / "conf"


def test_the_wheel_carries_recipes_where_the_package_looks_for_them(tmp_path, monkeypatch):
    assert config.recipe_dir("table1_zero_shot") == ROOT / "experiments" / "table1_zero_shot"
    (tmp_path / "experiments" / "mine").mkdir(parents=True)
    (tmp_path / "experiments" / "mine" / "recipe.yaml").touch()
    monkeypatch.setattr(config, "files", lambda package: tmp_path)
    assert config.recipe_dir("mine") == tmp_path / "experiments" / "mine"
    assert config.recipe_dir("table1_zero_shot") is None
    assert config.recipe_dir("../mine") is None
