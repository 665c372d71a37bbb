"""The words the layers exchange, with their shapes.

Letters used in every signature: B images, H x W pixels, M local embeddings of an image, N = h x w
patches, E the joint width of image and text, C guide channels, L tokens of a sentence.
"""

from typing import NamedTuple, TypedDict

from jaxtyping import Bool, Float, Int
from torch import Tensor

from crane.samples import ANOMALOUS, NORMAL, Sample

__all__ = [
    "ANOMALOUS",
    "NORMAL",
    "Batch",
    "Prediction",
    "Sample",
    "TokenBatch",
    "Truth",
    "VisionTokens",
]


class Truth(TypedDict):
    """What is known of a batch of images, beside the images themselves."""

    mask: Int[Tensor, "B H W"]
    """0 where normal, r > 0 on the r-th 8-connected anomalous region (int32)."""
    has_mask: Bool[Tensor, " B"]
    """Whether `mask` is known. True for normal images of data sets that have masks."""
    label: Int[Tensor, " B"]
    """`NORMAL` or `ANOMALOUS` (int64)."""
    class_id: Int[Tensor, " B"]
    """Position in the data set's `class_names` (int64)."""
    index: Int[Tensor, " B"]
    """Position in the data set's `samples` (int64)."""


class Batch(Truth):
    """What the loaders yield."""

    image: Float[Tensor, "B 3 H W"]
    """RGB in [0, 1]; each tower normalises for itself."""


class TokenBatch(Truth):
    """What they yield in its place where the towers' output is cached."""

    global_: Float[Tensor, "B E"]
    """Global embeddings, as stored."""
    patches: Float[Tensor, "B M h w E"]
    """Local embeddings, as stored."""


class VisionTokens(NamedTuple):
    """What the frozen towers say about images; all a trainable part ever needs of them."""

    global_: Float[Tensor, "B E"]
    """Unit-norm global embeddings g."""
    patches: Float[Tensor, "M B N E"]
    """Unit-norm patches of each local embedding: D before Z where both are on."""
    grid: tuple[int, int]
    """Rows h and columns w of the patches, N = h * w in row-major order."""


class Prediction(NamedTuple):
    """What the method says about images."""

    score: Float[Tensor, " B"]
    """Anomaly score of each image in [0, 1]."""
    map: Float[Tensor, "B H W"]
    """Anomaly probability of each pixel in [0, 1]."""
