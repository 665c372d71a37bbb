"""Similarities to the two sentences, their maps, and the image's score."""

from crane.scoring.formulas import (
    Aggregate,
    full_precision,
    fuse,
    gaussian_blur,
    image_logits,
    image_probability,
    mean_of_softmax_maps,
    similarity_logits,
    softmax_of_mean_logits,
    upsample,
)

__all__ = [
    "Aggregate",
    "full_precision",
    "fuse",
    "gaussian_blur",
    "image_logits",
    "image_probability",
    "mean_of_softmax_maps",
    "similarity_logits",
    "softmax_of_mean_logits",
    "upsample",
]
