"""The source that trains and the targets that test, as loaders."""

import logging
from collections.abc import Mapping

from lightning import LightningDataModule
from torch.utils.data import Subset

from crane.data.dataset import ImageDataset, SourceDataset, TokenDataset, Tokens
from crane.data.files import shown
from crane.data.images import RESIZERS
from crane.data.index import Index
from crane.data.loader import ImageLoader, auto_num_workers, image_loader
from crane.data.mosaics import TrainingDataset
from crane.data.samplers import EpochSampler, UnevenSampler, world
from crane.data.selection import few_shots, hold_out, portion_of
from crane.errors import UsageError

logger = logging.getLogger(__name__)


class CraneDataModule(LightningDataModule):
    """One domain to train on, any number never seen in training to test on.

    Validation images come from the source, so that an epoch is chosen without looking at a target.
    They are held out first; `k_shot` and `portion` then choose from the rest.

    Args:
        source: data sets trained on together, by name; None or empty where nothing is trained.
        targets: data sets to test on, by name.
        image_size: side in pixels of images and masks.
        batch_size: training images a step and process.
        test_batch_size: validation and test images a batch and process.
        num_workers: worker processes a loader, or "auto".
        seed: of held-out images, shots, portions, training order and mosaics.
        validation_fraction: share of each class and label of the source held out, in [0, 1).
        k_shot: images a class to train on, half of them anomalous; 0 for all.
        portion: share of each class and label to train on, in (0, 1].
        mosaic_rate: share of training images replaced by 2 x 2 mosaics (see `TrainingDataset`).
        mosaic_anomalous_rate: share of mosaics made of anomalous images.
        drop_last: whether a last, smaller training batch is left out.
        resizer: how images are resized, one of `RESIZERS`.
        strict: whether a data set whose numbers of images are not those behind the published
            results is refused; if not, a warning says so.

    Raises:
        UsageError: if a value is out of its range, both `k_shot` and `portion` are set, or, with
            `strict`, a data set is not the published one.
    """

    def __init__(
        self,
        source: Mapping[str, Index] | None,
        targets: Mapping[str, Index],
        *,
        image_size: int,
        batch_size: int,
        test_batch_size: int,
        num_workers: int | str,
        seed: int,
        validation_fraction: float,
        k_shot: int,
        portion: float,
        mosaic_rate: float,
        mosaic_anomalous_rate: float,
        drop_last: bool,
        resizer: str,
        strict: bool,
    ) -> None:
        super().__init__()
        # Of a small target a process may get no image.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        _check_positive(
            image_size=image_size, batch_size=batch_size, test_batch_size=test_batch_size
        )
        _check_shares(mosaic_rate=mosaic_rate, mosaic_anomalous_rate=mosaic_anomalous_rate)
        _check_num_workers(num_workers)
        _check_choice(validation_fraction, k_shot, portion)
        if resizer not in RESIZERS:
            raise UsageError(f"one of {', '.join(RESIZERS)}", resizer, key="data.resizer")
        for index in [*(source or {}).values(), *targets.values()]:
            _check_counts(index, strict)
        self.source = dict(source or {})
        self.targets = dict(targets)
        self.batch_size = batch_size
        self.test_batch_size = test_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.drop_last = drop_last
        chosen = [
            _choose(index, validation_fraction, k_shot, portion, seed)
            for index in self.source.values()
        ]
        self._source_images = SourceDataset(self.source, image_size, resizer)
        self._training = TrainingDataset(
            self._source_images,
            _joined(self._source_images, [training for training, _ in chosen]),
            mosaic_rate=mosaic_rate,
            mosaic_anomalous_rate=mosaic_anomalous_rate,
            seed=seed,
        )
        held = _joined(self._source_images, [held for _, held in chosen])
        self._validation = Subset(self._source_images, held)
        self._tests = [ImageDataset(i, image_size, resizer) for i in self.targets.values()]
        self._warn_of_shared_images()

    @property
    def target_names(self) -> tuple[str, ...]:
        """The targets in the order of `test_dataloader`."""
        return tuple(self.targets)

    @property
    def source_class_names(self) -> tuple[str, ...]:
        """What `class_id` means in training and validation batches."""
        return self._source_images.class_names

    @property
    def has_masks(self) -> bool:
        """Whether any image of the source has a mask; without, there is no local loss."""
        return any(index.has_masks for index in self.source.values())

    @property
    def num_train(self) -> int:
        """Images trained on."""
        return len(self._training)

    @property
    def num_validation(self) -> int:
        """Images of the source held out."""
        return len(self._validation)

    def fingerprints(self) -> dict[str, str]:
        """Map `source.NAME` and `targets.NAME` to what identifies the data of a run."""
        groups = {"source": self.source, "targets": self.targets}
        return {
            f"{group}.{name}": index.fingerprint()
            for group, indices in groups.items()
            for name, index in indices.items()
        }

    def image_sets(self) -> dict[str, ImageDataset]:
        """Map `source.NAME` and `targets.NAME` to all images of each data set."""
        return {
            f"{group}.{name}": images
            for group in ("source", "targets")
            for name, images in zip(*self._group(group), strict=True)
        }

    def check_shares(self, num_processes: int) -> None:
        """See that every process has something to do, where there is anything to do.

        Args:
            num_processes: Of the run.

        Raises:
            UsageError: There are fewer held-out images than processes, or fewer images in every
                target: Lightning passes over the loop in those that have none.
        """
        largest = max((len(images) for images in self._tests), default=num_processes)
        for what, number in (("of a target", largest), ("held out", self.num_validation)):
            if 0 < number < num_processes:
                raise UsageError(
                    f"at least {num_processes} images {what}, one a process",
                    number,
                    key="trainer.devices",
                )

    def image_loader(self, name: str) -> ImageLoader:
        """A loader over all images of a data set, in its order, each going to one process.

        Batches are as large as those that the data set is trained or tested with: the last bits of
        what a tower computes depend on that.

        Args:
            name: A key of `image_sets`.
        """
        size = self.batch_size if name.startswith("source.") else self.test_batch_size
        return self._test_loader(self.image_sets()[name], is_kept=False, batch_size=size)

    def use_tokens(self, name: str, tokens: Tokens) -> None:
        """Load cached features from now on where a data set's images would be.

        Mosaics are still made of images: see that there are none.

        Args:
            name: A key of `image_sets`.
            tokens: Its features.
        """
        group, _, own_name = name.partition(".")
        names, sets = self._group(group)
        number = names.index(own_name)
        sets[number] = TokenDataset(sets[number], tokens)

    def train_dataloader(self) -> ImageLoader:
        """Training batches, in an order fixed by (seed, epoch); can continue in mid-epoch.

        Raises:
            UsageError: without a source, or if there are fewer images than a batch and
                `drop_last` is set.
        """
        if not self.source:
            raise UsageError("a data set to train on", "none", key="dataset@source")
        num_replicas, rank = self._world()
        sampler = EpochSampler(self._training, num_replicas, rank, self.seed)
        if self.drop_last and len(sampler) < self.batch_size:
            raise UsageError(
                f"at least {self.batch_size} training images a process, as drop_last is on",
                len(sampler),
                key="data.batch_size or data.drop_last",
            )
        return image_loader(
            self._training,
            sampler,
            batch_size=self.batch_size,
            num_workers=self._num_workers(),
            seed=self.seed,
            drop_last=self.drop_last,
            is_kept=True,
        )

    def val_dataloader(self) -> list[ImageLoader]:
        """One loader over the held-out images of all sources; an empty list if there are none."""
        return [self._test_loader(self._validation, is_kept=True)] if self.num_validation else []

    def test_dataloader(self) -> list[ImageLoader]:
        """One loader a target; each image goes to exactly one process.

        Raises:
            UsageError: without a target.
        """
        if not self.targets:
            raise UsageError("at least one data set to test on", "none", key="dataset@targets")
        return [self._test_loader(images, is_kept=False) for images in self._tests]

    def _test_loader(
        self, images: ImageDataset | Subset, *, is_kept: bool, batch_size: int | None = None
    ) -> ImageLoader:
        return image_loader(
            images,
            UnevenSampler(len(images), *self._world()),
            batch_size=batch_size or self.test_batch_size,
            num_workers=self._num_workers(),
            seed=self.seed,
            drop_last=False,
            is_kept=is_kept,
        )

    def _group(self, group: str) -> tuple[list[str], list[ImageDataset]]:
        """Names and images of the source's data sets, or of the targets."""
        if group == "source":
            return list(self.source), self._source_images.parts
        return list(self.targets), self._tests

    def _world(self) -> tuple[int, int]:
        if self.trainer is None:
            return world(None, None)
        return world(self.trainer.world_size, self.trainer.global_rank)

    def _num_workers(self) -> int:
        if isinstance(self.num_workers, int):
            return self.num_workers
        return auto_num_workers(1 if self.trainer is None else max(1, self.trainer.num_devices))

    def _warn_of_shared_images(self) -> None:
        sources = [s for index in self.source.values() for s in index.samples]
        seen = {(s.image.resolve(), s.box) for s in sources}
        for name, index in self.targets.items():
            num_shared = sum((s.image.resolve(), s.box) in seen for s in index.samples)
            if num_shared:
                logger.warning(
                    "%d of %d images of target %s are the source's too: not a zero-shot test",
                    num_shared,
                    len(index.samples),
                    name,
                )


