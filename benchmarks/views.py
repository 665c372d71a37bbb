"""Tiles and sizes: an image's cost in forwards, and the memory of a large one."""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

import crane
from benchmarks._harness import Claim, Options, Report, fastest, isolated, peak_memory
from crane.prediction import AnomalyDetector

SIDE = {False: 896, True: 400}
"""Side in pixels of the image that is timed."""
LARGE = {False: 10_000, True: 300}
"""Side in pixels of the image whose memory is measured."""
REPEATS = {False: 3, True: 1}
VIEWS = ("whole", "tiles", "scales")


def run(options: Options) -> Report:
    """Time the views in turns in one process, and measure the memory of tiles in another."""
    forwards, seconds = isolated(_times, options)
    per_pixel = isolated(_memory, options)
    ratio = {view: seconds[view] / seconds["whole"] for view in VIEWS}
    return Report(
        title="Views",
        text=(
            f'`crane.load("mini")` on an image of {SIDE[options.small]} px, crops in batches of 8, '
            f"the fastest of {REPEATS[options.small]} rounds in which the views took turns. "
            "Cutting, resizing and blending are in it. The whole image is scored alone, so that "
            "tiles gain from their batches. Memory: growth of the peak of a process that scores "
            f"one image of {LARGE[options.small]} px in tiles of an eighth of its side, beyond the "
            "peak of a small one; the image itself has 3 bytes a pixel, its map 4."
        ),
        claims=[
            Claim(
                "views: time of tiles / (forwards x time of whole)",
                1.25,
                ratio["tiles"] / forwards["tiles"],
                True,
            ),
            Claim("views: bytes for each pixel of 100 megapixels", 24, per_pixel, True),
        ],
        columns=["view", "forwards", "ms", "to whole"],
        rows=[
            [view, str(forwards[view]), f"{1e3 * seconds[view]:.0f}", f"{ratio[view]:.2f}"]
            for view in VIEWS
        ],
    )


def _load(view: str, options: Options, *more: str) -> AnomalyDetector:
    device = "gpu" if options.device == "cuda" else "cpu"
    return crane.load("mini", device=device, overrides=[f"views={view}", *more])


def _picture(side: int) -> Image.Image:
    tile = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    return Image.fromarray(np.tile(tile, (-(-side // 100), -(-side // 100), 1))[:side, :side])


def _times(options: Options) -> tuple[dict[str, int], dict[str, float]]:
    detectors = {view: _load(view, options) for view in VIEWS}
    side = SIDE[options.small]
    image = _picture(side)
    forwards = {
        view: len(one.view.crops(side, side, one.image_size)) for view, one in detectors.items()
    }
    works = {view: partial(one.predict, image) for view, one in detectors.items()}
    return forwards, fastest(works, REPEATS[options.small], options.device)


def _memory(options: Options) -> float:
    """Bytes for each pixel of a large image."""
    side = LARGE[options.small]
    detector = _load("tiles", options, f"views.tile={side // 8}", "views.overlap=0.25")
    detector.predict(_picture(side // 8 + 100))
    before = peak_memory()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "large.png"
        _picture(side).save(file, compress_level=1)
        detector.predict(file)
    return (peak_memory() - before) / side**2
