"""The images of an index as tensors; training images may be 2 x 2 mosaics of one class."""

import logging
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from crane.data.images import (
    EXACT,
    image_to_tensor,
    resize_mask,
    upright_size,
)
from crane.data.index import Index
from crane.errors import UsageError
from crane.samples import ANOMALOUS, NORMAL, Sample, label_regions

logger = logging.getLogger(__name__)


Item = dict[str, Tensor]
"""A `Batch` or `TokenBatch` of one image, without its batch axis; `default_collate` joins them."""

Tokens = Callable[[str], tuple[Float[Tensor, " E"], Float[Tensor, "M h w E"]]]
"""Maps the name of an image (`Index.key`) to its global and local embeddings."""


@dataclass(frozen=True)
class OpenedImage:
    """An image and its mask at their own size."""

    image: Image.Image
    mask: Bool[np.ndarray, "H W"]
    """All false where not known."""
    has_mask: bool
    label: int

    def item(self, image_size: int, class_id: int, index: int, resizer: str = EXACT) -> Item:
        """Resize both and label the mask's regions; `resizer` is one of `RESIZERS`."""
        regions = _regions(self.mask, image_size)
        truth = _truth(regions, self.has_mask, self.label, class_id, index)
        return {"image": image_to_tensor(self.image, image_size, resizer), **truth}


class IndexDataset(Dataset[Item]):
    """The images of one index, in its order.

    Args:
        index: Which images.
        image_size: Side in pixels that images and masks are resized to.
        resizer: How images are resized, one of `RESIZERS`.
    """

    def __init__(self, index: Index, image_size: int, resizer: str = EXACT) -> None:
        self.index = index
        self.image_size = image_size
        self.resizer = resizer
        self.class_names = index.class_names
        self._class_ids = {name: i for i, name in enumerate(self.class_names)}
        self._has_masks = index.has_masks
        self._has_warned = False  # of an empty mask

    def __len__(self) -> int:
        return len(self.index.samples)

    @property
    def names(self) -> list[str]:
        """The names of its items, under which features are cached."""
        return [self.index.key(sample) for sample in self.index.samples]

    def __getitem__(self, position: int) -> Item:
        """One image; a `UsageError` names a file that cannot be used."""
        return self.item(position, self.class_id(position), position)

    def item(self, position: int, class_id: int, index: int) -> Item:
        """One image with the given `class_id` and `index`; errors as in `open`."""
        return self.open(position).item(self.image_size, class_id, index, self.resizer)

    def class_id(self, position: int) -> int:
        """The position of an image's class in `class_names`."""
        return self._class_ids[self.index.samples[position].class_name]

    def open(self, position: int) -> OpenedImage:
        """Read one image and its mask.

        Raises:
            UsageError: A file cannot be read, or image and mask differ in size.
        """
        sample = self.index.samples[position]
        image = self.index.read_image(sample)
        if sample.mask is None:
            empty: np.ndarray = np.zeros((image.height, image.width), dtype=bool)
            return OpenedImage(image, empty, self._is_known(sample), sample.label)
        mask = self._mask(sample, image.size)
        return OpenedImage(image, mask, True, sample.label)

    def _is_known(self, sample: Sample) -> bool:
        return sample.mask is not None or (self._has_masks and sample.label == NORMAL)

    def _mask(self, sample: Sample, image_size: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
        """Read a mask that must be as wide and as high as its image."""
        mask = self.index.read_mask(sample)
        if mask.shape[::-1] != image_size:
            is_turned = mask.shape == image_size
            way = "turn it like its image, which is read upright" if is_turned else "make it anew"
            raise UsageError(
                f"mask {sample.mask} is {mask.shape[1]} x {mask.shape[0]} pixels, but its image "
                f"{sample.image} {image_size[0]} x {image_size[1]}; {way}"
            )
        if sample.label == ANOMALOUS and not mask.any() and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "No pixel of %s exceeds mask_threshold %d, yet its image is labelled anomalous; "
                "crane data verify names all such masks",
                sample.mask,
                self.index.mask_threshold,
            )
        return mask


