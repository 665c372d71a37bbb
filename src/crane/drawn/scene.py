"""Renders a drawn scene and a defect as a photograph with an exact mask."""

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Generic, Literal, NamedTuple, TypeVar

import numpy as np
from jaxtyping import Bool, UInt8
from scipy import ndimage

from crane.drawn.drawing import SIZE, Picture, Plane, Point, noise, posed

Mask = Bool[np.ndarray, "H W"]
"""Whether each pixel belongs to a defect."""
VISIBLE = 0.12
"""A pixel belongs to the mask where a defect covers more than this share of it."""
SMALLEST, LARGEST = 10, SIZE * SIZE // 4
"""Bounds of a defect's area, in pixels: from a few pixels to a quarter of the image."""

_CONNECTED = np.ones((3, 3), dtype=int)


@dataclass(frozen=True)
class Scene:
    """What the camera sees."""

    rgb: Picture
    """Its colours."""
    region: Plane
    """1 on the object, where defects may be, 0 beside it."""
    light: Point
    """Direction towards the light, as seen from above."""


SceneT = TypeVar("SceneT", bound=Scene)


class Painted(NamedTuple):
    """A scene after a defect was painted."""

    scene: Scene
    """The scene with the defect."""
    alpha: Plane
    """How much of each pixel the defect covers, 0 to 1."""


def painted(scene: Scene, rgb: Picture, alpha: Plane) -> Painted:
    """A scene whose picture a defect has changed to `rgb`."""
    return Painted(replace(scene, rgb=np.clip(rgb, 0.0, 1.0)), alpha)


@dataclass(frozen=True)
class Defect(Generic[SceneT]):
    """A kind of defect."""

    paint: Callable[[SceneT, np.random.Generator, float], Painted]
    """Paints it on a scene; the number is the area wanted, in pixels."""
    smallest: int = SMALLEST
    """The smallest area at which it can be told from the scene, in pixels."""
    largest: int = LARGEST
    """The largest area that still looks like this defect, in pixels."""


@dataclass(frozen=True)
class Domain(Generic[SceneT]):
    """A family of pictures that shares no objects, textures or defects with any other."""

    name: str
    """Its folder and its word in configurations."""
    role: Literal["source", "target"]
    """Whether models are trained on it or tested."""
    about: str
    """What it shows, in a sentence."""
    classes: Mapping[str, Callable[[np.random.Generator], SceneT]]
    """What draws each class."""
    defects: Mapping[str, Defect[SceneT]]
    """What paints each kind of defect."""
    kinds: Mapping[str, tuple[str, ...]]
    """The kinds of defect each class has."""
    num_train: int = 4
    """Normal training images of each class."""
    num_good: int = 16
    """Normal test images of each class."""
    num_per_kind: int = 6
    """Anomalous test images of each class and kind of defect."""

    @property
    def generators(self) -> tuple[str, ...]:
        """The full names of the functions that draw this domain, and no other."""
        paints = [defect.paint for defect in self.defects.values()]
        functions = [*self.classes.values(), *paints]
        return tuple(f"{function.__module__}.{function.__qualname__}" for function in functions)

    def pictures(self) -> tuple["PictureId", ...]:
        """Every picture of the domain, in the order of its folders."""
        found: list[PictureId] = []
        for class_name in self.classes:
            counts = [("train", "good", self.num_train), ("test", "good", self.num_good)]
            counts += [("test", kind, self.num_per_kind) for kind in self.kinds[class_name]]
            for split, kind, count in counts:
                found += [PictureId(class_name, split, kind, i, count) for i in range(count)]
        return tuple(found)


def named(
    *functions: Callable[[np.random.Generator], SceneT],
) -> dict[str, Callable[[np.random.Generator], SceneT]]:
    """Functions by their names."""
    return {function.__name__: function for function in functions}


class PictureId(NamedTuple):
    """Which picture of a domain."""

    class_name: str
    split: str
    kind: str
    """Kind of defect, `good` for none."""
    number: int
    """Position among the pictures of its folder."""
    num_siblings: int
    """How many pictures that folder has; their defects' areas are spread over them."""


class Rendered(NamedTuple):
    """A finished picture."""

    image: UInt8[np.ndarray, "H W 3"]
    mask: Mask
    """Exactly the pixels the defect was painted on; elsewhere `image` equals `clean`."""
    clean: UInt8[np.ndarray, "H W 3"]
    """The same scene through the same camera without the defect."""


def render(domain: Domain, picture: PictureId) -> Rendered:
    """Draw one picture. The same picture every time, on every machine.

    Args:
        domain: Whose picture.
        picture: Which picture.

    Raises:
        RuntimeError: A defect's area lies out of bounds however often it is drawn.
    """
    scene = scene_of(domain, picture)
    camera = _Camera(_generator(domain, picture, "camera"))
    clean = camera.take(scene.rgb)
    if picture.kind == "good":
        return Rendered(clean, np.zeros((SIZE, SIZE), dtype=bool), clean)
    spoilt, mask = _spoil(domain, picture, scene)
    image = np.where(mask[..., None], camera.take(spoilt), clean)
    return Rendered(image, mask, clean)


