"""Suites: on which data and with which weights recipes run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Annotated

from annotated_types import MinLen
from omegaconf import OmegaConf

from crane.checks import NonNegativeFloat, Text, checked
from crane.config import conf_dir
from crane.gate import build

PAPER = "paper"
"""The suite of the published tables."""


@checked
@dataclass(frozen=True)
class Suite:
    """One way to run every recipe; each option of the configuration group `suite` is one.

    Raises:
        UsageError: A value has the wrong type, or there is no target.
    """

    name: Text
    """Its name in recipes."""
    title: str
    """Its heading in READMEs."""
    results: Text
    """Results file beside each recipe; no two suites share one."""
    seconds_per_image: Mapping[str, NonNegativeFloat]
    """Device (`cpu`, `gpu`) to the seconds per image trained on or tested."""
    seconds_per_run: NonNegativeFloat
    """Overhead of each run: building, loading, writing."""
    basis: str
    """Where these seconds come from."""
    overrides: Sequence[str] = ()
    """Overrides of every run."""
    train: Sequence[str] = ()
    """Overrides of every training."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Source data set of recipes to the one that replaces it."""
    targets: Annotated[Sequence[str], MinLen(1)] | None = None
    """Data sets tested on, in place of the recipes'; None for the recipes'."""
    replace: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Override of a recipe to the overrides that replace it."""


@cache
def suites() -> Mapping[str, Suite]:
    """Every suite under `conf/suite` by name, the paper's first."""
    files = (conf_dir() / "suite").glob("*.yaml")
    ordered = sorted(files, key=lambda path: (path.stem != PAPER, path.stem))
    return {path.stem: build(OmegaConf.load(path), "suite") for path in ordered}
