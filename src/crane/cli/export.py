"""`crane export`: a checkpoint as one file, compared with PyTorch on a few images."""

from itertools import islice
from pathlib import Path

import numpy as np
from omegaconf import DictConfig
from PIL import Image
from rich.console import Console
from rich.markup import escape

from crane.cli.commands import read_checkpoint
from crane.config import plain
from crane.data.images import read_rgb
from crane.drawn import embedded_domain
from crane.drawn.scene import render
from crane.errors import UsageError
from crane.files import shown_path
from crane.prediction import AnomalyDetector, DetectorOptions, Threshold, find_device, find_images
from crane.prediction.exporting import FORMATS, differences

NUM_COMPARED = 4
"""Images on which a file is compared with PyTorch."""
NUM_CALIBRATED = 128
"""Images on which the ranges of int8 are measured."""


def export(config: DictConfig) -> None:
    """Write the file, run it, and print how far it is from PyTorch.

    Raises:
        UsageError: The method is not one graph, or a value is wrong.
    """
    console = Console(highlight=False)
    suffix = FORMATS[config.format]
    path = Path(config.output or Path(config.run_dir) / f"model{suffix}").expanduser()
    if path.suffix != suffix:
        raise UsageError(
            f"{path.name} must end in {suffix} for format={config.format}", key="output"
        )
    checkpoint, config, _ = read_checkpoint(config)
    options = DetectorOptions(find_device("cpu"), "32-true", config.compile)
    detector = AnomalyDetector.from_config(config, checkpoint, options)
    if config.threshold is not None:
        detector.threshold = Threshold(float(config.threshold))
    size = plain(config)["size"]
    images = None if config.input is None else list(find_images(plain(config)["input"]))
    calibration = None
    if config.precision == "int8" and images is not None:
        calibration = (_sized(read_rgb(one), size) for one in islice(images, NUM_CALIBRATED))
    detector.export(path, precision=config.precision, size=size, calibration=calibration)
    compared = _drawn() if images is None else map(read_rgb, islice(images, NUM_COMPARED))
    apart = differences(detector, path, [_sized(one, size) for one in compared])
    console.print(f"model     {escape(shown_path(path))}", soft_wrap=True)
    where = "drawn images" if images is None else "the first images of input"
    console.print(
        f"compared  with PyTorch on {where}: scores differ by at most {apart.score:.1e}, "
        f"maps by {apart.map:.1e}, on average {apart.mean_map:.1e}",
        soft_wrap=True,
    )


def _drawn() -> list[Image.Image]:
    """A few embedded photographs, normal and anomalous."""
    domain = embedded_domain("photos")
    pictures = domain.pictures()
    chosen = pictures[:: len(pictures) // NUM_COMPARED][:NUM_COMPARED]
    return [Image.fromarray(render(domain, one).image) for one in chosen]


def _sized(image: Image.Image, size: list[int] | None) -> np.ndarray:
    """An image as an array, resized if the file takes images of one size only."""
    return np.asarray(image if size is None else image.resize((size[1], size[0])))
