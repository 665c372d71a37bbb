"""Prediction on any images: finding, reading and scoring them, and writing what was found."""

from crane.prediction.calibration import Calibration, Threshold, calibrate
from crane.prediction.image_scoring import (
    Detector,
    DetectorOptions,
    ImageScore,
    LoadOptions,
    crane_detector,
    find_device,
    score_images,
)
from crane.prediction.inputs import ImageList, find_images
from crane.prediction.outputs import OutputOptions
from crane.prediction.predictor import predict, write_predictions
from crane.prediction.shards import Shard, find_shard
from crane.prediction.table import PredictSummary, ScoreTable, read_scores

__all__ = [
    "Calibration",
    "Detector",
    "DetectorOptions",
    "ImageList",
    "ImageScore",
    "LoadOptions",
    "OutputOptions",
    "PredictSummary",
    "ScoreTable",
    "Shard",
    "Threshold",
    "calibrate",
    "crane_detector",
    "find_device",
    "find_images",
    "find_shard",
    "predict",
    "read_scores",
    "score_images",
    "write_predictions",
]
