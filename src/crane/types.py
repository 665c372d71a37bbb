"""The words the layers exchange, with their shapes.

Letters used in every signature: B images, H x W pixels, M local embeddings of an image, N = h x w
patches, E the joint width of image and text, C guide channels, L tokens of a sentence.
"""

from typing import NamedTuple, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crane.errors import UsageError
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
    "check_images",
]


class Truth(TypedDict):
    """What is known of a batch of images, beside the images themselves."""

    mask: Int[Tensor, "B H W"]
    """0 where normal, r > 0 on the r-th 8-connected anomalous region (int32)."""
    has_mask: Bool[Tensor, " B"]
    """Whether `mask` is known. True for normal images of data sets that have masks. The loaders'
    stays on the host, which decides by it, as does `class_id`."""
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


def check_images(images: object, size: int) -> None:
    """Refuse what a model was not made for: it would be scored all the same, and wrongly.

    Reads the lowest and highest value back, so an accelerator's host waits: for what users pass.

    Args:
        images: What should be RGB in [0, 1], of shape (B, 3, `size`, `size`) and a float type.
        size: Height and width that the model was made for, in pixels.

    Raises:
        UsageError: It is something else.

    >>> check_images(torch.zeros(1, 3, 56, 56, dtype=torch.uint8), size=56)
    Traceback (most recent call last):
    crane.errors.UsageError: images must be float RGB from 0 to 1, not uint8; divide by 255
    """
    if not isinstance(images, Tensor):
        raise UsageError(f"images must be a float tensor, not {type(images).__name__}")
    if not images.is_floating_point():
        kind = str(images.dtype).removeprefix("torch.")
        divide = "; divide by 255" if images.dtype == torch.uint8 else ""
        raise UsageError(f"images must be float RGB from 0 to 1, not {kind}{divide}")
    wanted, shape = f"(images, 3, {size}, {size})", tuple(images.shape)
    if len(shape) == 3:
        raise UsageError(
            f"images must have the shape {wanted}, not {shape}; add the axis of images"
        )
    if len(shape) != 4 or shape[1] != 3:
        raise UsageError(f"images must be RGB of shape {wanted}, not {shape}")
    if shape[2:] != (size, size):
        raise UsageError(
            f"images must be {size} x {size} pixels, not {shape[2]} x {shape[3]}; the model "
            "was made for that size, and scores of others differ"
        )
    if not images.numel():
        return
    lowest, highest = (float(end) for end in images.aminmax())
    if not (lowest >= 0 and highest <= 1):  # NaN is neither
        hint = "divide by 255" if lowest >= 0 and 2 < highest <= 255 else "do not normalise them"
        raise UsageError(
            f"images must have values from 0 to 1, not {lowest:g} to {highest:g}; {hint}"
        )


class HostCopy:
    """Starts copying tensors to the host; `wait` returns the copies once they have arrived.

    On a GPU the copies are non-blocking, so that the next batch can be launched meanwhile. Tensors
    of other devices are copied at once, since non-blocking copies could be read too early there.

    Args:
        tensors: Tensors of any shape, all on one device.

    >>> HostCopy(torch.ones(2)).wait()
    (tensor([1., 1.]),)
    """

    def __init__(self, *tensors: Tensor) -> None:
        device = tensors[0].device
        is_cuda = device.type == "cuda"
        self._copies = tuple(tensor.to("cpu", non_blocking=is_cuda) for tensor in tensors)
        self._arrival: torch.cuda.Event | None = None
        if is_cuda:
            self._arrival = torch.cuda.Event()
            self._arrival.record(torch.cuda.current_stream(device))

    def wait(self) -> tuple[Tensor, ...]:
        """The copies, in the order of the tensors."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._copies