def _choose(
    index: Index, validation_fraction: float, k_shot: int, portion: float, seed: int
) -> tuple[list[int], list[int]]:
    """Positions to train on and to validate on."""
    training, held = hold_out(index, validation_fraction, seed)
    if k_shot:
        training = few_shots(index, training, k_shot, seed)
    return portion_of(index, training, portion, seed), held


def _check_counts(index: Index, strict: bool) -> None:
    """Refuse, or warn of, a data set that is not the published one."""
    if index.mismatches and strict:
        raise UsageError(
            f"{index.name} with the images behind the published results",
            shown(index.mismatches, limit=3),
            key="data.strict",
            hint=f"`crane data verify {index.name}` says more; data.strict=false runs all the same",
        )
    for mismatch in index.mismatches:
        logger.warning("%s is not the published data set: %s", index.name, mismatch)


def _check_choice(validation_fraction: float, k_shot: int, portion: float) -> None:
    if not 0 <= validation_fraction < 1:
        raise UsageError("a share in [0, 1)", validation_fraction, key="data.validation_fraction")
    if not 0 < portion <= 1:
        raise UsageError("a share in (0, 1]", portion, key="data.portion")
    if k_shot and portion != 1:
        raise UsageError(
            "either k_shot or portion", f"{k_shot} and {portion}", key="data.k_shot or data.portion"
        )


def _joined(images: SourceDataset, positions: list[list[int]]) -> list[int]:
    """Positions in each part as positions in the whole."""
    return [images.position(part, i) for part, local in enumerate(positions) for i in local]


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise UsageError("a whole number of at least 1", value, key=f"data.{name}")


def _check_shares(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value <= 1:
            raise UsageError("a share in [0, 1]", value, key=f"data.{name}")


def _check_num_workers(value: int | str) -> None:
    if value != "auto" and not (isinstance(value, int) and value >= 0):
        raise UsageError("a number of workers or auto", value, key="data.num_workers")
