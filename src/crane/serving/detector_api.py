"""What each worker of a server does: decode, score and describe images in batches."""

import base64
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import parent_process
from queue import Empty
from typing import Annotated, Any

import torch
from fastapi import Depends
from fastapi.responses import JSONResponse
from litserve import LitAPI
from litserve.loops.simple_loops import BatchedLoop
from omegaconf import DictConfig
from PIL import Image

from crane.data.images import rgb_from_bytes
from crane.errors import UsageError
from crane.methods import open_checkpoint
from crane.pictures import png_map
from crane.prediction import AnomalyDetector, DetectorOptions, ImageResult, Threshold
from crane.serving.admission import PATH, Limits, Upload, read_upload

IDLE = 0.05
"""Seconds that a worker waits for a request before it looks again whether it is to end."""


@dataclass(frozen=True)
class Refused:
    """What an image is answered with that cannot be scored."""

    code: int
    said: str


class _Preceded:
    """A queue with one more entry in front."""

    def __init__(self, first: object, queue: Any) -> None:
        self.first, self.queue = [first], queue

    def get(self, timeout: float) -> Any:
        """The next entry."""
        return self.first.pop() if self.first else self.queue.get(timeout=timeout)

    def get_nowait(self) -> Any:
        """The next entry, if there is one already."""
        return self.first.pop() if self.first else self.queue.get_nowait()


class WaitingLoop(BatchedLoop):
    """LitServe's loop, which would otherwise ask for requests without a pause."""

    def get_batch_requests(
        self, lit_api: LitAPI, request_queue: Any, transport: Any
    ) -> tuple[list[Any], list[Any]]:
        """Wait for a request; once there is one, fill the batch."""
        try:
            first = request_queue.get(timeout=IDLE)
        except Empty:
            return [], []
        return super().get_batch_requests(lit_api, _Preceded(first, request_queue), transport)


class DetectorAPI(LitAPI):
    """What each worker does: decode, score and describe images.

    Args:
        config: Of `crane serve`, with the model of the checkpoint in it (`adopt_config`).
        limits: What is refused.
    """

    def __init__(self, config: DictConfig, limits: Limits) -> None:
        super().__init__(
            max_batch_size=config.max_batch_size,
            batch_timeout=config.batch_timeout,
            api_path=PATH,
            loop=WaitingLoop(),
        )
        self.config, self.limits = config, limits
        self.detector: AnomalyDetector | None = None

    def setup(self, device: str) -> None:
        """Load the model of a worker, which ends with the process that started it."""
        threading.Thread(target=_end_with_parent, daemon=True).start()
        config, checkpoint = self.config, None
        try:
            if config.checkpoint is not None:
                checkpoint = open_checkpoint(
                    config.checkpoint, config.weights_dir, allow_download=False
                )
            options = worker_options(config, device)
            self.detector = AnomalyDetector.from_config(config, checkpoint, options)
        except UsageError as error:
            print(f"crane: {error}", file=sys.stderr)
            raise SystemExit(2) from error
        if config.threshold is not None:
            self.detector.threshold = Threshold(float(config.threshold))

    def decode_request(
        self, request: Annotated[Upload, Depends(read_upload)]
    ) -> tuple[Image.Image | Refused, bool]:
        """The image, or why there is none; and whether its map is wanted."""
        try:
            image = rgb_from_bytes(
                request.image,
                "the image",
                max_pixels=self.limits.max_pixels,
                white_level=self.config.white_level,
            )
        except UsageError as error:
            return Refused(413 if error.key == "max_pixels" else 400, str(error)), False
        return image, request.with_map

    def batch(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Keep images as they are: they differ in size."""
        return inputs

    def predict(
        self, requests: Sequence[tuple[Image.Image | Refused, bool]]
    ) -> list[tuple[ImageResult | Refused, bool]]:
        """Score the images of a batch together; one that cannot be read concerns no other."""
        images = [one for one, _ in requests if not isinstance(one, Refused)]
        scored: list[ImageResult | Refused]
        try:
            assert self.detector is not None
            scored = self.detector.predict(images, batch_size=len(images)) if images else []
        except UsageError as error:  # such as NaN in half precision
            scored = [Refused(500, str(error)) for _ in images]
        results = iter(scored)
        return [
            (one if isinstance(one, Refused) else next(results), with_map)
            for one, with_map in requests
        ]

    def encode_response(self, output: tuple[ImageResult | Refused, bool]) -> JSONResponse:
        """Score, verdict, threshold, regions, size, and the map if wanted."""
        result, with_map = output
        if isinstance(result, Refused):
            return JSONResponse({"detail": result.said}, result.code)
        height, width = result.map.shape
        content = {**result.facts(), "height": height, "width": width}
        if with_map:
            content["map"] = base64.b64encode(png_map(result.map)).decode()
        return JSONResponse(content)


def worker_options(config: DictConfig, device: str) -> DetectorOptions:
    """How the model of a worker runs.

    Args:
        config: Of `crane serve`.
        device: As LitServe names it, such as `cuda:1`.
    """
    return DetectorOptions(torch.device(device), config.precision, config.compile)


def _end_with_parent() -> None:
    """Leave when the process that started this one is gone, however it ended."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
