"""What a model says about one image."""

import io
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from crane.files import cut_name, replacing, write_json
from crane.pictures import ColourScale, overlay, save_map
from crane.pictures.overlays import contoured, verdict_text, with_verdict
from crane_runtime import Result

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
