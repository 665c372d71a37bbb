"""Pictures that show a data set: samples with their defects outlined, and how large defects are."""

import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from PIL import Image, ImageDraw, ImageFont

from crane.data.index import Index
from crane.errors import counted
from crane.pictures.overlays import fitted
from crane.samples import Sample

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
