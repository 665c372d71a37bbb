"""Scores and maps of batches of images, one transfer each way a batch."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crane.errors import UsageError
from crane.methods import Crane, compile_towers
from crane.prediction.inputs import ImageFile
from crane.prediction.loading import Chunk, LoadOptions, Unreadable, load
from crane.types import Prediction

Detector = Callable[[Tensor], Prediction]
"""A model in evaluation mode on its device: (B, 3, S, S) RGB in [0, 1] to scores and maps."""

PRECISIONS = {"32-true": None, "bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""What the model computes in, under Lightning's names."""


@dataclass(frozen=True)
class DetectorOptions:
    """Where and how a model runs.

    Raises:
        UsageError: for an unknown precision, or one that the device does not have.
    """

    device: torch.device
    """Where it runs."""
    precision: str
    """One of `PRECISIONS`."""
    compile: str | bool
    """A mode of `compile_towers`, or none."""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UsageError(" or ".join(PRECISIONS), self.precision, key="precision")
        if self.precision == "16-mixed" and self.device.type == "cpu":
            raise UsageError(
                "32-true or bf16-mixed on a CPU, which has no 16-bit floats",
                self.precision,
                key="precision or accelerator",
            )

    def autocast(self) -> torch.autocast:
        """Give the block in which the model computes in this precision."""
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)


def crane_detector(model: Crane, options: DetectorOptions) -> Detector:
    """Put a model on its device, ready to score many images.

    Static prompts are encoded once, and before anything is compiled: it would not pay for them.

    Raises:
        UsageError: if there is no such mode to compile in.
    """
    if options.device.type == "cuda":
        torch.cuda.set_device(options.device)
    model.to(options.device).eval()
    with torch.inference_mode(), options.autocast():
        text = model.static_text()
    compile_towers(model, options.compile)

    def detect(images: Float[Tensor, "B 3 S S"]) -> Prediction:
        with options.autocast():
            prediction: Prediction = model(images, text)
        return prediction

    return detect


class Scored(NamedTuple):
    """What the detector said about one image."""

    file: ImageFile
    """Which it is."""
    height: int
    """Its own height in pixels."""
    width: int
    """Its own width."""
    score: float
    """Anomaly score in [0, 1]."""
    map: Float[np.ndarray, "S S"] | None
    """Anomaly probabilities at the model's size; None where no maps were wanted."""


def score_images(
    detector: Detector,
    batches: Iterable[Sequence[ImageFile]],
    options: LoadOptions,
    *,
    device: torch.device,
    with_maps: bool,
) -> Iterator[Scored | Unreadable]:
    """Give each image's score in the images' order, reading ahead.

    On a GPU nothing here waits for the batch that was just handed over: its results are looked at
    when the next batch is on its way.

    Args:
        detector: the model.
        batches: which images it sees together.
        options: how they are read.
        device: where the model is.
        with_maps: whether maps leave the device.

    Raises:
        UsageError: for an unreadable image with `on_error` `fail`, and for scores or maps that are
            not finite, naming the image.
    """
    under_way: deque[_Answer] = deque()
    for chunk in load(batches, options, pin_memory=device.type == "cuda"):
        if options.on_error == "fail" and chunk.unreadable:
            first = chunk.unreadable[0]
            raise UsageError(
                "an image that can be read",
                first.file.path,
                key="on_error to skip it",
                hint=first.reason,
            )
        under_way.append(_Answer(detector, chunk, device, with_maps=with_maps))
        if len(under_way) > 1:
            yield from under_way.popleft().outcomes()
    while under_way:
        yield from under_way.popleft().outcomes()


class _Answer:
    """What the detector says about a batch, on its way from the device."""

    def __init__(
        self, detector: Detector, chunk: Chunk, device: torch.device, *, with_maps: bool
    ) -> None:
        self.chunk, self.maps, self.arrival = chunk, None, None
        if not chunk.loaded:
            return
        # Elsewhere, copies that do not wait may be looked at before they are there.
        unwaiting = device.type == "cuda"
        with torch.inference_mode():
            score, map = detector(chunk.images.to(device, non_blocking=unwaiting))
            is_finite = score.isfinite() & map.isfinite().flatten(1).all(1)
            facts = torch.stack([score.float(), is_finite.float()])
            self.facts = facts.to("cpu", non_blocking=unwaiting)
            if with_maps:
                self.maps = map.float().to("cpu", non_blocking=unwaiting)
        if unwaiting:
            self.arrival = torch.cuda.Event()
            self.arrival.record()

    def outcomes(self) -> list[Scored | Unreadable]:
        """Wait for it, and sort it with what could not be read."""
        outcomes: list[Scored | Unreadable] = list(self.chunk.unreadable)
        if self.chunk.loaded:
            if self.arrival is not None:
                self.arrival.synchronize()
            scores, are_finite = self.facts.tolist()
            for i, (file, height, width) in enumerate(self.chunk.loaded):
                if not are_finite[i]:
                    raise UsageError(
                        "finite scores",
                        f"NaN or infinity for {file.path}",
                        hint="a half-precision model may need precision=32-true",
                    )
                map = None if self.maps is None else self.maps[i].numpy()
                outcomes.append(Scored(file, height, width, scores[i], map))
        return sorted(outcomes, key=lambda outcome: outcome.file.place)
