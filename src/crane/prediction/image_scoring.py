"""From image files to scores and maps: reading in the background, one copy each way per batch."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from crane.checks import NonNegativeInt, PositiveInt, checked
from crane.data.images import EXACT, image_to_tensor, read_rgb
from crane.data.index import WhiteLevel
from crane.data.loader import auto_num_workers
from crane.errors import UsageError
from crane.processes import local_rank
from crane.types import HostCopy, Prediction

Detector = Callable[[Tensor], Prediction]
"""A model in evaluation mode on its device: `ReadBatch.pixels` to scores and maps."""

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What the model computes in, under Lightning's names."""


def find_device(accelerator: str) -> torch.device:
    """The device of an accelerator; of several GPUs, each process of a machine takes its own.

    Args:
        accelerator: `auto`, `cpu`, `gpu` (or `cuda`) or `mps`.

    Raises:
        UsageError: This machine has no such accelerator.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    number = local_rank() % torch.cuda.device_count() if cuda else 0
    devices = {"gpu": f"cuda:{number}", "cuda": f"cuda:{number}"} if cuda else {}
    devices |= {"mps": "mps"} if mps else {}
    devices |= {"cpu": "cpu"}
    devices["auto"] = next(iter(devices.values()))
    if accelerator not in devices:
        raise UsageError(
            f"this machine has no accelerator {accelerator}; choose one of {', '.join(devices)}",
            key="accelerator",
        )
    return torch.device(devices[accelerator])


@checked
@dataclass(frozen=True)
class DetectorOptions:
    """Where and how a model runs.

    Raises:
        UsageError: A value is out of range, or the device does not have the precision.
    """

    device: torch.device
    """Where it runs."""
    precision: Precision
    """What it computes in."""
    compile: str | bool
    """A mode of `compile_towers`, or none."""

    def __post_init__(self) -> None:
        if self.precision == "16-mixed" and self.device.type == "cpu":
            raise UsageError(
                "precision=16-mixed needs a GPU; use 32-true or bf16-mixed on a CPU",
                key="precision",
            )

    def autocast(self) -> torch.autocast:
        """A context in which the model computes in this precision."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)


@checked
@dataclass(frozen=True)
class LoadOptions:
    """How images are read.

    Raises:
        UsageError: A value is out of range.
    """

    image_size: PositiveInt | None
    """Side S of the square that images are resized to, in pixels; None keeps their own size, and a
    batch then holds one image."""
    batch_size: PositiveInt
    """Images in a forward pass."""
    num_workers: NonNegativeInt | Literal["auto"]
    """Processes that read ahead; 0 reads in this process, `auto` follows the number of cores."""
    on_error: Literal["skip", "fail"]
    """`skip` reports images that cannot be read, `fail` stops at the first of them."""
    white_level: WhiteLevel = None
    """The value of 16-bit images that is white."""
    resizer: str = EXACT
    """How they are resized: one of `crane.data.images.RESIZERS`."""


class ImageScore(NamedTuple):
    """One image: as it was read, and once it has been scored."""

    path: str
    """The file as it was named or found."""
    height: int | None = None
    """Its own height in pixels, after the rotation that its EXIF data ask for."""
    width: int | None = None
    """Its own width."""
    score: float | None = None
    """Anomaly score in [0, 1]; None for an image that could not be read."""
    map: Float[np.ndarray, "S S"] | None = None
    """Anomaly probabilities at the size of the model; None unless wanted."""
    error: str | None = None
    """Why it could not be read."""


class ReadBatch(NamedTuple):
    """Images read together."""

    pixels: Shaped[Tensor, "B _ _ _"]
    """Those that could be read: RGB in [0, 1] of shape (B, 3, S, S), or one image as it is, uint8
    of shape (1, H, W, 3)."""
    images: list[ImageScore]
    """All of them in their order, not yet scored."""


class ImageFiles(Dataset[tuple[ImageScore, Tensor | None]]):
    """Images opened by path; one that cannot be read is an item without pixels."""

    def __init__(self, options: LoadOptions) -> None:
        self.image_size, self.white_level = options.image_size, options.white_level
        self.resizer = options.resizer

    def __getitem__(self, path: str) -> tuple[ImageScore, Tensor | None]:
        try:
            image = read_rgb(path, white_level=self.white_level)
        except UsageError as error:
            return ImageScore(path, error=str(error)), None
        if self.image_size is None:
            pixels = torch.from_numpy(np.array(image))
        else:
            pixels = image_to_tensor(image, self.image_size, self.resizer)
        return ImageScore(path, image.height, image.width), pixels

    def collate(self, items: Sequence[tuple[ImageScore, Tensor | None]]) -> ReadBatch:
        """Stack what could be read."""
        pixels = [one for _, one in items if one is not None]
        empty = torch.empty(0, 3, 1, 1)
        return ReadBatch(torch.stack(pixels) if pixels else empty, [image for image, _ in items])


