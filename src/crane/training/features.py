"""Frozen features from the cache: each image passes the towers once, whatever is trained on it."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from hydra.utils import get_object
from lightning import LightningDataModule, LightningModule, Trainer
from omegaconf import DictConfig
from rich.filesize import decimal as size_text
from torch import Tensor

import crane.attention
import crane.backbones
import crane.data.images
import crane.guides
import crane.methods.vision
import crane.views
import crane.weights
from crane import schema
from crane.cache import (
    CacheFolder,
    Description,
    code_digest,
    entry_id,
    images_digest,
    tower_facts,
)
from crane.cache.arrays import EntryWriter, Features, FeatureShape, allocate, finish, is_allocated
from crane.config import plain
from crane.data import CraneDataModule
from crane.data.dataset import IndexDataset, OwnSizeDataset
from crane.data.loader import ImageLoader
from crane.errors import UsageError, counted, unwritable
from crane.methods import Detector
from crane.training.module import CraneModule
from crane.types import Batch
from crane.views import CropFeatures, TileDataset, View

logger = logging.getLogger(__name__)

CHECKED = ("dtype", "source", "targets")
SECONDS_BETWEEN_ATTEMPTS = 30.0
"""Seconds between attempts to get a lock; the processes of a run synchronise after each."""
MODULES = (
    crane.attention,
    crane.backbones,
    crane.guides,
    crane.weights,
    crane.methods.vision,
    crane.data.images,
)
"""Code that decides the features, beside the modules that a configuration names."""


def check_cache(config: DictConfig) -> None:
    """Check the values of `cache`.

    Raises:
        UsageError: One is refused.
    """
    schema.check("train", {f"cache.{key}": config.cache[key] for key in CHECKED})


def use_features(
    config: DictConfig, trainer: Trainer, module: CraneModule, data: CraneDataModule
) -> None:
    """Replace images by cached features in a data module, as the configuration says.

    Missing features are computed first, by all processes together. Every process must call this.

    Args:
        config: Configuration of `crane train` or `crane test`; `cache` says what is cached where.
        trainer: Computes features, in its precision and on its devices.
        module: Its towers compute them; it is told their type.
        data: Its source and targets are changed.

    Raises:
        UsageError: The disk has no room or cannot be written.
    """
    folder, settings = CacheFolder(config.cache.folder), plain(config)
    for name in _chosen(config, data):
        images = data.image_sets()[name]
        if len(images) < trainer.world_size:
            logger.info("not caching %s: it has fewer images than there are processes", name)
            continue

        def extracted(part: IndexDataset, name: str = name, **facts: Any) -> Features:
            extraction = FeatureExtraction(module.model, folder, name, part, settings, facts)
            try:
                loaders = _MissingImages(data, extraction)
                trainer.predict(extraction, datamodule=loaders, return_predictions=False)
            finally:
                extraction.release()
            return extraction.features()

        if isinstance(images, OwnSizeDataset):
            assert module.view is not None
            tokens: Any = _of_crops(module.view, images, extracted)
            module.token_dtype = tokens.computed_in
        else:
            tokens = extracted(images)
            module.token_dtype = tokens.computed_in
        data.use_tokens(name, tokens)


def _of_crops(
    view: View, images: OwnSizeDataset, extracted: Callable[..., Features]
) -> "CropFeatures":
    """The features of all crops of a data set.

    They are an entry of whole images for each size, the same as that of a test at that
    `image_size`, and an entry of all tiles.
    """
    index, resizer = images.index, images.resizer
    wholes = {
        side: extracted(IndexDataset(index, side, resizer))
        for side in view.sides(images.image_size)
    }
    tiles = TileDataset(images, view)
    facts = {"view": {**tiles.facts, "code": code_digest([crane.views])}}
    return CropFeatures(wholes, extracted(tiles, **facts) if len(tiles) else None)


def _chosen(config: DictConfig, data: CraneDataModule) -> Iterator[str]:
    """Names of the data sets whose features are cached; logs the reason for the others."""
    for group in ("source", "targets"):
        when = config.cache[group]
        names = [name for name in data.image_sets() if name.startswith(f"{group}.")]
        if when == "never" or not names or (group == "targets" and not config.get("test", True)):
            continue
        reason = _reason_not_to(config, group)
        if reason is None and when == "pays":
            reason = _saves_nothing(config, data, group)
        if reason is None:
            yield from names
        else:
            logger.info("not caching the %s: %s", group, reason)


def _reason_not_to(config: DictConfig, group: str) -> str | None:
    """Why cached features would be wrong."""
    if group == "source" and config.data.mosaic_rate > 0:
        return "data.mosaic_rate makes new images each epoch"
    if str(config.trainer.precision).startswith("64"):
        return "trainer.precision computes in 64 bits, and the cache would keep only 32"
    attention = config.guide.attention
    if attention is not None and attention.get("mean") == "batch":
        return "with guide.attention.mean=batch features depend on the rest of the batch"
    return None


def _saves_nothing(config: DictConfig, data: CraneDataModule, group: str) -> str | None:
    """Why computing a group's features once would be no less work than computing them anew."""
    num_images = sum(len(s) for n, s in data.image_sets().items() if n.startswith(f"{group}."))
    if group == "targets":
        num_uses = num_images
    else:
        num_uses = (data.num_train + data.num_validation) * max(1, config.trainer.max_epochs)
        if config.trainer.max_steps > 0:
            num_uses = min(num_uses, config.trainer.max_steps * data.batch_size)
    if num_uses > num_images:
        return None
    used = (
        f"{counted(num_images, 'image is', 'images are')} used {counted(num_uses, 'time')} in all"
    )
    return f"{used}, so it would save nothing"


