"""Small detectors to export."""

import torch

from crane.config import compose
from crane.prediction import AnomalyDetector, DetectorOptions

SHALLOW = (  # exporting takes a second a block
    "backbone.model.architecture.vision_cfg.layers=2",
    "backbone.model.architecture.text_cfg.layers=2",
    "backbone.num_attention_blocks=1",
    "backbone.taps=[1,2]",
)


def tiny_detector(method, *overrides):
    """A method on a random backbone of two blocks."""
    typed = ["backbone=tiny", "image_size=56", "input=none", f"method={method}"]
    typed += [*SHALLOW, *overrides]
    options = DetectorOptions(torch.device("cpu"), "32-true", "none")
    return AnomalyDetector.from_config(compose("predict", typed), None, options)
