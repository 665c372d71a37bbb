"""What a data set holds, in numbers and in one picture."""

import io
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from crane.data.images import read_mask, read_rgb
from crane.data.index import Index
from crane.data.regions import label_regions
from crane.pictures.contact import contact_sheet
from crane.types import NORMAL, Sample


@dataclass
class ClassStatistics:
    """What one class holds."""

    num_normal: int = 0
    num_anomalous: int = 0
    num_masks: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Width and height to the number of images."""
    shares: list[float] = field(default_factory=list)
    """Area of every anomalous region as a share of its image, in (0, 1]."""

    @property
    def size(self) -> str:
        """The images' size: the one, or the smallest and largest width and height.

        >>> ClassStatistics(sizes=Counter({(8, 6): 3, (10, 4): 1})).size
        '8-10 x 4-6'
        """
        widths, heights = zip(*self.sizes, strict=True)
        return " x ".join(
            f"{min(n)}" if min(n) == max(n) else f"{min(n)}-{max(n)}" for n in (widths, heights)
        )

    @property
    def areas(self) -> tuple[float, float, float] | None:
        """Smallest, median and largest region as shares of their images; None without any."""
        if not self.shares:
            return None
        return min(self.shares), float(np.median(self.shares)), max(self.shares)


def measure(
    index: Index, num_workers: int, advance: Callable[[int, int], None] | None = None
) -> dict[str, ClassStatistics]:
    """Open every image and mask of an index.

    Args:
        index: the data set.
        num_workers: threads that open files.
        advance: hears of progress: images done, and images in all.

    Returns:
        Class to what it holds, in the order of `index.class_names`.

    Raises:
        UsageError: if a file cannot be read; `verify` lists all of them.
    """
    found = {name: ClassStatistics() for name in index.class_names}

    def look(sample: Sample) -> tuple[tuple[int, int], list[float]]:
        size = read_rgb(sample.image, sample.box).size
        if sample.mask is None:
            return size, []
        regions = label_regions(read_mask(sample.mask, index.mask_threshold, sample.box))
        return size, (np.bincount(regions.ravel())[1:] / regions.size).tolist()

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        looks = zip(index.samples, pool.map(look, index.samples), strict=True)
        for number, (sample, (size, shares)) in enumerate(looks, 1):
            of = found[sample.class_name]
            of.num_normal += sample.label == NORMAL
            of.num_anomalous += sample.label != NORMAL
            of.num_masks += sample.mask is not None
            of.sizes[size] += 1
            of.shares += shares
            if advance is not None:
                advance(number, len(index.samples))
    return found


def picture(index: Index, statistics: dict[str, ClassStatistics]) -> Image.Image:
    """Draw samples of each class and defect, defects outlined, above the sizes of all regions."""
    sheet = contact_sheet(index, num_each=1)
    shares = [share for one in statistics.values() for share in one.shares]
    if not shares:
        return sheet
    chart = _histogram(shares, max(sheet.width, 480))
    page = Image.new("RGB", (chart.width, sheet.height + chart.height), "white")
    page.paste(sheet, (0, 0))
    page.paste(chart, (0, sheet.height))
    return page


def _histogram(shares: list[float], width: int) -> Image.Image:
    """Draw how many regions there are of each size, on a logarithmic axis of sizes."""
    dpi = 100
    figure = Figure(figsize=(width / dpi, 2.6), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lowest = np.floor(np.log10(min(shares)))
    axes.hist(shares, bins=np.logspace(lowest, 0, 40).tolist(), color="#3b6ea5")
    axes.set_xscale("log")
    axes.set_xlabel("area of a region, as a share of its image")
    axes.set_ylabel("regions")
    axes.set_title(f"{len(shares)} anomalous regions", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file).convert("RGB")
