"""Suites: on which data and weights recipes run; what runs need, and whether it is here."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from crane.checks import NonNegativeFloat, Text, checked
from crane.config import conf_dir, plain
from crane.data import Index
from crane.datasets import Card
from crane.errors import UsageError
from crane.files import sha256
from crane.gate import build, check
from crane.methods import build_model
from crane.weights import (
    PRESENT,
    hub_code_address,
    hub_code_folder,
    is_hub_code,
    weight_status,
)

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
    kept: Sequence[str] = ()
    """Data sets that recipes test on in this suite too; if a recipe has any, `targets` are not
    added."""
    replace: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Override of a recipe to the overrides that replace it."""


@cache
def suites() -> Mapping[str, Suite]:
    """Every suite under `conf/suite` by name, the paper's first."""
    files = (conf_dir() / "suite").glob("*.yaml")
    ordered = sorted(files, key=lambda path: (path.stem != PAPER, path.stem))
    return {path.stem: build(OmegaConf.load(path), "suite") for path in ordered}


@dataclass(frozen=True)
class Missing:
    """A data set, weight file or checkpoint that a run needs and that is not here."""

    kind: str
    """`data`, `weights` or `checkpoint`."""
    name: str
    help: str
    """Where to get it and where to put it."""
    size_mb: int | None = None
    """Its size; None if unknown."""
    downloadable: bool = False
    """Whether the first run that needs it downloads it."""


def why_missing(missing: Iterable[Missing]) -> str | None:
    """Why a test cannot run, in one line; None if it can, perhaps after downloads.

    >>> visa, clip = Missing("data", "visa", ""), Missing("weights", "clip", "", None, True)
    >>> why_missing([visa, clip]), why_missing([clip])
    ('data visa, weights clip', None)
    """
    found = list(missing)
    if all(one.downloadable for one in found):
        return None
    names: dict[str, list[str]] = {}
    for one in found:
        names.setdefault(one.kind, []).append(one.name)
    return ", ".join(f"{kind} {' + '.join(own)}" for kind, own in names.items())


def distinct(missing: Iterable[Missing]) -> tuple[Missing, ...]:
    """Each missing thing once."""
    return tuple({(one.kind, one.name): one for one in missing}.values())


@dataclass(frozen=True)
class DataSet:
    """A data set as the plan knows it."""

    name: str
    """Its name in the configuration."""
    num_images: int | None
    """Images of the split used, from the card if the data are not here; None if unknown."""
    num_classes: int
    fingerprint: str | None
    """Fingerprint of its files; None if the data are not here."""
    missing: Missing | None
    """Why it cannot be used; None if it can."""
    table_rows: tuple[str, ...] = ()
    """Its names in published tables."""
    average: str = ""
    """The row of averages it counts towards in published tables."""


class Resources:
    """Looks up what runs need, each thing once.

    Args:
        weights_dir: The weights folder.
        allow_download: Whether runs may download missing weights.
    """

    def __init__(self, weights_dir: str, *, allow_download: bool) -> None:
        self.weights_dir, self.allow_download = weights_dir, allow_download
        self._data: dict[str, DataSet] = {}
        self._built: dict[tuple[str, ...], str | None] = {}

    def data_set(self, name: str, node: DictConfig, *, strict: bool) -> DataSet:
        """Look up one data set of a configuration.

        Args:
            name: Its name in the configuration.
            node: Its configuration.
            strict: Whether it must have the published numbers of images.
        """
        key = json.dumps([name, plain(node), strict], sort_keys=True, default=str)
        if key not in self._data:
            self._data[key] = _data_set(name, node, strict)
        return self._data[key]

    def hashes(self, names: Sequence[str]) -> dict[str, str]:
        """The sha256 of each of these weight files that is here, by name."""
        found = {name: weight_status(name, self.weights_dir, verify=False).path for name in names}
        return {name: sha256(path) for name, path in found.items() if path and path.is_file()}

    def missing_weights(self, names: Sequence[str]) -> list[Missing]:
        """Those of these weight files that are not here."""
        statuses = {name: weight_status(name, self.weights_dir, verify=False) for name in names}
        found = []
        for name, status in statuses.items():
            if status.state == PRESENT:
                continue
            if is_hub_code(name):
                where = f"{hub_code_address(name)}; unpacked, its folder as {hub_code_folder(name)}"
            elif status.entry is None:
                where = f"a file of your own; into {self.weights_dir}"
            else:
                where = f"{status.entry.source}; into {self.weights_dir} as {status.entry.files[0]}"
            size = None if status.entry is None else status.entry.size_mb
            found.append(Missing("weights", name, where, size, self.allow_download))
        return found

    def download(self, config: DictConfig, names: Sequence[str]) -> str | None:
        """Download missing weights by building the model; each set of files is tried once.

        Args:
            config: The configuration of the model.
            names: Its weight files.

        Returns:
            Why it failed; None if nothing is missing any more.
        """
        missing = tuple(one.name for one in self.missing_weights(names))
        if missing and missing not in self._built:
            try:
                build_model(config)
                self._built[missing] = None
            except (UsageError, InstantiationException, OSError, RuntimeError) as error:
                cause: BaseException = error
                while cause.__cause__ is not None:  # Hydra wraps what was raised
                    cause = cause.__cause__
                self._built[missing] = (str(cause) or type(cause).__name__).splitlines()[0]
        return self._built.get(missing)


def missing_checkpoint(path: Path) -> Missing | None:
    """How to get a checkpoint of the authors; None if it is here."""
    if path.is_file():
        return None
    return Missing(
        "checkpoint",
        f"{path.parent.name}/{path.name}",
        "the authors' prompts, linked from https://github.com/AlirezaSalehy/Crane; "
        f"put trained_on_* into {path.parent.parent} (checkpoints_dir)",
    )


def _data_set(name: str, node: DictConfig, strict: bool) -> DataSet:
    card: Card | None = None
    if node.get("card") is not None:
        card = build(node.card, f"targets.{node.name}.card")
    rows = () if card is None else tuple(card.table_rows)
    average = f"average_{card.domain}" if card is not None and rows else ""
    check(node, f"targets.{name}")  # a wrong configuration does not mean missing data
    try:
        index: Index = build(node, f"targets.{name}")
    except UsageError as error:
        missing = Missing("data", name, str(error))
        num_images, num_classes = (None, 0)
        if card is not None:
            num_images, num_classes = _num_images(card), len(card.class_names)
        return DataSet(name, num_images, num_classes, None, missing, rows, average)
    strange = f"not the published copy: {'; '.join(index.mismatches)} (data.strict)"
    return DataSet(
        name,
        len(index.samples),
        len(index.class_names),
        index.fingerprint(),
        Missing("data", name, strange) if strict and index.mismatches else None,
        rows,
        average,
    )


def _num_images(card: Card) -> int | None:
    """Images of the split with anomalies, by the most reliable statement of the card."""
    counts = (
        sum(one.totals) if one.totals is not None else one.num_images for one in card.of("test")
    )
    return next((count for count in counts if count is not None), None)
