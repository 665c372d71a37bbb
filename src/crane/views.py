"""How a model looks at an image: as a whole, in overlapping tiles, or at several sizes.

A view says which crops of an image pass the towers, and joins what the method says of them to one
score and one map. Crops are made, scored and forgotten in batches, so that memory holds an image,
its map and one batch, however many tiles there are.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby, islice
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import MinLen
from jaxtyping import Float, UInt8
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from crane.cache.arrays import Features
from crane.checks import Fraction, Interval, PositiveFloat, PositiveInt, checked
from crane.data.dataset import IndexDataset, Item
from crane.data.images import image_to_tensor, upright_size
from crane.errors import UsageError
from crane.gate import build
from crane.types import Prediction
from crane.weights import check_image_size, check_pixels


class Crop(NamedTuple):
    """A part of an image that passes the towers."""

    box: tuple[int, int, int, int]
    """Left, top, right and bottom in pixels of the image."""
    side: int
    """Side of the square that it is resized to."""
    place: tuple[int, int] | None = None
    """Row and column of a tile; None for the whole image."""


Score = Callable[[Sequence[Crop], tuple[int, int]], Prediction]
"""Scores crops of one side; gives their maps in the height and width asked for."""


@dataclass(frozen=True)
class View(ABC):
    """What every view has: the resolution of metrics, its crops, and how they are joined."""

    resolution: Literal["model", "own"]
    """Where a test compares maps with masks: at the model's `image_size`, or at the image's."""
    is_whole: ClassVar[bool] = False
    """Whether a forward of the whole image is all there is."""

    @abstractmethod
    def crops(self, height: int, width: int, image_size: int) -> list[Crop]:
        """The crops of an image; all that are the whole image come first."""

    @abstractmethod
    def join(
        self, height: int, width: int, image_size: int, scored: Iterator[tuple[Crop, Prediction]]
    ) -> Prediction:
        """One score and one map from those of each crop, in their order."""

    def sides(self, image_size: int) -> list[int]:
        """The sides in pixels of what passes the towers."""
        return [image_size]

    def predict(
        self, height: int, width: int, image_size: int, batch_size: int, score: Score
    ) -> Prediction:
        """Score an image through its crops.

        Args:
            height: Of the image in pixels.
            width: Of the image in pixels.
            image_size: Side of the squares that crops are resized to, in pixels.
            batch_size: Crops scored together.
            score: Scores crops.

        Returns:
            A score of shape (1,) and a map (1, H, W) at the image's own size for tiles, and
            (1, image_size, image_size) for others.
        """
        crops = self.crops(height, width, image_size)
        scored = _scored(crops, (image_size, image_size), batch_size, score)
        return self.join(height, width, image_size, scored)


@checked
@dataclass(frozen=True)
class Whole(View):
    """The whole image, resized: what the publications do."""

    is_whole: ClassVar[bool] = True

    def crops(self, height: int, width: int, image_size: int) -> list[Crop]:
        """The image."""
        return [Crop((0, 0, width, height), image_size)]

    def join(
        self, height: int, width: int, image_size: int, scored: Iterator[tuple[Crop, Prediction]]
    ) -> Prediction:
        """What the method says."""
        return next(scored)[1]


@checked
@dataclass(frozen=True)
class Scales(View):
    """The whole image at several sizes; scores and maps are averaged."""

    factors: Annotated[Sequence[PositiveFloat], MinLen(1), "a list of factors above 0"]
    """Sizes as multiples of `image_size`."""

    def sides(self, image_size: int) -> list[int]:
        """The sizes in pixels."""
        return [round(factor * image_size) for factor in self.factors]

    def crops(self, height: int, width: int, image_size: int) -> list[Crop]:
        """The image, once for each size."""
        return [Crop((0, 0, width, height), side) for side in self.sides(image_size)]

    def join(
        self, height: int, width: int, image_size: int, scored: Iterator[tuple[Crop, Prediction]]
    ) -> Prediction:
        """The means."""
        scores, maps = zip(*(one for _, one in scored), strict=True)
        return Prediction(torch.stack(scores).mean(dim=0), torch.stack(maps).mean(dim=0))


@checked
@dataclass(frozen=True)
class OverlappingTiles(View):
    """Overlapping tiles at the image's own resolution, and the whole image beside them.

    The map is (1 - share) · whole + share · Σ w_t · tile_t, with Hann windows w_t that sum to 1 at
    every pixel; the score is (1 - share) · score of the whole + share · the highest of a tile. A
    tile is cut to the image's side where that is shorter; an image that fits into one tile is
    scored as a whole.
    """

    tile: PositiveInt | None
    """Side in pixels of the image; None for `image_size`, so that tiles are not resized."""
    overlap: Annotated[float, Interval(ge=0, le=0.9)]
    """Least share of a tile's side that it has in common with the next."""
    share: Fraction
    """Of the tiles, in map and score; the rest is the whole image's."""

    def crops(self, height: int, width: int, image_size: int) -> list[Crop]:
        """The whole image, then the tiles row by row."""
        side = self.tile or image_size
        tops, lefts = (starts(length, side, self.overlap) for length in (height, width))
        whole = Crop((0, 0, width, height), image_size)
        tiles = [
            Crop((x, y, min(x + side, width), min(y + side, height)), image_size, (row, column))
            for row, y in enumerate(tops)
            for column, x in enumerate(lefts)
        ]
        return [whole, *tiles] if len(tiles) > 1 else [whole]

    def join(
        self, height: int, width: int, image_size: int, scored: Iterator[tuple[Crop, Prediction]]
    ) -> Prediction:
        """Map and score as the class says."""
        whole = next(scored)[1]
        map = resized(whole.map, height, width)
        rows, columns = (
            torch.from_numpy(axis_weights(length, self.tile or image_size, self.overlap)).to(map)
            for length in (height, width)
        )
        highest: Tensor | None = None
        for crop, (score, own) in scored:
            assert crop.place is not None
            if highest is None:
                map, highest = map.mul_(1 - self.share), score
            left, top, right, bottom = crop.box
            window = rows[crop.place[0], :, None] * columns[crop.place[1]]
            part = resized(own, bottom - top, right - left)[0]
            map[0, top:bottom, left:right].addcmul_(window, part, value=self.share)
            highest = torch.maximum(highest, score)
        if highest is None:
            return Prediction(whole.score, map)
        score = (1 - self.share) * whole.score + self.share * highest
        return Prediction(score, map.clamp_(0.0, 1.0))


