"""Score images with an exported detector: numpy, pillow and onnxruntime, no PyTorch.

    import crane_runtime

    model = crane_runtime.load("model.onnx")
    result = model.predict("photo.jpg")

Results equal those of `crane.load`, to 1e-4 in fp32; see docs/export.md.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from crane.errors import UsageError
from crane_runtime.reading import as_rgb, from_numbers, naming, read_rgb
from crane_runtime.results import Region, Result, Threshold, find_regions

__all__ = ["Model", "Region", "Result", "Threshold", "find_regions", "load"]


class Model:
    """An exported detector; `load` makes one. Several threads may use it at once.

    Args:
        session: An `onnxruntime.InferenceSession`.
        facts: What the file says of itself: method, checkpoint, image_size, versions, ...
        threshold: What decides; None for none.
    """

    def __init__(self, session: Any, facts: Mapping[str, str], threshold: Threshold | None) -> None:
        self.session, self.facts, self.threshold = session, facts, threshold

    def predict(self, images: Any, *, batch_size: int = 8) -> Any:
        """Score one image or many.

        Args:
            images: A file; a PIL image; an array (H, W, 3), (H, W, 4) or (H, W) of uint8, of uint16
                or of floats from 0 to 1; or a list, stack or iterator of these.
            batch_size: Images of one size in a forward pass.

        Returns:
            For one image a `Result`, for a list or stack a list, for an iterator an iterator.

        Raises:
            UsageError: An image is of another type, shape or range, or cannot be read; names it.
        """
        if isinstance(images, (str, Path, Image.Image)):
            return next(self._results([images], 1))
        if isinstance(images, np.ndarray) and images.ndim < 4:
            return next(self._results([images], 1))
        if not isinstance(images, Iterable):
            kind = type(images).__name__
            raise UsageError(f"images must be paths, PIL images or arrays, not {kind}")
        if not isinstance(batch_size, int) or batch_size < 1:
            raise UsageError(f"batch_size must be an integer of at least 1, not {batch_size!r}")
        results = self._results(images, batch_size)
        return results if isinstance(images, Iterator) else list(results)

    __call__ = predict

    def _results(self, images: Iterable[Any], batch_size: int) -> Iterator[Result]:
        named = (
            (one, _rgb(one, str(one) if isinstance(one, (str, Path)) else f"image {place}"))
            for place, one in enumerate(images, start=1)
        )
        for _, alike in groupby(enumerate(named), key=_alike(batch_size)):
            batch = [one for _, one in alike]
            score, maps = self._run(np.stack([np.asarray(image) for _, image in batch]))
            for (one, image), value, map in zip(batch, score, maps, strict=True):
                is_file = isinstance(one, (str, Path))
                path, source = (str(one), None) if is_file else (None, image)
                yield Result(float(value), map, self.threshold, path, source)

    def _run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        wanted = self.session.get_inputs()[0].shape[1:3]
        for side, needed in zip(pixels.shape[1:3], wanted, strict=True):
            if isinstance(needed, int) and side != needed:
                raise UsageError(
                    f"the model takes images of {wanted[0]} x {wanted[1]} pixels (height x width), "
                    f"not {pixels.shape[1]} x {pixels.shape[2]}; resize them, or export with "
                    "size=null",
                    key="size",
                )
        score, map = self.session.run(["score", "map"], {"images": pixels})
        if not (np.isfinite(score).all() and np.isfinite(map).all()):
            raise UsageError("the model gives NaN or infinity; export it with precision=fp32")
        return score, map


def load(path: str | Path, *, threshold: float | None = None, **options: Any) -> Model:
    """Load a file of `crane export`, ready to predict.

    Args:
        path: The `.onnx` file.
        threshold: Scores from here on are anomalous; the file's own unless given.
        **options: More arguments of `onnxruntime.InferenceSession`, such as `providers`.

    Raises:
        UsageError: There is no such file, or crane did not write it.
    """
    import onnxruntime

    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no model file {path}")
    options.setdefault("providers", ["CPUExecutionProvider"])
    try:
        session = onnxruntime.InferenceSession(path, **options)
        facts = dict(session.get_modelmeta().custom_metadata_map)
        stored = json.loads(facts["threshold"])
        own = None if stored is None else Threshold(**stored)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path} was not written by crane export: {error}") from error
    except Exception as error:  # onnxruntime's own classes have no common parent
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{path} cannot be loaded by onnxruntime: {reason}") from error
    return Model(session, facts, own if threshold is None else Threshold(float(threshold)))


def _rgb(image: Any, name: str) -> Image.Image:
    if isinstance(image, (str, Path)):
        return read_rgb(image)
    if isinstance(image, Image.Image):
        with naming(name, "image"):
            return as_rgb(ImageOps.exif_transpose(image), name)
    if isinstance(image, np.ndarray):
        return from_numbers(image, name, None)
    kind = type(image).__name__
    raise UsageError(f"{name} must be a path, a PIL image or an array (H, W, 3), not {kind}")


def _alike(batch_size: int) -> Any:
    """A key under which neighbours of one size are grouped, at most `batch_size` of them."""
    state: dict[str, Any] = {"size": None, "count": 0, "group": 0}

    def key(numbered: tuple[int, tuple[Any, Image.Image]]) -> int:
        size = numbered[1][1].size
        if size != state["size"] or state["count"] == batch_size:
            state.update(size=size, count=0, group=state["group"] + 1)
        state["count"] += 1
        return int(state["group"])

    return key
