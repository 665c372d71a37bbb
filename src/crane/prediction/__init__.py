"""Prediction on any images: finding, reading and scoring them, and writing what was found."""

from crane.prediction.anomaly_detector import AnomalyDetector, load
from crane.prediction.calibration import Calibration, Threshold, calibrate
from crane.prediction.image_scoring import (
    Detector,
    DetectorOptions,
    ImageScore,
    LoadOptions,
    find_device,
    score_images,
)
from crane.prediction.inputs import ImageList, find_images
from crane.prediction.outputs import ImageResult, OutputOptions
from crane.prediction.predictor import predict, write_predictions
from crane.prediction.table import PredictSummary, ScoreTable, read_scores
from crane_runtime import Region, find_regions

__all__ = [
    "AnomalyDetector",
    "Calibration",
    "Detector",
    "DetectorOptions",
    "ImageList",
    "ImageResult",
    "ImageScore",
    "LoadOptions",
    "OutputOptions",
    "PredictSummary",
    "Region",
    "ScoreTable",
    "Threshold",
    "calibrate",
    "find_device",
    "find_images",
    "find_regions",
    "load",
    "predict",
    "read_scores",
    "score_images",
    "write_predictions",
]
