"""What a data set holds: numbers, samples with their defects outlined, and sizes of defects."""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw, ImageFont

from crane.data.index import Index
from crane.errors import counted
from crane.pictures.overlays import fitted
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


_PAPER, _TEXT, _OUTLINE = (255, 255, 255), (40, 40, 40), (255, 0, 255)
_GAP, _CAPTION = 4, 18


def contact_sheet(
    index: Index, *, num_each: int = 2, num_columns: int = 8, tile: int = 128, outline: bool = True
) -> Image.Image:
    """Arrange images of each class and kind of defect on one sheet.

    Args:
        index: The data set.
        num_each: Images of each class and defect, evenly spread over those of the data set.
        num_columns: Tiles in a row; each class starts a new row.
        tile: Height and width of an image on the sheet, in pixels.
        outline: Whether defects are outlined along their masks.
    """
    rows: list[list[Sample]] = []
    for class_name in index.class_names:
        chosen = _chosen([s for s in index.samples if s.class_name == class_name], num_each)
        rows += [chosen[i : i + num_columns] for i in range(0, len(chosen), num_columns)]
    width = max(len(row) for row in rows) * (tile + _GAP) + _GAP
    sheet = Image.new("RGB", (width, len(rows) * (tile + _CAPTION + _GAP) + _GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for line, row in enumerate(rows):
        for column, sample in enumerate(row):
            x, y = _GAP + column * (tile + _GAP), _GAP + line * (tile + _CAPTION + _GAP)
            sheet.paste(_tile(sample, tile, index, outline=outline), (x, y))
            caption = fitted(f"{sample.class_name}: {sample.defect}", font, tile)
            draw.text((x, y + tile + 2), caption, fill=_TEXT, font=font)
    return sheet


def _chosen(samples: list[Sample], num_each: int) -> list[Sample]:
    """The wanted number of images of each defect, the normal ones first."""
    defects = dict.fromkeys(sample.defect for sample in samples)
    chosen: list[Sample] = []
    for defect in defects:
        same = [sample for sample in samples if sample.defect == defect]
        places = np.linspace(0, len(same) - 1, min(num_each, len(same))).round().astype(int)
        chosen += [same[place] for place in places]
    return chosen


def _tile(sample: Sample, size: int, index: Index, *, outline: bool) -> Image.Image:
    image = index.read_image(sample).resize((size, size), Image.Resampling.LANCZOS)
    if sample.mask is None or not outline:
        return image
    mask = Image.fromarray(index.read_mask(sample))
    small = np.asarray(mask.convert("L").resize((size, size), Image.Resampling.BOX)) > 0
    pixels = np.array(image)
    pixels[_around(small)] = _OUTLINE
    return Image.fromarray(pixels)


def _around(mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The line one pixel outside a mask."""
    from scipy import ndimage

    near: Bool[np.ndarray, "H W"] = ndimage.binary_dilation(mask)
    return ndimage.binary_dilation(near, structure=np.ones((3, 3))) & ~near


def area_histogram(areas: Sequence[float], width: int) -> Image.Image:
    """Draw how many regions there are of each area, on a logarithmic axis.

    Args:
        areas: Fractions of an image.
        width: Of the picture, in pixels.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    dpi = 100
    figure = Figure(figsize=(width / dpi, 2.6), dpi=dpi, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lowest = np.floor(np.log10(min(areas)))
    axes.hist(areas, bins=np.logspace(lowest, 0, 40).tolist(), color="#3b6ea5")
    axes.set_xscale("log")
    axes.set_xlabel("area of a region, as a fraction of its image")
    axes.set_ylabel("regions")
    axes.set_title(counted(len(areas), "anomalous region"), fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file).convert("RGB")
