"""What the tests of `crane reproduce` share: small runs, and the runs that a store has."""

from pathlib import Path

import pandas as pd

from crane.runs import read_store

EXPERIMENTS = Path(__file__).resolve().parents[1] / "experiments"

SMALL = (
    "backbone=tiny image_size=28 trainer=cpu trainer.enable_progress_bar=false logger=none "
    "data.num_workers=0 data.strict=false data.resizer=torch metrics.pixels.size_edges=[2,7] "
    "metrics.pixels.scale.octave_bits=5 metrics.pixels.scale.linear_bits=9 "
    "overlay.num_anomalous=0 overlay.num_normal=0 overlay.gallery.num_anomalous=0 "
    "overlay.gallery.num_normal=0"
)
"""Overrides for a run of half a second on a miniature data set."""


def runs_of(store: Path) -> pd.DataFrame:
    """A line for each run that is stored."""
    return read_store(store).drop_duplicates("run_id")
