"""What a model says about one image."""

import io
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from crane.data.images import read_rgb
from crane.files import cut_name, replacing, write_json
from crane.pictures import ColourScale, overlay, save_map
from crane.pictures.verdict import contoured, verdict_text, with_verdict
from crane.prediction.calibration import Threshold
from crane.prediction.regions import Region, find_regions

SCALE, ALPHA = ColourScale(vmin=0.0, vmax=1.0, colormap="inferno"), 0.7
"""How maps are shown; the defaults of `conf/overlay`."""


@dataclass(frozen=True, eq=False, repr=False)
class ImageResult:
    """Score, map and regions of one image; a notebook shows its picture."""

    score: float
    """Anomaly score in [0, 1]; it orders images, and means more beside a calibrated threshold."""
    map: Float[np.ndarray, "H W"]
    """Anomaly probability of each pixel, float32, at the size of the upright image."""
    threshold: Threshold | None
    """What decides; None until a threshold is given or calibrated."""
    path: str | None = None
    """The file, if the image was one."""
    source: Image.Image | None = field(default=None)
    """The image as RGB, if it was in memory."""

    @property
    def is_anomalous(self) -> bool | None:
        """Whether the score reaches the threshold; None without one."""
        return None if self.threshold is None else self.threshold.is_anomalous(self.score)

    @property
    def pixel_threshold(self) -> float:
        """The probability from which pixels belong to a region: calibrated, or one half."""
        return Threshold.PIXEL if self.threshold is None else self.threshold.pixel_value

    @cached_property
    def mask(self) -> Bool[np.ndarray, "H W"]:
        """The pixels at or above the pixel threshold."""
        return self.map >= self.pixel_threshold

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The 8-connected regions of the mask, the highest peak first."""
        return find_regions(self.map, self.pixel_threshold)

    @property
    def image(self) -> Image.Image:
        """The upright image as RGB; a file is read again, since keeping it takes memory."""
        return self.source if self.source is not None else read_rgb(str(self.path))

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
