"""What prediction writes for each image: its row of the table, its map and its overlay."""

import errno
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from crane.checks import Fraction, PositiveInt, checked
from crane.data.images import read_rgb
from crane.data.index import WhiteLevel
from crane.errors import UsageError
from crane.files import replacing
from crane.pictures import ColourScale, colour_bar, overlay, resize_map, save_map
from crane.prediction.calibration import Threshold
from crane.prediction.image_scoring import ImageScore
from crane.prediction.inputs import ImageList
from crane.prediction.table import Row, table_row

logger = logging.getLogger(__name__)

PictureWriter = Callable[[str, np.ndarray], Path]
"""Writes a picture from the path of an image and its map at the size of the image; returns the file
written, relative to the folder of all outputs."""

NUM_WRITERS = 2
"""Threads that resize, compress and write pictures while the model runs."""
MAX_PENDING = 16
"""Images waiting to be written, at most: what keeps memory constant when disks are slow."""

OF_THE_IMAGE = (None, errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
"""Errors of a single picture: its name does not fit, or its format cannot hold it (encoders, which
refuse a side of 70,000 pixels, give no number). Others, such as a full disk, stop all."""


@checked
@dataclass(frozen=True)
class OutputOptions:
    """What is written.

    Raises:
        UsageError: A value is out of range.
    """

    scores: Literal["csv", "parquet"]
    """Format of the table."""
    part_size: PositiveInt
    """Images in a part of the table: what an interruption loses at most."""
    maps: Literal["png", "npy", "none"]
    """`png` (16 bits: 0 to 65535 stand for 0 to 1), `npy` (float32) or `none`."""
    overlays: Literal["jpg", "png", "none"]
    """Format of the overlays."""
    scale: ColourScale
    """Colours of the overlays, the same for all images."""
    alpha: Fraction
    """Opacity of the highest colour of an overlay."""
    white_level: WhiteLevel = None
    """The value of 16-bit images that is white."""

    @property
    def pictures(self) -> list[str]:
        """The kinds of pictures written, named like their columns in the table."""
        chosen = {"map": self.maps, "overlay": self.overlays}
        return [kind for kind, format in chosen.items() if format != "none"]


def picture_writers(
    options: OutputOptions, images: ImageList, output: Path
) -> dict[str, PictureWriter]:
    """What writes each kind of picture; also writes the colour bar that overlays share.

    Args:
        options: What is written.
        images: The images, whose names those of the pictures follow.
        output: Folder of all outputs: maps are written to `maps/`, overlays to `overlays/`.
    """
    writers: dict[str, PictureWriter] = {}
    if options.maps != "none":
        writers["map"] = partial(write_map, options, images, output)
    if options.overlays != "none":
        with replacing(output / "overlays_scale.png") as part:
            colour_bar(options.scale, width=600).save(part)
        writers["overlay"] = partial(write_overlay, options, images, output)
    return writers


def write_map(
    options: OutputOptions,
    images: ImageList,
    output: Path,
    path: str,
    map: Float[np.ndarray, "H W"],
) -> Path:
    """Write a map; a `PictureWriter` once its first arguments are given."""
    name = images.output("maps", path, f".{options.maps}")
    save_map(map, output / name)
    return name


def write_overlay(
    options: OutputOptions,
    images: ImageList,
    output: Path,
    path: str,
    map: Float[np.ndarray, "H W"],
) -> Path:
    """Write an overlay, likewise; the image is read again, since keeping it takes more memory."""
    name = images.output("overlays", path, f".{options.overlays}")
    rgb = np.asarray(read_rgb(path, white_level=options.white_level))
    blended = overlay(rgb, map, scale=options.scale, alpha=options.alpha)
    with replacing(output / name) as part:
        Image.fromarray(blended).save(part, quality=92)
    return name


def written_rows(
    images: Iterator[ImageScore],
    writers: Mapping[str, PictureWriter],
    threshold: Threshold | None,
    on_error: str,
) -> Iterator[Row]:
    """Give the row of each image, in order, once its pictures are on the disk.

    Args:
        images: Scored images.
        writers: Kind of picture to what writes it.
        threshold: Decides which images are called anomalous.
        on_error: `skip` leaves out a picture that cannot be written, `fail` stops there.

    Raises:
        UsageError: There is such a picture, and `on_error` is `fail`.
        OSError: The disk is full or fails otherwise.
    """
    write = partial(_written_row, writers, threshold, on_error)
    if not writers:
        yield from map(write, images)
        return
    # Rows leave in the order in which images came: too many pending wait for the oldest.
    pending: deque[Future[Row]] = deque()
    with ThreadPoolExecutor(NUM_WRITERS, thread_name_prefix="crane-writer") as pool:
        for image in images:
            pending.append(pool.submit(write, image))
            while len(pending) >= MAX_PENDING or (pending and pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


def _written_row(
    writers: Mapping[str, PictureWriter],
    threshold: Threshold | None,
    on_error: str,
    image: ImageScore,
) -> Row:
    written: dict[str, str] = {}
    problems: list[str] = []
    if image.map is not None and image.height is not None and image.width is not None:
        map = resize_map(image.map, image.height, image.width)
        for kind, write in writers.items():
            name, problem = _picture(kind, write, image.path, map, on_error)
            written |= {} if name is None else {kind: name}
            problems += [] if problem is None else [problem]
    return table_row(image, written, "; ".join(problems) or None, threshold)


def _picture(
    kind: str, write: PictureWriter, path: str, map: Float[np.ndarray, "H W"], on_error: str
) -> tuple[str | None, str | None]:
    """Write a picture; returns its name, or why it could not be written."""
    try:
        return write(path, map).as_posix(), None
    except OSError as error:
        if error.errno not in OF_THE_IMAGE:
            raise
        if on_error == "fail":
            raise UsageError(
                f"cannot write the {kind} of {path}: {error}; choose another format for {kind}s, "
                "or on_error=skip",
                key=f"{kind}s",
            ) from error
        logger.warning("no %s of %s: %s", kind, path, error)
        return None, f"no {kind}: {error}"