class TokenDataset(IndexDataset):
    """The images of one index as their cached features: masks are read, images are not decoded.

    Args:
        images: The data set.
        tokens: Its features.
    """

    def __init__(self, images: IndexDataset, tokens: Tokens) -> None:
        super().__init__(images.index, images.image_size, images.resizer)
        self.tokens = tokens

    def item(self, position: int, class_id: int, index: int) -> Item:
        """The features of one image; a `UsageError` names what cannot be used."""
        sample = self.index.samples[position]
        global_, patches = self.tokens(self.index.key(sample))
        regions = _no_regions(self.image_size)
        if sample.mask is not None:
            mask = self._mask(sample, upright_size(sample.image, sample.box))
            regions = _regions(mask, self.image_size)
        truth = _truth(regions, self._is_known(sample), sample.label, class_id, index)
        return {"global_": global_, "patches": patches, **truth}


class OwnSizeDataset(IndexDataset):
    """The images of one index at their own size, for views of them; batches hold one image.

    Items have `own`, the image's height and width; `native`, its RGB pixels (H, W, 3), unless
    features are cached; and the truth at `mask_size`.

    Args:
        images: The data set.
        mask_size: Side in pixels that masks are resized to; None keeps them at their own size.
        tokens: Features by an image's name and what is asked of it; None if none are cached.
    """

    def __init__(
        self, images: IndexDataset, mask_size: int | None, tokens: Callable[..., Any] | None = None
    ) -> None:
        super().__init__(images.index, images.image_size, images.resizer)
        self.mask_size, self.tokens = mask_size, tokens

    def item(self, position: int, class_id: int, index: int) -> Item:
        """One image, or what is left to know of it; errors as in `open`."""
        sample, pixels = self.index.samples[position], {}
        if self.tokens is None:
            opened = self.open(position)
            mask, has_mask = opened.mask, opened.has_mask
            pixels["native"] = torch.from_numpy(np.array(opened.image))
        else:
            width, height = upright_size(sample.image, sample.box)
            has_mask = self._is_known(sample)
            mask = np.zeros((height, width), dtype=bool)
            if sample.mask is not None:
                mask = self._mask(sample, (width, height))
        own = torch.tensor(mask.shape)
        regions = label_regions(mask) if self.mask_size is None else _regions(mask, self.mask_size)
        truth = _truth(regions, has_mask, sample.label, class_id, index)
        return {**pixels, "own": own, **truth}


class SourceDataset(Dataset[Item]):
    """Several indices as one data set, one after the other.

    If there are several, their names prefix their classes, as in `mvtec/bottle`.

    Args:
        indices: The data sets by name.
        image_size: Side in pixels.
        resizer: How images are resized, one of `RESIZERS`.
    """

    def __init__(self, indices: dict[str, Index], image_size: int, resizer: str = EXACT) -> None:
        self.image_size = image_size
        self.resizer = resizer
        self.parts = [IndexDataset(index, image_size, resizer) for index in indices.values()]
        named = zip(indices, self.parts, strict=True)
        self.class_names = tuple(
            f"{name}/{class_name}" if len(self.parts) > 1 else class_name
            for name, part in named
            for class_name in part.class_names
        )
        self._where = [(p, i) for p, part in enumerate(self.parts) for i in range(len(part))]
        self._first_class = [0, *accumulate(len(part.class_names) for part in self.parts)]
        self._first_image = [0, *accumulate(map(len, self.parts))]

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, position: int) -> Item:
        """One image; `index` and `class_id` count through all parts."""
        part, local = self._where[position]
        return self.parts[part].item(local, self.class_id(position), position)

    def class_id(self, position: int) -> int:
        """The position of an image's class in `class_names`."""
        part, local = self._where[position]
        return self._first_class[part] + self.parts[part].class_id(local)

    def label(self, position: int) -> int:
        """`NORMAL` or `ANOMALOUS`."""
        part, local = self._where[position]
        return self.parts[part].index.samples[local].label

    def position(self, part: int, local: int) -> int:
        """The position in the whole of an image of one part."""
        return self._first_image[part] + local

    def open(self, position: int) -> OpenedImage:
        """Read one image and its mask; errors as in `IndexDataset.open`."""
        part, local = self._where[position]
        return self.parts[part].open(local)


def _regions(mask: Bool[np.ndarray, "H W"], image_size: int) -> Int[np.ndarray, "S S"]:
    """Resize a mask and label its regions."""
    if not mask.any():  # most images are normal, and resizing takes time
        return _no_regions(image_size)
    return label_regions(resize_mask(mask, image_size, image_size))


