"""Prediction on any images: which, how they are read, what is written, where the threshold lies."""

from crane.prediction.calibration import Threshold, calibrate
from crane.prediction.inputs import ImageList, find_images
from crane.prediction.loading import LoadOptions
from crane.prediction.outputs import OutputOptions
from crane.prediction.predictor import (
    Detector,
    PredictSummary,
    calibrate_on,
    predict,
    score_images,
)
from crane.prediction.scores import read_scores

__all__ = [
    "Detector",
    "ImageList",
    "LoadOptions",
    "OutputOptions",
    "PredictSummary",
    "Threshold",
    "calibrate",
    "calibrate_on",
    "find_images",
    "predict",
    "read_scores",
    "score_images",
]
