"""What prediction writes for each image: its row of the table, its map and its overlay."""

import errno
import io
import logging
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from PIL import Image

from crane.checks import Fraction, PositiveInt, checked
from crane.data.images import read_rgb
from crane.data.index import WhiteLevel
from crane.errors import UsageError
from crane.files import cut_name, replacing, write_json
from crane.pictures import ColourScale, colour_bar, overlay, resize_map, save_map
from crane.pictures.maps import read_map, stored_map
from crane.pictures.overlays import contoured, side_by_side, verdict_text, with_verdict
from crane.prediction.calibration import Threshold
from crane.prediction.image_scoring import ImageScore
from crane.prediction.inputs import ImageList
from crane.prediction.joining import thumbnail_of
from crane.prediction.table import Row, WrittenImage, table_row
from crane_runtime import Result, find_regions

logger = logging.getLogger(__name__)

NUM_WRITERS = 2
"""Threads that resize, compress and write pictures while the model runs."""
THUMBNAIL = 240
"""Longer side of each half of a thumbnail in pixels."""
MAX_PENDING = 16
"""Images waiting to be written, at most: what keeps memory constant when disks are slow."""
MAX_PIXELS = 1 << 26
"""Pixels of maps waiting to be written, or one map: tiles give maps as large as their images."""

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