def _no_regions(image_size: int) -> Int[np.ndarray, "S S"]:
    return np.zeros((image_size, image_size), dtype=np.int32)


def _truth(
    regions: Int[np.ndarray, "H W"], has_mask: bool, label: int, class_id: int, index: int
) -> Item:
    return {
        "mask": torch.from_numpy(regions),
        "has_mask": torch.tensor(has_mask),
        "label": torch.tensor(label),
        "class_id": torch.tensor(class_id),
        "index": torch.tensor(index),
    }


class Draw(NamedTuple):
    """A request of the training sampler; what is random depends on it, not on a worker's state."""

    epoch: int
    """From 0."""
    position: int
    """Position in the training images."""


class TrainingDataset(Dataset[Item]):
    """The images chosen for training.

    At `mosaic_rate` an image is replaced by a mosaic of its class (official `aug_rate`): four
    images drawn with replacement, all anomalous in a fraction `mosaic_anomalous_rate` of the
    mosaics, all normal in the others. The official code intends to draw the label of each tile, but
    draws it once per mosaic, and so does this. Tiles are resized to the size of the first.

    Args:
        source: All images of the source.
        positions: Those to train on.
        mosaic_rate: Fraction of draws replaced by mosaics.
        mosaic_anomalous_rate: Fraction of mosaics made of anomalous images.
        seed: Seed of the mosaics; one draw of one epoch always returns the same image.
    """

    def __init__(
        self,
        source: SourceDataset,
        positions: Sequence[int],
        *,
        mosaic_rate: float,
        mosaic_anomalous_rate: float,
        seed: int,
    ) -> None:
        self.source = source
        self.positions = tuple(positions)
        self.mosaic_rate = mosaic_rate
        self.mosaic_anomalous_rate = mosaic_anomalous_rate
        self.seed = seed
        self._tiles: dict[tuple[int, int], list[int]] = defaultdict(list)
        for position in self.positions:
            self._tiles[source.class_id(position), source.label(position)].append(position)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, draw: Draw | int) -> Item:
        """The image, or the mosaic in its place.

        `index` is the image's position in the source either way. A plain position counts as one of
        epoch 0, for samplers without epochs.
        """
        draw = draw if isinstance(draw, Draw) else Draw(0, draw)
        position = self.positions[draw.position]
        class_id = self.source.class_id(position)
        chance = random.Random(f"{self.seed}/{draw.epoch}/{position}")
        if chance.random() >= self.mosaic_rate:
            return self.source[position]
        opened = [self.source.open(tile) for tile in self._choose_tiles(class_id, chance)]
        return mosaic(opened).item(self.source.image_size, class_id, position, self.source.resizer)

    def _choose_tiles(self, class_id: int, chance: random.Random) -> list[int]:
        """Draw four positions of one class and label; of the other label if there are none."""
        is_anomalous = chance.random() < self.mosaic_anomalous_rate
        wanted, other = (ANOMALOUS, NORMAL) if is_anomalous else (NORMAL, ANOMALOUS)
        tiles = self._tiles.get((class_id, wanted)) or self._tiles[class_id, other]
        return [tiles[int(chance.random() * len(tiles))] for _ in range(4)]


def mosaic(tiles: Sequence[OpenedImage]) -> OpenedImage:
    """Join four images row by row: anomalous if any of them is, with a mask if all have one.

    Args:
        tiles: Four images; all are resized to the size of the first.

    Returns:
        An image twice as wide and twice as high as the first.
    """
    width, height = tiles[0].image.size
    image = Image.new("RGB", (2 * width, 2 * height))
    mask: np.ndarray = np.zeros((2 * height, 2 * width), dtype=bool)
    for number, tile in enumerate(tiles):
        top, left = height * (number // 2), width * (number % 2)
        fitted = tile.image.resize((width, height), Image.Resampling.BICUBIC)
        image.paste(fitted, (left, top))
        mask[top : top + height, left : left + width] = resize_mask(tile.mask, width, height)
    return OpenedImage(
        image, mask, all(t.has_mask for t in tiles), max(tile.label for tile in tiles)
    )