def load(
    batches: Iterable[Sequence[str]], options: LoadOptions, *, pin_memory: bool
) -> Iterator[ReadBatch]:
    """Read batches of images in their order.

    Memory does not grow with their number: paths are drawn from `batches` as workers become free.

    Args:
        batches: Paths of the images that are read together.
        options: How they are read.
        pin_memory: Whether batches are read into pinned memory, from which a GPU copies faster.
    """
    files = ImageFiles(options)
    num_workers = auto_num_workers(1) if options.num_workers == "auto" else options.num_workers
    loader: DataLoader[tuple[ImageScore, Tensor | None]] = DataLoader(
        files,
        batch_sampler=batches,  # type: ignore[arg-type]  # paths instead of indices
        num_workers=num_workers,
        collate_fn=files.collate,
        pin_memory=pin_memory,
    )
    yield from loader


def score_images(
    detector: Detector,
    batches: Iterable[Sequence[str]],
    options: LoadOptions,
    *,
    device: torch.device,
    with_maps: bool,
) -> Iterator[ImageScore]:
    """Score images in their order, reading ahead.

    On a GPU this does not wait for the batch that was just launched: results are looked at once the
    next batch has been launched.

    Args:
        detector: The model.
        batches: Paths of the images that are scored together.
        options: How they are read.
        device: Where the model is.
        with_maps: Whether maps are copied from the device.

    Raises:
        UsageError: An image is unreadable with `on_error` `fail`, or scores or maps are not finite.
            Names the image.
    """
    batches_read = load(batches, options, pin_memory=device.type == "cuda")
    yield from score_batches(
        detector, batches_read, options.on_error, device=device, with_maps=with_maps
    )


def score_batches(
    detector: Detector,
    batches: Iterable[ReadBatch],
    on_error: str,
    *,
    device: torch.device,
    with_maps: bool,
) -> Iterator[ImageScore]:
    """Score images that have been read; see `score_images`."""
    launched: tuple[ReadBatch, HostCopy | None] | None = None
    for batch in batches:
        unreadable = [image for image in batch.images if image.error is not None]
        if unreadable and on_error == "fail":
            first = unreadable[0]
            raise UsageError(f"{first.error}; on_error=skip goes on without it", key="on_error")
        copy = _launch(detector, batch.pixels, device, with_maps=with_maps)
        if launched is not None:
            yield from _results(*launched)
        launched = batch, copy
    if launched is not None:
        yield from _results(*launched)


def _launch(
    detector: Detector, pixels: Shaped[Tensor, "B _ _ _"], device: torch.device, *, with_maps: bool
) -> HostCopy | None:
    """Start scoring a batch: (score, whether it is finite) of each image, and maps if wanted."""
    if not len(pixels):
        return None
    with torch.inference_mode():
        if pixels.dtype != torch.uint8:  # an image at its own size is cut into crops here
            pixels = pixels.to(device, non_blocking=device.type == "cuda")
        score, map = detector(pixels)
        is_finite = score.isfinite() & map.isfinite().flatten(1).all(1)
        facts = torch.stack([score.float(), is_finite.float()])
        return HostCopy(facts, map.float()) if with_maps else HostCopy(facts)


def _results(batch: ReadBatch, copy: HostCopy | None) -> Iterator[ImageScore]:
    if copy is None:
        yield from batch.images
        return
    facts, *maps = copy.wait()
    rows = iter(zip(*facts.tolist(), strict=True))
    positions = iter(range(len(batch.pixels)))
    for image in batch.images:
        if image.error is not None:
            yield image
            continue
        (score, is_finite), position = next(rows), next(positions)
        if not is_finite:
            raise UsageError(
                f"the model gives NaN or infinity for {image.path}; "
                "precision=32-true avoids overflows of half precision",
                key="precision",
            )
        map = maps[0][position].numpy() if maps else None
        yield ImageScore(image.path, image.height, image.width, score, map)
