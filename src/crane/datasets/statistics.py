"""What a data set holds, in numbers and in one picture."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from crane.data.index import Index
from crane.pictures.contact import area_histogram, contact_sheet
from crane.samples import NORMAL, Sample, label_regions


@dataclass
class ClassStatistics:
    """What one class holds."""

    num_normal: int = 0
    num_anomalous: int = 0
    num_masks: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Width and height to the number of images."""
    areas: list[float] = field(default_factory=list)
    """Area of every anomalous region as a fraction of its image."""

    @property
    def size(self) -> str:
        """The images' size, or the ranges of their widths and heights.

        >>> ClassStatistics(sizes=Counter({(8, 6): 3, (10, 4): 1})).size
        '8-10 x 4-6'
        """
        widths, heights = zip(*self.sizes, strict=True)
        return " x ".join(
            f"{min(n)}" if min(n) == max(n) else f"{min(n)}-{max(n)}" for n in (widths, heights)
        )

    @property
    def area_range(self) -> tuple[float, float, float] | None:
        """The smallest, median and largest of `areas`; None if there are none."""
        if not self.areas:
            return None
        return min(self.areas), float(np.median(self.areas)), max(self.areas)


def measure(
    index: Index,
    num_workers: int,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, ClassStatistics]:
    """Open every image and mask of an index.

    Args:
        index: The data set.
        num_workers: Threads that open files.
        advance: Called with the images done and the images in all.

    Returns:
        Class to what it holds, in the order of `index.class_names`.

    Raises:
        UsageError: A file cannot be read; `verify` lists all of them.
    """
    found = {name: ClassStatistics() for name in index.class_names}

    def look(sample: Sample) -> tuple[tuple[int, int], list[float]]:
        size = index.read_image(sample).size
        if sample.mask is None:
            return size, []
        regions = label_regions(index.read_mask(sample))
        return size, (np.bincount(regions.ravel())[1:] / regions.size).tolist()

    with ThreadPoolExecutor(max(1, num_workers)) as pool:
        looks = zip(index.samples, pool.map(look, index.samples), strict=True)
        for number, (sample, (size, areas)) in enumerate(looks, 1):
            of_class = found[sample.class_name]
            of_class.num_normal += sample.label == NORMAL
            of_class.num_anomalous += sample.label != NORMAL
            of_class.num_masks += sample.mask is not None
            of_class.sizes[size] += 1
            of_class.areas += areas
            advance(number, len(index.samples))
    return found


def picture(index: Index, statistics: dict[str, ClassStatistics]) -> Image.Image:
    """Samples of each class and defect with outlined defects, above a histogram of areas."""
    sheet = contact_sheet(index, num_each=1)
    areas = [area for one in statistics.values() for area in one.areas]
    if not areas:
        return sheet
    chart = area_histogram(areas, max(sheet.width, 480))
    page = Image.new("RGB", (chart.width, sheet.height + chart.height), "white")
    page.paste(sheet, (0, 0))
    page.paste(chart, (0, sheet.height))
    return page
