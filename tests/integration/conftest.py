import csv
import json
from pathlib import Path
from typing import NamedTuple

import pytest


class Trained(NamedTuple):
    """A finished `crane train`."""

    folder: Path
    out: str

    @property
    def prompts(self) -> Path:
        return self.folder / "prompts" / "epoch_1.safetensors"


@pytest.fixture
def last_of():
    """Of overrides with the same key the last one: a command takes each key once."""

    def chosen(*overrides: str) -> list[str]:
        return list({override.partition("=")[0]: override for override in overrides}.values())

    return chosen


@pytest.fixture
def train(crane, tiny, use, last_of, tmp_path):
    """Type `crane train` for the small data sets; it must go well."""

    def run(*overrides, source=("alpha",), targets=("gamma",), name="trained"):
        folder = tmp_path / name
        data = [*use("source", *source), *use("targets", *targets)]
        outcome = crane("train", *last_of(*tiny, *data, *overrides), f"run_dir={folder}")
        assert outcome.code == 0, outcome.err
        return Trained(folder, outcome.out)

    return run


@pytest.fixture
def results_of():
    """What a run's results.json says of each data set; NaN is null there, so == compares all."""

    def read(folder: Path) -> dict:
        content = json.loads((folder / "results.json").read_text())
        return {entry["dataset"]: entry for entry in content["datasets"]}

    return read


@pytest.fixture
def scores_of():
    """The rows of a prediction's scores.csv by file name."""

    def read(folder: Path) -> dict[str, dict[str, str]]:
        with (folder / "scores.csv").open() as file:
            return {Path(row["image"]).name: row for row in csv.DictReader(file)}

    return read
