"""The source to train on and the targets to test on, as loaders."""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from lightning import LightningDataModule
from torch.utils.data import Subset

from crane.checks import (
    Fraction,
    Ge,
    Interval,
    MultipleOf,
    NonNegativeInt,
    PositiveInt,
    Seed,
    checked,
)
from crane.data.dataset import (
    IndexDataset,
    OwnSizeDataset,
    SourceDataset,
    TokenDataset,
    TrainingDataset,
)
from crane.data.doubts import class_lines, examine
from crane.data.filenames import first_few
from crane.data.index import Index, few_shots, hold_out, portion_of
from crane.data.loader import (
    EpochSampler,
    ImageLoader,
    UnevenSampler,
    auto_num_workers,
    image_loader,
    world,
)
from crane.errors import UsageError, counted
from crane.processes import is_first
from crane.samples import ANOMALOUS, NORMAL

logger = logging.getLogger(__name__)

ON_HOST = ("has_mask", "class_id", "own", "native")
"""What of a batch the host decides by, or cuts crops from."""


@checked
class CraneDataModule(LightningDataModule):
    """One domain to train on, and any number of domains never seen in training to test on.

    Validation images come from the source, so that an epoch is chosen without looking at a target.
    They are held out first; `k_shot` and `portion` then choose from the rest.

    Args:
        source: Data sets trained on together, by name; None or empty if nothing is trained.
        targets: Data sets to test on, by name, in the order of `test_dataloader`.
        image_size: Side in pixels of images and masks.
        batch_size: Training images per step and process.
        test_batch_size: Validation and test images per batch and process.
        num_workers: Worker processes per loader, or "auto".
        seed: Seed of held-out images, shots, portions, training order and mosaics.
        validation_fraction: Fraction of each class and label of the source to hold out.
        k_shot: Images per class to train on, half of them anomalous; 0 for all.
        portion: Fraction of each class and label to train on; excludes `k_shot`.
        mosaic_rate: Fraction of training images replaced by mosaics (see `TrainingDataset`).
        mosaic_anomalous_rate: Fraction of mosaics made of anomalous images.
        drop_last: Whether to leave out a last, smaller training batch.
        resizer: How images are resized (see `RESIZERS`).
        strict: Whether to refuse a data set whose numbers of images differ from those behind the
            published results; otherwise a warning says so.

    Raises:
        UsageError: A value is out of range, both `k_shot` and `portion` are set, or, with
            `strict`, a data set is not the published one.
    """

    def __init__(
        self,
        source: Mapping[str, Index] | None,
        targets: Mapping[str, Index],
        *,
        image_size: PositiveInt,
        batch_size: PositiveInt,
        test_batch_size: PositiveInt,
        num_workers: NonNegativeInt | Literal["auto"],
        seed: Seed,
        validation_fraction: Annotated[float, Interval(ge=0, lt=1.0)],
        k_shot: Annotated[int, Ge(0), MultipleOf(2)],
        portion: Annotated[float, Interval(gt=0, le=1)],
        mosaic_rate: Fraction,
        mosaic_anomalous_rate: Fraction,
        drop_last: bool,
        resizer: Literal["pil", "pil_bilinear", "torch"],
        strict: bool,
    ) -> None:
        super().__init__()
        # A process may get no image of a small target.
        self.allow_zero_length_dataloader_with_multiple_devices = True
        if k_shot and portion != 1:
            raise UsageError(
                f"k_shot {k_shot} and portion {portion} exclude each other; set only one",
                key="data.k_shot or data.portion",
            )
        for index in [*(source or {}).values(), *targets.values()]:
            _check_counts(index, strict)
        self.source = dict(source or {})
        self.targets = dict(targets)
        self.batch_size = batch_size
        self.test_batch_size = test_batch_size
        self.num_workers = num_workers
        self.seed = seed
        self.drop_last = drop_last
        self._source_images = SourceDataset(self.source, image_size, resizer)
        chosen, held = self._choose(validation_fraction, k_shot, portion)
        self._training = TrainingDataset(
            self._source_images,
            chosen,
            mosaic_rate=mosaic_rate,
            mosaic_anomalous_rate=mosaic_anomalous_rate,
            seed=seed,
        )
        self._validation = Subset(self._source_images, held)
        self._tests: list[IndexDataset] = [
            IndexDataset(i, image_size, resizer) for i in self.targets.values()
        ]
        self._warn_of_shared_images()

    @property
    def source_class_names(self) -> tuple[str, ...]:
        """What `class_id` means in training and validation batches."""
        return self._source_images.class_names

    @property
    def has_masks(self) -> bool:
        """Whether any image of the source has a mask; without masks there is no local loss."""
        return any(index.has_masks for index in self.source.values())

    @property
    def num_train(self) -> int:
        """Number of images to train on."""
        return len(self._training)

    @property
    def num_validation(self) -> int:
        """Number of images of the source that are held out."""
        return len(self._validation)

    def fingerprints(self) -> dict[str, str]:
        """Map `source.NAME` and `targets.NAME` to the fingerprints of the data sets."""
        return {name: images.index.fingerprint() for name, images in self.image_sets().items()}

    def image_sets(self) -> dict[str, IndexDataset]:
        """Map `source.NAME` and `targets.NAME` to all images of each data set."""
        return {
            f"{group}.{name}": images
            for group in ("source", "targets")
            for name, images in zip(*self._group(group), strict=True)
        }

    def explain(self) -> None:
        """Log a line for each class, and a warning for what is doubtful about masks and images.

        A line says what counts as normal and as anomalous, and where the masks come from.
        """
        if not is_first():
            return
        for group, indices in (("source", self.source), ("targets", self.targets)):
            for name, index in indices.items():
                for line in class_lines(index):
                    logger.info("%s %s: %s", group, name, line)
                for text in examine(index, f"{group}.{name}."):
                    logger.warning("%s %s: %s", group, name, text)

    def check_shares(self, num_processes: int) -> None:
        """Check that every process gets an image of each loop, which Lightning needs.

        Args:
            num_processes: Number of processes of the run.

        Raises:
            UsageError: There are fewer held-out images than processes, or fewer images in every
                target: Lightning skips the loop in processes without any.
        """
        largest = max((len(images) for images in self._tests), default=num_processes)
        for what, number in (("in the largest target", largest), ("held out", self.num_validation)):
            if 0 < number < num_processes:
                raise UsageError(
                    f"{num_processes} processes need an image each, but "
                    f"{counted(number, 'is', 'are')} {what}; use fewer trainer.devices",
                    key="trainer.devices",
                )

    def image_loader(self, name: str, images: IndexDataset) -> ImageLoader:
        """A loader over all images of a data set, in its order, each going to one process.

        Batches are as large as in training or testing, since the last bits of features depend on
        the batch size.

        Args:
            name: A key of `image_sets`.
            images: The data set.
        """
        size = self.batch_size if name.startswith("source.") else self.test_batch_size
        return self._test_loader(images, is_kept=False, batch_size=size)

    def use_own_size(self, mask_size: int | None) -> None:
        """From now on, load the images of targets at their own size, one in each batch.

        Args:
            mask_size: Side in pixels of masks; None keeps them at their own size.
        """
        self._tests = [OwnSizeDataset(images, mask_size) for images in self._tests]

    def target(self, number: int) -> IndexDataset:
        """The images of a target, in the order of `test_dataloader`."""
        return self._tests[number]

    def use_tokens(self, name: str, tokens: Any) -> None:
        """From now on, load cached features in place of a data set's images.

        Mosaics still need images, so the caller makes sure that there are none.

        Args:
            name: A key of `image_sets`.
            tokens: Its features: `Tokens`, or as `OwnSizeDataset` takes them.
        """
        group, _, own_name = name.partition(".")
        names, sets = self._group(group)
        number = names.index(own_name)
        images = sets[number]
        if isinstance(images, OwnSizeDataset):
            sets[number] = OwnSizeDataset(images, images.mask_size, tokens)
        else:
            sets[number] = TokenDataset(images, tokens)

    def transfer_batch_to_device(
        self, batch: dict[str, Any], device: torch.device, dataloader_idx: int
    ) -> dict[str, Any]:
        """Move a batch; what the host decides by stays there, so that it waits for no GPU."""
        kept = {name: batch.pop(name) for name in ON_HOST if name in batch}
        return super().transfer_batch_to_device(batch, device, dataloader_idx) | kept

    def train_dataloader(self) -> ImageLoader:
        """Training batches, in an order fixed by (seed, epoch); can resume in mid-epoch.

        Raises:
            UsageError: There is no source, or `drop_last` is set and there are fewer images than
                a batch.
        """
        if not self.source:
            raise UsageError("no data set to train on; set source=[NAME]", key="source")
        num_replicas, rank = self._world()
        sampler = EpochSampler(self._training, num_replicas, rank, self.seed)
        if self.drop_last and len(sampler) < self.batch_size:
            are = ("training image per process is", "training images per process are")
            raise UsageError(
                f"{counted(len(sampler), *are)} less than one batch of {self.batch_size}; "
                "change data.batch_size or data.drop_last",
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
        """One loader per target; each image goes to exactly one process.

        Raises:
            UsageError: There is no target.
        """
        if not self.targets:
            raise UsageError("no data set to test on; set targets=[NAME]", key="targets")
        return [
            self._test_loader(
                images,
                is_kept=False,
                batch_size=1 if isinstance(images, OwnSizeDataset) else None,
            )
            for images in self._tests
        ]

    def _test_loader(
        self, images: IndexDataset | Subset, *, is_kept: bool, batch_size: int | None = None
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

    def _choose(
        self, validation_fraction: float, k_shot: int, portion: float
    ) -> tuple[list[int], list[int]]:
        """Positions in the whole source to train on and to validate on."""
        all_chosen, all_held = [], []
        for part, index in enumerate(self.source.values()):
            chosen, held = hold_out(index, validation_fraction, self.seed)
            if k_shot:
                chosen = few_shots(index, chosen, k_shot, self.seed)
            chosen = portion_of(index, chosen, portion, self.seed)
            all_chosen += [self._source_images.position(part, local) for local in chosen]
            all_held += [self._source_images.position(part, local) for local in held]
        return all_chosen, all_held

    def check_labels(self) -> None:
        """Check that there are images of both labels to train on; one alone teaches nothing.

        Raises:
            UsageError: All images have one label; says how many there are of each data set.
        """
        chosen = self._training.positions
        labels = Counter(self._source_images.label(position) for position in chosen)
        if len(labels) < 2:
            counts = "; ".join(
                f"{name} has {index.num_normal} normal and {index.num_anomalous} anomalous images"
                for name, index in self.source.items()
            )
            raise UsageError(
                f"training needs normal and anomalous images, but uses {labels[NORMAL]} normal and "
                f"{labels[ANOMALOUS]} anomalous ones ({counts}); choose another source, split or "
                "portion, or name what is normal (source.folder.normal)",
                key="source",
            )

    def _group(self, group: str) -> tuple[list[str], list[IndexDataset]]:
        """Names and images of the source's data sets, or of the targets."""
        if group == "source":
            return list(self.source), self._source_images.parts
        return list(self.targets), self._tests

    def _world(self) -> tuple[int, int]:
        if self.trainer is None:
            return world()
        return self.trainer.world_size, self.trainer.global_rank

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
                    "%d of %d images of target %s are also in the source: not a zero-shot test",
                    num_shared,
                    len(index.samples),
                    name,
                )


def _check_counts(index: Index, strict: bool) -> None:
    """Refuse, or warn of, a data set that is not the published one."""
    if index.mismatches and strict:
        raise UsageError(
            f"{index.name} is not the data set behind the published results: "
            f"{first_few(index.mismatches, limit=3)}; see crane data verify {index.name}, or set "
            "data.strict=false to use it all the same",
            key="data.strict",
        )
    for mismatch in index.mismatches:
        logger.warning("%s is not the published data set: %s", index.name, mismatch)
