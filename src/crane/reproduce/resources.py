"""What a run needs and whether it is here: data sets, weights, checkpoints."""

import json
from dataclasses import dataclass
from pathlib import Path

from hydra.errors import InstantiationException
from omegaconf import DictConfig

from crane.config import plain
from crane.data import Index
from crane.datasets import Card
from crane.errors import UsageError
from crane.files import sha256
from crane.gate import build
from crane.methods import build_model
from crane.weights import (
    PRESENT,
    WeightFile,
    hub_code_address,
    hub_code_folder,
    is_hub_code,
    weight_status,
    weights_needed,
)


@dataclass(frozen=True)
class Lack:
    """Something that a run needs and that is not here."""

    kind: str
    """`data`, `weights` or `checkpoint`."""
    name: str
    """Which."""
    help: str
    """Where to get it and where to put it."""
    size_mb: int | None = None
    """How large it is, where known."""
    can_be_fetched: bool = False
    """Whether the first run that needs it fetches it."""


@dataclass(frozen=True)
class DataSet:
    """One data set as the plan knows it."""

    name: str
    num_images: int | None
    """Of the split that is used; of the card where the data are not here; None where unknown."""
    num_classes: int
    fingerprint: str | None
    """None where the data are not here."""
    lack: Lack | None
    """What is wrong; None if it can be used."""


class Resources:
    """Looks up what runs need, each thing once.

    Args:
        weights_dir: The weights folder.
        allow_download: Whether runs may fetch missing weights.
    """

    def __init__(self, weights_dir: str, *, allow_download: bool) -> None:
        self.weights_dir, self.allow_download = weights_dir, allow_download
        self._data: dict[str, DataSet] = {}
        self._hashes: dict[Path, str] = {}
        self._built: dict[tuple[str, ...], str | None] = {}

    def data_set(self, name: str, node: DictConfig, *, strict: bool) -> DataSet:
        """One data set of a configuration.

        Args:
            name: What the configuration calls it.
            node: What it says of it.
            strict: Whether numbers of images other than the published ones are refused.
        """
        key = json.dumps([name, plain(node), strict], sort_keys=True, default=str)
        if key not in self._data:
            self._data[key] = self._look(name, node, strict)
        return self._data[key]

    def _look(self, name: str, node: DictConfig, strict: bool) -> DataSet:
        try:
            index: Index = build(node, f"targets.{name}")
        except UsageError as error:
            return _from_card(name, node, Lack("data", name, str(error)))
        lack = None
        if strict and index.mismatches:
            text = f"not the published one: {'; '.join(index.mismatches)} (data.strict)"
            lack = Lack("data", name, text)
        num_classes = len(index.class_names)
        return DataSet(name, len(index.samples), num_classes, index.fingerprint(), lack)

    def weights(self, config: DictConfig) -> dict[str, str]:
        """The sha256 of each weight file of a configuration that is here, by name."""
        found = {n: weight_status(n, self.weights_dir, verify=False) for n in _needed(config)}
        return {n: self.sha256(s.path) for n, s in found.items() if s.path and s.path.is_file()}

    def sha256(self, path: Path) -> str:
        """The sha256 of a file, computed once."""
        if path not in self._hashes:
            self._hashes[path] = sha256(path)
        return self._hashes[path]

    def lacking_weights(self, config: DictConfig) -> list[Lack]:
        """The weight files of a configuration that are not here."""
        lacks = []
        for name in _needed(config):
            status = weight_status(name, self.weights_dir, verify=False)
            if status.state == PRESENT:
                continue
            entry = status.entry
            lacks.append(
                Lack(
                    *("weights", name, self._where(name, entry)),
                    size_mb=None if entry is None else entry.size_mb,
                    can_be_fetched=self.allow_download,
                )
            )
        return lacks

    def _where(self, name: str, entry: WeightFile | None) -> str:
        """Where to get a file or code that is not here, and where to put it."""
        if is_hub_code(name):
            return f"{hub_code_address(name)}; unpacked, its folder as {hub_code_folder(name)}"
        if entry is None:
            return f"a file of your own; into {self.weights_dir}"
        return f"{entry.source}; into {self.weights_dir} as {entry.files[0]}"

    def fetch(self, config: DictConfig) -> str | None:
        """Have missing weights fetched by building the model; why that failed, None if it did not.

        Each set of missing files is tried once.
        """
        names = tuple(lack.name for lack in self.lacking_weights(config))
        if names and names not in self._built:
            try:
                build_model(config)
                self._built[names] = None
            except (UsageError, InstantiationException, OSError, RuntimeError) as error:
                cause = error.__cause__ or error
                self._built[names] = (str(cause) or type(cause).__name__).splitlines()[0]
        return self._built.get(names)


def checkpoint_lack(path: Path) -> Lack | None:
    """What to do about a checkpoint of someone else's; None if it is there."""
    if path.is_file():
        return None
    return Lack(
        "checkpoint",
        f"{path.parent.name}/{path.name}",
        "the authors' prompts, linked from https://github.com/AlirezaSalehy/Crane; "
        f"put trained_on_* into {path.parent.parent} (checkpoints_dir)",
    )


def _needed(config: DictConfig) -> list[str]:
    return weights_needed(plain(config))


def _from_card(name: str, node: DictConfig, lack: Lack) -> DataSet:
    """What is known of a data set that is not here."""
    if "card" not in node:
        return DataSet(name, None, 0, None, lack)
    card: Card = build(node.card, f"targets.{node.name}.card")
    return DataSet(name, images_of(card), len(card.class_names), None, lack)


def images_of(card: Card) -> int | None:
    """How many images the split with anomalies has, by the surest statement."""
    for counts in card.of("test"):
        if counts.totals is not None:
            return sum(counts.totals)
        if counts.num_images is not None:
            return counts.num_images
    return None