class FeatureExtraction(LightningModule):
    """One pass of the towers over a data set into the cache; does nothing if the entry exists.

    Args:
        model: The detector whose frozen part is run.
        folder: The cache.
        name: Name of the data set in the run, such as `source.mvtec`.
        images: The data set.
        settings: The whole configuration, resolved.
        facts: More that decides the features.
    """

    def __init__(
        self,
        model: Detector[Any, Any],
        folder: CacheFolder,
        name: str,
        images: IndexDataset,
        settings: Mapping[str, Any],
        facts: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.more_facts = facts
        self.model, self.folder = model, folder
        self.name, self.images, self.settings = name, images, settings
        self.is_missing = False
        self._facts: dict[str, Any] = {}
        self._id = ""
        self._lock: FileLock | None = None
        self._writer: EntryWriter | None = None
        self._started = 0.0
        self._computed_in = ""

    def setup(self, stage: str) -> None:
        """Look for the entry; the run that computes it holds its lock."""
        if self.trainer.is_global_zero:
            self._facts = self._describe()
            self._id = entry_id(self._facts)
        self._id = self.trainer.strategy.broadcast(self._id)
        while not self.trainer.strategy.broadcast(self._has_lock()):
            logger.info("waiting for another run to compute the features of %s", self.name)
        if self.trainer.is_global_zero:
            entry = self.folder.find_whole(self._id)
            self.is_missing = entry is None
            if entry is not None:
                size = size_text(entry.num_bytes)
                made = entry.description.num_threads
                if made not in (None, torch.get_num_threads()):
                    size += f"; computed with another number of threads ({made})"
                logger.info("using cached features of %s: entry %s, %s", self.name, self._id, size)
                self.release()
        self.is_missing = self.trainer.strategy.broadcast(self.is_missing)
        self._started = time.monotonic()

    def _has_lock(self) -> bool:
        if not self.trainer.is_global_zero:
            return False
        self._lock = self.folder.lock(self._id)
        try:
            self._lock.acquire(timeout=SECONDS_BETWEEN_ATTEMPTS)
        except Timeout:
            self._lock = None
        return self._lock is not None

    def predict_step(self, batch: Batch, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Encode a batch: a vector and planes for each image."""
        return self.model.to_arrays(self.model.encode(batch["image"]))

    def on_predict_batch_end(
        self, outputs: Any, batch: Batch, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Write the features of a batch."""
        try:
            global_, planes = outputs
            if self._writer is None:
                self._computed_in = str(planes.dtype).removeprefix("torch.")
                self._writer = self._open(FeatureShape(global_.shape[1], tuple(planes.shape[1:])))
            self._writer.write(batch["index"].tolist(), global_, planes)
        except OSError as error:
            raise unwritable(self.folder.path, error, "cache.folder") from error

    def _open(self, shape: FeatureShape) -> EntryWriter:
        """Open the entry's arrays: the first process creates them, the others wait."""
        building, dtype = self.folder.building(self._id), self.settings["cache"]["dtype"]
        if self.trainer.is_global_zero:
            num_bytes = shape.num_bytes(len(self.images), dtype)
            free = self.folder.check_space(num_bytes)
            logger.info(
                "caching features of %s: %s %s in %s (%s free)",
                *(self.name, counted(len(self.images), "image takes", "images take")),
                size_text(num_bytes),
                *(self.folder.path, size_text(free)),
            )
            allocate(building, len(self.images), shape, dtype)
        while not is_allocated(building):
            time.sleep(0.1)
        return EntryWriter(building, dtype)

    def on_predict_end(self) -> None:
        """Turn the rows of all processes into a finished entry."""
        if self._writer is not None:
            self._writer.close()
        self.trainer.strategy.barrier("features written")
        if self.trainer.is_global_zero:
            index = self.images.index
            description = Description(
                data_set=index.name,
                root=str(index.root.resolve()),
                vision=_in_words(self.settings, self.images.image_size),
                dtype=self.settings["cache"]["dtype"],
                computed_in=self._computed_in,
                created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                seconds=time.monotonic() - self._started,
                facts=self._facts,
                num_threads=torch.get_num_threads(),
            )
            building, place = self.folder.building(self._id), self.folder.place(self._id)
            finish(building, place, self.images.names, description)
            self.release()
        self.trainer.strategy.barrier("features kept")

    def release(self) -> None:
        """Release the entry's lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def features(self) -> Features:
        """Open the finished entry."""
        entry = self.folder.find(self._id)
        if entry is None:
            place = self.folder.place(self._id)
            raise UsageError(f"the cache entry {place} is gone", key="cache.folder")
        return Features(entry)

    def _describe(self) -> dict[str, Any]:
        """Everything that decides the features."""
        settings, index = self.settings, self.images.index
        digest: Callable[[Path, Sequence[Path]], list[str]] = self.folder.digests.of
        guide = settings["guide"]
        parts = {"attention": settings["attention"], "guide": guide["attention"]}
        digests = digest(index.root, [sample.image for sample in index.samples])
        return {
            "backbone": tower_facts(settings["backbone"]["model"], digest),
            "guide": guide["features"] and tower_facts(guide["features"], digest),
            **{f"{name}_attention": content for name, content in parts.items()},
            **_method_facts(settings),
            "image_size": self.images.image_size,
            "resizer": self.images.resizer,
            "precision": settings["trainer"]["precision"],
            "compile": settings["compile"],
            "device": self.trainer.strategy.root_device.type,
            "torch": torch.__version__,
            "dtype": settings["cache"]["dtype"],
            "code": code_digest([*MODULES, *_modules_named(settings)]),
            "images": images_digest(map(index.key, index.samples), digests),
            **self.more_facts,
        }


class _MissingImages(LightningDataModule):
    """The images to extract features from; none if the entry exists."""

    def __init__(self, data: CraneDataModule, extraction: FeatureExtraction) -> None:
        super().__init__()
        self.data, self.extraction = data, extraction

    def predict_dataloader(self) -> list[ImageLoader]:
        self.data.trainer = self.trainer
        if not self.extraction.is_missing:
            return []
        return [self.data.image_loader(self.extraction.name, self.extraction.images)]


def _method_facts(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor of a method, if it has one; it decides the features too."""
    node = settings["method"].get("detector")
    return {} if node is None else {"detector": node}


def _in_words(settings: Mapping[str, Any], image_size: int) -> str:
    """The vision setting in a few words.

    >>> attention = {"correlation": {"of": ["q", "v"]}}
    >>> backbone, guide = {"model": {"architecture": "ViT-L-14-336"}}, {"features": None}
    >>> settings = {"backbone": backbone, "guide": guide, "attention": attention}
    >>> _in_words(settings, 518)
    'ViT-L-14-336, qq+vv, 518 px'
    """
    towers = [settings["backbone"]["model"], settings["guide"]["features"]]
    names = [_tower_name(tower) for tower in towers if tower is not None]
    stream = settings["attention"]
    if stream is not None:
        correlation = stream["correlation"] or {"_target_": "plain attention"}
        terms = "+".join(2 * term for term in correlation.get("of", ()))
        names.append(terms or str(correlation["_target_"]).rsplit(".", 1)[-1])
    return f"{', '.join(names)}, {image_size} px"


def _tower_name(tower: Mapping[str, Any]) -> str:
    name = tower.get("architecture", tower.get("entry"))
    if isinstance(name, Mapping):
        sizes = name["vision_cfg"]
        return f"ViT of {sizes['layers']} x {sizes['width']}"
    return str(name)


def _modules_named(settings: Mapping[str, Any]) -> list[Any]:
    """Modules of everything that builds the vision side, such as the user's own attention."""
    nodes = [settings[name] for name in ("backbone", "guide", "attention", "method")]
    found = []
    while nodes:
        node = nodes.pop()
        if isinstance(node, Mapping):
            if "_target_" in node:
                found.append(import_module(get_object(node["_target_"]).__module__))
            nodes.extend(node.values())
    return found
