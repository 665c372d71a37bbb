"""Prediction on any images: which, how they are read, what is written, where the threshold lies."""

from crane.prediction.calibration import Threshold, calibrate
from crane.prediction.detecting import Detector, DetectorOptions, crane_detector, score_images
from crane.prediction.inputs import ImageFile, ImageList, find_images
from crane.prediction.loading import LoadOptions
from crane.prediction.outputs import OutputOptions
from crane.prediction.predictor import calibrate_on, predict
from crane.prediction.results import PredictSummary
from crane.prediction.settings import Calibration
from crane.prediction.shards import Shard, find_shard, local_rank
from crane.prediction.table import ScoreTable, TableOptions, read_scores

__all__ = [
    "Calibration",
    "Detector",
    "DetectorOptions",
    "ImageFile",
    "ImageList",
    "LoadOptions",
    "OutputOptions",
    "PredictSummary",
    "ScoreTable",
    "Shard",
    "TableOptions",
    "Threshold",
    "calibrate",
    "calibrate_on",
    "crane_detector",
    "find_images",
    "find_shard",
    "local_rank",
    "predict",
    "read_scores",
    "score_images",
]
