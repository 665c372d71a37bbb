"""A target domain of real photographs: crops of surfaces that scikit-image carries.

The photographs lie inside scikit-image's wheel (brick, grass and gravel under CC0, the stained
tissue without known copyright restrictions); nothing is downloaded.
"""

import hashlib
from functools import lru_cache
from importlib import resources

import numpy as np
from jaxtyping import Float
from PIL import Image

from crane.drawn.drawing import (
    SIZE,
    Colour,
    Picture,
    Plane,
    mix,
    noise,
    posed,
    sample,
    tint,
    toward,
)
from crane.drawn.scene import Scene
from crane.errors import UsageError

_SHA256 = {
    "brick.png": "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    "grass.png": "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    "gravel.png": "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    "ihc.png": "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
}
"""The files as scikit-image 0.24 to 0.26 carry them."""


def brick(rng: np.random.Generator) -> Scene:
    """A pavement of bricks."""
    x, y = _view(rng, tilt=0.10, closest=0.95, widest=1.45)
    (grey,) = _channels("brick.png", x, y)
    clay, mortar = tint(rng, 0.03, 0.50, 0.92, jitter=0.02), tint(rng, 0.09, 0.14, 1.0)
    return _scene(rng, _toned(1.35 * grey, clay, mortar, 0.62))


def gravel(rng: np.random.Generator) -> Scene:
    """A bed of gravel."""
    x, y = _view(rng, tilt=np.pi, closest=0.55, widest=0.95)
    (grey,) = _channels("gravel.png", x, y)
    hue = rng.uniform(0.05, 0.62)
    return _scene(rng, _toned(1.1 * grey, tint(rng, hue, 0.10, 0.95), (1.0, 0.98, 0.95), 0.7))


def grass(rng: np.random.Generator) -> Scene:
    """A meadow."""
    x, y = _view(rng, tilt=np.pi, closest=0.55, widest=0.95)
    (grey,) = _channels("grass.png", x, y)
    blade = tint(rng, 0.25, 0.62, 0.86)
    return _scene(rng, _toned(1.15 * grey, blade, tint(rng, 0.20, 0.34, 1.0), 0.8))


def tissue(rng: np.random.Generator) -> Scene:
    """A microscope slide of stained colonic glands."""
    x, y = _view(rng, tilt=np.pi, closest=0.65, widest=1.05)
    stain = 1.0 + rng.uniform(-0.05, 0.05, 3)
    rgb = np.stack(_channels("ihc.png", x, y), axis=-1) ** stain
    return _scene(rng, 0.96 * rgb)


@lru_cache
def _photograph(name: str) -> Float[np.ndarray, "R C K"]:
    """One of scikit-image's photographs, 0 to 1, and its one or three channels.

    Raises:
        UsageError: The file is missing or is another picture.
    """
    file = resources.files("skimage") / "data" / name
    hint = "reinstall scikit-image 0.24 to 0.26 from its wheel"
    if not file.is_file():
        raise UsageError(f"scikit-image's photograph {name}", "no such file", hint=hint)
    with file.open("rb") as stream:
        digest = hashlib.sha256(stream.read()).hexdigest()
        if digest != _SHA256[name]:
            raise UsageError(f"{name} with sha256 {_SHA256[name]}", digest, hint=hint)
        stream.seek(0)
        pixels = np.asarray(Image.open(stream), dtype=np.float64) / 255.0
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _channels(name: str, x: Plane, y: Plane) -> list[Plane]:
    photograph = _photograph(name)
    return [
        sample(np.ascontiguousarray(photograph[..., channel]), x, y)
        for channel in range(photograph.shape[-1])
    ]


def _view(
    rng: np.random.Generator, tilt: float, closest: float, widest: float
) -> tuple[Plane, Plane]:
    """Where in a photograph of 512 x 512 each pixel looks.

    Args:
        rng: Draws place, scale, turn and mirroring.
        tilt: The largest turn, in radians.
        closest: The smallest step from pixel to pixel, in pixels of the photograph.
        widest: The largest.
    """
    turn, step = rng.uniform(-tilt, tilt), rng.uniform(closest, widest)
    u, v = posed((SIZE / 2 - 0.5, SIZE / 2 - 0.5), turn)
    reach = step * SIZE / 2 * (abs(float(np.cos(turn))) + abs(float(np.sin(turn))))
    x, y = rng.uniform(reach, 511.0 - reach, 2)
    mirror = 1.0 if rng.random() < 0.5 else -1.0
    return x + mirror * step * u, y + step * v


def _toned(grey: Plane, dark: Colour, bright: Colour, turning: float) -> Picture:
    """Give a grey photograph its colours back: one for its darker, one for its brighter half."""
    share = np.clip((grey - turning + 0.15) / 0.3, 0.0, 1.0)
    return mix(grey[..., None] * np.asarray(dark), grey[..., None] * np.asarray(bright), share)


def _scene(rng: np.random.Generator, rgb: Picture) -> Scene:
    contrast, middle = rng.uniform(0.9, 1.12), 0.45
    rgb = middle + contrast * (rgb - middle) + 0.02 * noise(rng, 80.0)[..., None]
    light = toward(-0.75 * np.pi + rng.uniform(-0.3, 0.3))
    return Scene(np.clip(rgb, 0.0, 1.0), np.ones((SIZE, SIZE)), light)
