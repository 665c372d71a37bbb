"""Training images, some of them replaced by 2 x 2 mosaics of one class's images."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from crane.data.dataset import Item, OpenedImage, SourceDataset
from crane.data.images import resize_mask
from crane.samples import ANOMALOUS, NORMAL


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
