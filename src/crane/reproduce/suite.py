"""Suites: on which data and with which weights the recipes are run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from crane.errors import UsageError


@dataclass(frozen=True)
class Suite:
    """One way to run every recipe; the options of the group `suite` are such.

    Raises:
        UsageError: A text stands where a list belongs, or nothing is to be tested.
    """

    name: str
    """As rows call it."""
    title: str
    """What the README calls it."""
    results: str
    """File of its results beside each recipe: those of two suites never share one."""
    seconds_per_image: Mapping[str, float]
    """Device (`cpu`, `gpu`) to the seconds that an image takes, trained on or tested."""
    seconds_per_run: float
    """What building, loading and writing add to each run."""
    basis: str
    """Where these seconds come from."""
    overrides: Sequence[str] = ()
    """Of every run."""
    train: Sequence[str] = ()
    """Of every training."""
    sources: Mapping[str, str] = field(default_factory=dict)
    """Data set of the recipes to the one trained on in its place."""
    targets: Sequence[str] | None = None
    """Data sets tested on in the place of the recipes'; None: the recipes'."""
    replace: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Override of a row to the overrides that mean the same here."""

    def __post_init__(self) -> None:
        for name in ("overrides", "train", "targets"):
            if isinstance(getattr(self, name), str):
                raise UsageError("a list such as [a,b]", getattr(self, name), key=f"suite.{name}")
        if self.targets is not None and not self.targets:
            raise UsageError("at least one target", "none", key="suite.targets")