def _scored(
    crops: Sequence[Crop], size: tuple[int, int], batch_size: int, score: Score
) -> Iterator[tuple[Crop, Prediction]]:
    """Score crops, as many of one side together as a batch holds."""
    for _, group in groupby(crops, key=lambda crop: crop.side):
        while batch := list(islice(group, batch_size)):
            scores, maps = score(batch, size)
            for crop, one, map in zip(batch, scores.float(), maps.float(), strict=True):
                yield crop, Prediction(one[None], map[None])


def starts(length: int, side: int, overlap: float) -> list[int]:
    """Where tiles begin along an axis, evenly spread from its start to its end.

    >>> starts(100, 40, 0.5), starts(30, 40, 0.5)
    ([0, 20, 40, 60], [0])
    """
    side = min(side, length)
    step = max(1, int(side * (1 - overlap)))
    number = -(-(length - side) // step) + 1
    return [round(place) for place in np.linspace(0, length - side, number).tolist()]


def axis_weights(length: int, side: int, overlap: float) -> Float[np.ndarray, "tiles side"]:
    """The weight of each tile at each of its pixels along an axis; at every pixel they sum to 1.

    A tile's weight at a pixel is the product of its weights along both axes.

    >>> axis_weights(6, 4, 0.5).round(2).tolist()
    [[1.0, 1.0, 0.85, 0.15], [0.15, 0.85, 1.0, 1.0]]
    """
    places, side = starts(length, side, overlap), min(side, length)
    window = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2  # Hann, nowhere 0
    total = np.zeros(length)
    for place in places:
        total[place : place + side] += window
    return np.stack([window / total[place : place + side] for place in places])


def resized(maps: Float[Tensor, "B h w"], height: int, width: int) -> Float[Tensor, "B H W"]:
    """Maps at another size, bilinear and antialiased; new memory even at their own."""
    if maps.shape[1:] == (height, width):
        return maps.clone()
    return F.interpolate(
        maps[:, None], (height, width), mode="bilinear", align_corners=False, antialias=True
    )[:, 0].clamp_(0.0, 1.0)


def cut(
    image: UInt8[np.ndarray, "H W 3"], crops: Sequence[Crop], resizer: str
) -> Float[Tensor, "V 3 S S"]:
    """Crops of an RGB image, resized to their side, in [0, 1]."""
    parts = (image[top:bottom, left:right] for (left, top, right, bottom), *_ in crops)
    return torch.stack(
        [
            image_to_tensor(Image.fromarray(part), crop.side, resizer)
            for part, crop in zip(parts, crops, strict=True)
        ]
    )


def build_view(config: DictConfig) -> View:
    """The view of a configuration, if its model can look at images that way.

    Raises:
        UsageError: It cannot: a size is no multiple of the patch or beyond `max_megapixels`, or the
            guide mixes the images of a batch.
    """
    view: View = build(config.views, "views")
    architecture = OmegaConf.select(config, "backbone.model.architecture")
    for side in view.sides(config.image_size):
        if side == config.image_size:  # of whom `build_model` asks the same
            continue
        try:
            check_image_size(architecture, side, key="views.factors")
        except UsageError as error:
            mistake = f"the size of {side} px that views.factors give {error.problem}"
            raise UsageError(mistake, key="views.factors") from error
        check_pixels(architecture, side, config.max_megapixels, key="views.factors")
    if not view.is_whole and OmegaConf.select(config, "guide.attention.mean") == "batch":
        raise UsageError(
            "guide.attention.mean=batch mixes the crops of a batch, so scores would depend on the "
            "batch size; use guide.attention.mean=image or views=whole",
            key="guide.attention.mean",
        )
    return view


class TileDataset(IndexDataset):
    """The tiles of all images of a data set, image by image; whole images are not among them.

    An image is decoded once for all of its tiles that a process reads in their order.

    Args:
        images: The data set.
        view: How they are looked at.
    """

    def __init__(self, images: IndexDataset, view: View) -> None:
        super().__init__(images.index, images.image_size, images.resizer)
        self.facts = {"view": type(view).__name__, **asdict(view)}
        for key in ("resolution", "share"):  # decide nothing about tiles
            self.facts.pop(key, None)
        self.tiles = [
            (position, crop)
            for position, sample in enumerate(self.index.samples)
            for crop in view.crops(*upright_size(sample.image, sample.box)[::-1], self.image_size)
            if crop.place is not None
        ]
        self._last: tuple[int, UInt8[np.ndarray, "H W 3"]] | None = None

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def names(self) -> list[str]:
        """The name of each tile: that of its image and its place."""
        keys = super().names
        return [tile_name(keys[position], crop) for position, crop in self.tiles]

    def __getitem__(self, position: int) -> Item:
        """One tile."""
        image, crop = self.tiles[position]
        if self._last is None or self._last[0] != image:
            opened = self.index.read_image(self.index.samples[image])
            self._last = image, np.asarray(opened)
        pixels = cut(self._last[1], [crop], self.resizer)[0]
        return {"image": pixels, "index": torch.tensor(position)}


def tile_name(key: str, crop: Crop) -> str:
    """The name of a tile of an image."""
    assert crop.place is not None
    return f"{key}#{crop.place[0]},{crop.place[1]}"


class CropFeatures(NamedTuple):
    """Cached features by the name of an image and the crop of it."""

    wholes: Mapping[int, Features]
    """Those of whole images, by the side that they were resized to."""
    tiles: Features | None
    """Those of tiles, by `tile_name`."""

    @property
    def computed_in(self) -> torch.dtype:
        """Type of the towers' output."""
        return next(iter(self.wholes.values())).computed_in

    def __call__(self, key: str, crop: Crop) -> tuple[Tensor, Tensor]:
        """The vector and the planes of a crop."""
        if crop.place is None:
            return self.wholes[crop.side](key)
        assert self.tiles is not None
        return self.tiles(tile_name(key, crop))
