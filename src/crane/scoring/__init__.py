"""Similarities to the two sentences, their maps, and the image's score."""

from crane.scoring.fusion import fuse
from crane.scoring.maps import (
    Aggregate,
    gaussian_blur,
    mean_of_softmax_maps,
    softmax_of_mean_logits,
    upsample,
)
from crane.scoring.precision import full_precision
from crane.scoring.similarity import similarity_logits

__all__ = [
    "Aggregate",
    "full_precision",
    "fuse",
    "gaussian_blur",
    "mean_of_softmax_maps",
    "similarity_logits",
    "softmax_of_mean_logits",
    "upsample",
]