def scene_of(domain: Domain[SceneT], picture: PictureId) -> SceneT:
    """What a picture shows, before its defect is painted."""
    return domain.classes[picture.class_name](_generator(domain, picture, "scene"))


def _spoil(domain: Domain, picture: PictureId, scene: Scene) -> tuple[Picture, Mask]:
    """Paint the picture's defect, at about the area that is its share of the range of areas.

    How much of a defect shows depends on where it falls, so its size is corrected and, if that does
    not help, its place drawn again; the picture that comes nearest is kept.
    """
    defect = domain.defects[picture.kind]
    wanted, num_regions = _aim(defect, picture, _generator(domain, picture, "size"))
    nearest: tuple[float, Picture, Mask] | None = None
    for redraw in range(4):
        guess = wanted
        for _ in range(4):
            rng = _generator(domain, picture, f"defect {redraw}")
            rgb, mask = _paint(defect, scene, rng, guess, num_regions)
            area = int(mask.sum())
            error = abs(math.log(max(area, 1) / wanted))
            if SMALLEST <= area <= LARGEST and (nearest is None or error < nearest[0]):
                nearest = (error, rgb, mask)
            if error < 0.3:
                break
            guess *= min(max(wanted / max(area, 1), 0.3), 3.0)
        if nearest is not None and nearest[0] < 0.9:
            break
    if nearest is None:
        raise RuntimeError(f"{domain.name}: no {picture} has an area within bounds")
    return nearest[1], nearest[2]


def _aim(defect: Defect, picture: PictureId, rng: np.random.Generator) -> tuple[float, int]:
    """Area, spread evenly on a logarithmic scale over the folder, and number of regions."""
    share = (picture.number + rng.random()) / picture.num_siblings
    wanted = defect.smallest * (0.9 * defect.largest / defect.smallest) ** share
    num_regions = 1 + int(rng.random() < 0.3) + int(rng.random() < 0.15)
    return wanted, num_regions if wanted >= 2 * defect.smallest * num_regions else 1


def _paint(
    defect: Defect, scene: Scene, rng: np.random.Generator, area: float, num_regions: int
) -> tuple[Picture, Mask]:
    mask = np.zeros((SIZE, SIZE), dtype=bool)
    for _ in range(num_regions):
        scene, alpha = defect.paint(scene, rng, area / num_regions)
        mask |= alpha > VISIBLE
    return scene.rgb, _tidy(mask)


def _tidy(mask: Mask) -> Mask:
    """Drop crumbs and close pinholes, which nobody would mark and region metrics would count."""
    regions, num_regions = ndimage.label(mask, structure=_CONNECTED)
    sizes = np.bincount(regions.ravel(), minlength=num_regions + 1)
    kept = (sizes >= SMALLEST) & (np.arange(num_regions + 1) > 0)
    mask = kept[regions]
    holes, num_holes = ndimage.label(~mask)
    return mask | (np.bincount(holes.ravel(), minlength=num_holes + 1) < SMALLEST)[holes] & ~mask


class _Camera:
    """One exposure: its light, its colour cast and its noise.

    Args:
        rng: Draws them.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        across, down = posed((SIZE / 2, SIZE / 2), rng.uniform(0.0, 2.0 * np.pi))
        gain = rng.uniform(0.9, 1.06) * (1.0 + rng.uniform(0.0, 0.12) * across / SIZE)
        gain *= 1.0 - rng.uniform(0.05, 0.25) * (across**2 + down**2) / SIZE**2
        gain *= 1.0 + 0.03 * noise(rng, 90.0)
        cast = 1.0 + rng.uniform(-0.025, 0.025, 3)
        self._gain = gain[..., None] * cast
        self._noise = rng.standard_normal((SIZE, SIZE, 1)) * rng.uniform(0.4, 0.9)

    def take(self, rgb: Picture) -> UInt8[np.ndarray, "H W 3"]:
        """Photograph a picture, in steps of two grey levels: a third less to store."""
        levels = np.clip(rgb * self._gain, 0.0, 1.0) * 255.0 + self._noise
        return np.clip(2.0 * np.floor(levels / 2.0 + 0.5), 0.0, 254.0).astype(np.uint8)


def _generator(domain: Domain, picture: PictureId, purpose: str) -> np.random.Generator:
    """Randomness of one purpose of one picture, independent of every other."""
    words = f"{domain.name}/{picture.class_name}/{picture.split}/{picture.kind}/{purpose}"
    return np.random.Generator(np.random.PCG64([zlib.crc32(words.encode()), picture.number]))
