import csv
from pathlib import Path

import pytest

from crane import training
from crane.config import compose


@pytest.fixture
def trained(tiny, use, tmp_path):
    """Train a tiny Crane in a folder of its own; overrides as on the command line."""

    def run(name, *overrides, source="alpha", target="gamma"):
        data = [*use("source", source), *use("targets", target)]
        chosen = [*tiny, *data, "trainer.log_every_n_steps=1", *overrides]
        return training.train(compose("train", [*chosen, f"run_dir={tmp_path / name}"]))

    return run


@pytest.fixture
def logged():
    """What a run's CSV logger wrote under a name, by step or epoch."""

    def read(folder: Path, name: str, by: str = "step") -> dict[int, float]:
        with (folder / "logs" / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        return {int(row[by]): float(row[name]) for row in rows if row.get(name)}

    return read