@dataclass(frozen=True)
class OutputWriter:
    """Writes what belongs to an image: its pictures and its regions."""

    options: OutputOptions
    """What is written."""
    images: ImageList
    """The images, whose names those of the pictures follow."""
    folder: Path
    """Folder of all outputs; pictures lie in `maps/`, `overlays/` and `thumbnails/`."""
    threshold: Threshold | None
    """What decides, and is drawn into the overlays."""
    on_error: str
    """`skip` leaves out a picture that cannot be written, `fail` stops there."""
    are_maps_there: bool = False
    """Whether maps were written before, so that only what shows the threshold is written."""

    def write_scale(self) -> None:
        """Write the colour bar that overlays share."""
        if self.options.overlays != "none":
            with replacing(self.folder / "overlays_scale.png") as part:
                colour_bar(self.options.scale, width=600).save(part)

    def rows(self, images: Iterator[ImageScore]) -> Iterator[WrittenImage]:
        """Give the row and the regions of each image, in order, once its pictures are on the disk.

        Raises:
            UsageError: A picture cannot be written, and `on_error` is `fail`.
            OSError: The disk is full or fails otherwise.
        """
        if not self.options.pictures:
            yield from map(self._written, images)
            return
        # Rows leave in the order in which images came: too many pending wait for the oldest.
        pending: deque[Future[WrittenImage]] = deque()
        with ThreadPoolExecutor(NUM_WRITERS, thread_name_prefix="crane-writer") as pool:
            for image in images:
                pending.append(pool.submit(self._written, image))
                size = 1 if image.map is None else image.map.size
                most = max(1, min(MAX_PENDING, MAX_PIXELS // size))
                while len(pending) >= most or (pending and pending[0].done()):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

    def scored_before(self, path: str, row: Row) -> ImageScore:
        """An image as it was scored, with its map from the disk."""
        score, map = row["score"], row.get("map")
        if not isinstance(score, float):
            return ImageScore(path, error=str(row["error"]))
        size = (int(str(row["height"])), int(str(row["width"])))
        return ImageScore(
            *(path, *size, score),
            None if map is None else read_map(self.folder / str(map)),
            None if row["error"] is None else str(row["error"]),
        )

    def _written(self, image: ImageScore) -> WrittenImage:
        name = self.images.name(image.path)
        if image.map is None or image.height is None or image.width is None:
            return WrittenImage(table_row(image, name, {}, image.error, self.threshold))
        map = resize_map(image.map, image.height, image.width)
        if self.options.maps == "png":  # as it is read again, so that regions stay the same
            map = stored_map(map)
        pixel = Threshold.PIXEL if self.threshold is None else self.threshold.pixel_value
        written: dict[str, str] = {}
        problems: list[str] = []
        for kind in self.options.pictures:
            picture, problem = self._picture(kind, image, map, pixel)
            written |= {} if picture is None else {kind: picture}
            problems += [] if problem is None else [problem]
        regions = find_regions(map, pixel)
        error = "; ".join(problems) or None
        row = table_row(image, name, written, error, self.threshold, len(regions))
        return WrittenImage(row, regions)

    def _picture(
        self, kind: str, image: ImageScore, map: Float[np.ndarray, "H W"], pixel: float
    ) -> tuple[str | None, str | None]:
        """Write a picture; returns its name, or why it could not be written."""
        try:
            if kind == "map":
                return self._write_map(image.path, map).as_posix(), None
            return self._write_overlay(image, map, pixel).as_posix(), None
        except OSError as error:
            if error.errno not in OF_THE_IMAGE:
                raise
            if self.on_error == "fail":
                raise UsageError(
                    f"cannot write the {kind} of {image.path}: {error}; choose another format for "
                    f"{kind}s, or on_error=skip",
                    key=f"{kind}s",
                ) from error
            logger.warning("no %s of %s: %s", kind, image.path, error)
            return None, f"no {kind}: {error}"

    def _write_map(self, path: str, map: Float[np.ndarray, "H W"]) -> Path:
        name = self.images.output("maps", path, f".{self.options.maps}")
        if not self.are_maps_there:
            save_map(map, self.folder / name)
        return name

    def _write_overlay(
        self, image: ImageScore, map: Float[np.ndarray, "H W"], pixel: float
    ) -> Path:
        """Draw an image under its map; it is read again, since keeping it takes more memory."""
        assert image.score is not None
        options = self.options
        rgb = np.asarray(read_rgb(image.path, white_level=options.white_level))
        blended = overlay(rgb, map, scale=options.scale, alpha=options.alpha)
        drawn = Image.fromarray(contoured(blended, map >= pixel))
        value = None if self.threshold is None else self.threshold.value
        name = self.images.output("overlays", image.path, f".{options.overlays}")
        with replacing(self.folder / name) as part:
            with_verdict(drawn, image.score, value, options.scale).save(part, quality=92)
        small = side_by_side(Image.fromarray(rgb), drawn, THUMBNAIL)
        with replacing(self.folder / thumbnail_of(name.as_posix())) as part:
            small.save(part, quality=75)
        return name


SCALE, ALPHA = ColourScale(vmin=0.0, vmax=1.0, colormap="inferno"), 0.7
"""How maps are shown; the defaults of `conf/overlay`."""


@dataclass(frozen=True, eq=False, repr=False)
class ImageResult(Result):
    """Score, map and regions of one image; a notebook shows its picture."""

    def plot(self, *, scale: ColourScale = SCALE, alpha: float = ALPHA) -> Image.Image:
        """The image under its map, regions outlined, with the verdict and a colour bar below.

        Args:
            scale: What the colours mean; the same for all images.
            alpha: Opacity of the highest colour.
        """
        pixels = np.asarray(self.image)
        drawn = contoured(overlay(pixels, self.map, scale=scale, alpha=alpha), self.mask)
        value = None if self.threshold is None else self.threshold.value
        return with_verdict(Image.fromarray(drawn), self.score, value, scale)

    def save(self, folder: str | Path, name: str | None = None) -> Path:
        """Write the picture of `plot`, the map and the facts.

        They are `NAME.jpg`, `NAME.map.png` (read by `crane.pictures.read_map`) and `NAME.json`.

        Args:
            folder: Made if missing.
            name: The file's name unless given, `image` for images in memory; files of that name
                are replaced.

        Returns:
            The JSON file: score, verdict, threshold and regions.
        """
        folder = Path(folder).expanduser()
        name = name or (Path(self.path).name if self.path else "image")
        with replacing(folder / cut_name(name, ".jpg")) as part:
            self.plot().save(part, quality=92)
        save_map(self.map, folder / cut_name(name, ".map.png"))
        content = {"image": self.path, **self.facts()}
        return write_json(folder / cut_name(name, ".json"), content)

    def facts(self) -> dict[str, object]:
        """Score, verdict, thresholds and regions, as JSON can hold them."""
        return {
            "score": self.score,
            "is_anomalous": self.is_anomalous,
            "threshold": None if self.threshold is None else asdict(self.threshold),
            "pixel_threshold": self.pixel_threshold,
            "regions": [asdict(region) for region in self.regions],
        }

    def __repr__(self) -> str:
        value = None if self.threshold is None else self.threshold.value
        size = f"{self.map.shape[1]} x {self.map.shape[0]} pixels"
        number = len(self.regions)
        regions = f"{number} region" if number == 1 else f"{number} regions"
        return f"<{self.path or 'image'}, {size}: {verdict_text(self.score, value)}, {regions}>"

    def _repr_png_(self) -> bytes:
        shown = self.plot()
        shown.thumbnail((640, 640))
        content = io.BytesIO()
        shown.save(content, format="png")
        return content.getvalue()
