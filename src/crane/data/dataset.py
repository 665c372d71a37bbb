"""An index's images as tensors."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from crane.data.images import EXACT, image_to_tensor, read_mask, read_rgb, resize_mask
from crane.data.index import Index
from crane.data.regions import label_regions
from crane.errors import UsageError
from crane.types import ANOMALOUS, NORMAL

logger = logging.getLogger(__name__)


class ImageItem(TypedDict):
    """A `Batch` of one without its batch axis; `default_collate` makes batches of these."""

    image: Float[Tensor, "3 H W"]
    """RGB in [0, 1]."""
    mask: Int[Tensor, "H W"]
    """0 where normal, r > 0 on the r-th 8-connected anomalous region (int32)."""
    has_mask: Bool[Tensor, ""]
    """Whether `mask` is known."""
    label: Int[Tensor, ""]
    """`NORMAL` or `ANOMALOUS` (int64)."""
    class_id: Int[Tensor, ""]
    """Position in `class_names` (int64)."""
    index: Int[Tensor, ""]
    """Position in the data set (int64)."""


@dataclass(frozen=True)
class OpenedImage:
    """An image and its mask at their own size."""

    image: Image.Image
    mask: Bool[np.ndarray, "H W"]
    """All false where not known."""
    has_mask: bool
    label: int

    def item(self, image_size: int, class_id: int, index: int, resizer: str = EXACT) -> ImageItem:
        """Resize both and label the mask's regions; `resizer` is of the image (`RESIZERS`)."""
        mask = resize_mask(self.mask, image_size, image_size)
        return {
            "image": image_to_tensor(self.image, image_size, resizer),
            "mask": torch.from_numpy(label_regions(mask)),
            "has_mask": torch.tensor(self.has_mask),
            "label": torch.tensor(self.label),
            "class_id": torch.tensor(class_id),
            "index": torch.tensor(index),
        }


class ImageDataset(Dataset[ImageItem]):
    """The images of one index, in its order.

    Args:
        index: which images.
        image_size: side in pixels both images and masks are resized to.
        resizer: how images are resized, one of `RESIZERS`.
    """

    def __init__(self, index: Index, image_size: int, resizer: str = EXACT) -> None:
        self.index = index
        self.image_size = image_size
        self.resizer = resizer
        self.class_names = index.class_names
        self._class_ids = {name: i for i, name in enumerate(self.class_names)}
        self._has_masks = index.has_masks

    def __len__(self) -> int:
        return len(self.index.samples)

    def __getitem__(self, position: int) -> ImageItem:
        """One image; a `UsageError` names a file that cannot be used."""
        class_id = self.class_id(position)
        return self.open(position).item(self.image_size, class_id, position, self.resizer)

    def class_id(self, position: int) -> int:
        """Return the position of an image's class in `class_names`."""
        return self._class_ids[self.index.samples[position].class_name]

    def open(self, position: int) -> OpenedImage:
        """Read one image and its mask.

        Raises:
            UsageError: if a file cannot be read, or image and mask differ in size.
        """
        sample = self.index.samples[position]
        image = read_rgb(sample.image, sample.box)
        if sample.mask is None:
            empty: np.ndarray = np.zeros((image.height, image.width), dtype=bool)
            known = self._has_masks and sample.label == NORMAL
            return OpenedImage(image, empty, known, sample.label)
        mask = read_mask(sample.mask, self.index.mask_threshold, sample.box)
        if mask.shape != (image.height, image.width):
            raise UsageError(
                f"a mask as large as its image {sample.image}, {image.width} x {image.height}",
                f"{mask.shape[1]} x {mask.shape[0]} in {sample.mask}",
                hint="images are turned upright by their EXIF orientation; masks must fit that",
            )
        if sample.label == ANOMALOUS and not mask.any():
            logger.warning(
                "No pixel of %s exceeds mask_threshold %d, yet its image is labelled anomalous",
                sample.mask,
                self.index.mask_threshold,
            )
        return OpenedImage(image, mask, True, sample.label)


class SourceDataset(Dataset[ImageItem]):
    """Several indices as one data set, end to end.

    Classes of several data sets are told apart by the data set's name, `mvtec/bottle`; those of a
    single one keep their names.

    Args:
        indices: the data sets by the names their classes are to bear.
        image_size: side in pixels.
        resizer: how images are resized, one of `RESIZERS`.
    """

    def __init__(self, indices: dict[str, Index], image_size: int, resizer: str = EXACT) -> None:
        self.image_size = image_size
        self.resizer = resizer
        self.parts = [ImageDataset(index, image_size, resizer) for index in indices.values()]
        named = zip(indices, self.parts, strict=True)
        self.class_names = tuple(
            f"{name}/{class_name}" if len(self.parts) > 1 else class_name
            for name, part in named
            for class_name in part.class_names
        )
        self._where = [(p, i) for p, part in enumerate(self.parts) for i in range(len(part))]
        self._first_class = _starts([len(part.class_names) for part in self.parts])
        self._first_image = _starts([len(part) for part in self.parts])

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, position: int) -> ImageItem:
        """One image; `index` and `class_id` count through all the parts."""
        opened, class_id = self.open(position), self.class_id(position)
        return opened.item(self.image_size, class_id, position, self.resizer)

    def class_id(self, position: int) -> int:
        """Return the position of an image's class in `class_names`."""
        part, local = self._where[position]
        return self._first_class[part] + self.parts[part].class_id(local)

    def label(self, position: int) -> int:
        """Return `NORMAL` or `ANOMALOUS`."""
        part, local = self._where[position]
        return self.parts[part].index.samples[local].label

    def position(self, part: int, local: int) -> int:
        """Return the position here of an image of one part."""
        return self._first_image[part] + local

    def open(self, position: int) -> OpenedImage:
        """Read one image and its mask; errors as in `ImageDataset.open`."""
        part, local = self._where[position]
        return self.parts[part].open(local)


def _starts(lengths: Sequence[int]) -> list[int]:
    return [sum(lengths[:i]) for i in range(len(lengths))]
