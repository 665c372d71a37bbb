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
from crane.types import ANOMALOUS, NORMAL


class Draw(NamedTuple):
    """What the training sampler asks for: chance depends on this alone, not on a worker's state."""

    epoch: int
    """From 0."""
    position: int
    """In the training images."""


class TrainingDataset(Dataset[Item]):
    """The images chosen for training.

    At `mosaic_rate` an image gives way to a mosaic of its class (official `aug_rate`): four images,
    drawn with replacement, all anomalous in `mosaic_anomalous_rate` of the mosaics and all normal
    in the others. The official code means to draw each tile's label and draws it once a mosaic;
    this follows what it does. Tiles take the size of the first.

    Args:
        source: all the source's images.
        positions: those to train on.
        mosaic_rate: share of draws that become mosaics, in [0, 1].
        mosaic_anomalous_rate: share of mosaics made of anomalous tiles, in [0, 1].
        seed: of the mosaics; one draw of one epoch always gives the same image.
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
        """Return the image, or the mosaic in its place.

        `index` is the image's position in the source either way. A plain position is one of epoch
        0, for samplers that know of no epochs.
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
        """Draw four positions of one class and label; the other label where a class lacks one."""
        is_anomalous = chance.random() < self.mosaic_anomalous_rate
        wanted, other = (ANOMALOUS, NORMAL) if is_anomalous else (NORMAL, ANOMALOUS)
        tiles = self._tiles.get((class_id, wanted)) or self._tiles[class_id, other]
        return [tiles[int(chance.random() * len(tiles))] for _ in range(4)]


def mosaic(tiles: Sequence[OpenedImage]) -> OpenedImage:
    """Join four images row by row: anomalous if any of them is, mask known if all are.

    Args:
        tiles: four images; those of another size than the first are resized to it.

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
