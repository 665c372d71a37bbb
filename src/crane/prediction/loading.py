"""Images of any size and kind as batches of one size, read ahead by workers."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crane.data.images import image_to_tensor, read_rgb
from crane.errors import UsageError
from crane.prediction.inputs import ImageFile


@dataclass(frozen=True)
class LoadOptions:
    """How images are read.

    Raises:
        UsageError: for a size, batch or worker count that cannot be, or an unknown `on_error`.
    """

    image_size: int
    """Side of the square that images are resized to, in pixels."""
    batch_size: int
    """Images in a forward pass."""
    num_workers: int
    """Processes that read ahead; 0 reads in this process."""
    on_error: str
    """`skip` reports what cannot be read and goes on, `fail` stops there."""

    def __post_init__(self) -> None:
        for key, least in (("image_size", 1), ("batch_size", 1), ("num_workers", 0)):
            if getattr(self, key) < least:
                raise UsageError(f"{key} of at least {least}", getattr(self, key), key=key)
        if self.on_error not in ("skip", "fail"):
            raise UsageError("skip or fail", self.on_error, key="on_error")


class Loaded(NamedTuple):
    """An image that could be read."""

    file: ImageFile
    """Which it is."""
    height: int
    """Its own height in pixels, after the rotation its EXIF data ask for."""
    width: int
    """Its own width."""
    image: Float[Tensor, "3 S S"]
    """RGB in [0, 1] at the model's size."""


class Unreadable(NamedTuple):
    """An image that could not be read."""

    file: ImageFile
    """Which it is."""
    reason: str
    """What happened."""


class Chunk(NamedTuple):
    """A batch, less what could not be read."""

    images: Float[Tensor, "B 3 S S"]
    """The images that could be read."""
    loaded: list[tuple[ImageFile, int, int]]
    """(file, height, width) of each of them."""
    unreadable: list[Unreadable]
    """The others."""


class ImageDataset(Dataset[Loaded | Unreadable]):
    """Images, opened when asked for by name; one that cannot be read is an item too."""

    def __init__(self, image_size: int) -> None:
        self.image_size = image_size

    def __getitem__(self, file: ImageFile) -> Loaded | Unreadable:
        try:
            image = read_rgb(file.path)
        except UsageError as error:
            return Unreadable(file, str(error))
        return Loaded(file, image.height, image.width, image_to_tensor(image, self.image_size))


def load(
    batches: Iterable[Sequence[ImageFile]], options: LoadOptions, *, pin_memory: bool
) -> Iterator[Chunk]:
    """Read batches of images in their order.

    Memory does not grow with their number: names are drawn from `batches` as workers are free.

    Args:
        batches: which images are read together.
        options: how they are read.
        pin_memory: whether batches are put where a GPU can fetch them by itself.
    """
    loader: DataLoader[Loaded | Unreadable] = DataLoader(
        ImageDataset(options.image_size),
        batch_sampler=batches,  # type: ignore[arg-type]  # names in the place of numbers
        num_workers=options.num_workers,
        collate_fn=_Collate(options.image_size),
        pin_memory=pin_memory,
    )
    yield from loader


class _Collate:
    def __init__(self, image_size: int) -> None:
        self.empty = torch.empty(0, 3, image_size, image_size)

    def __call__(self, items: Sequence[Loaded | Unreadable]) -> Chunk:
        loaded = [item for item in items if isinstance(item, Loaded)]
        return Chunk(
            images=torch.stack([item.image for item in loaded]) if loaded else self.empty,
            loaded=[(item.file, item.height, item.width) for item in loaded],
            unreadable=[item for item in items if isinstance(item, Unreadable)],
        )
