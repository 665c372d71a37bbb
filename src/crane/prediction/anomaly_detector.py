"""A loaded model that takes whatever Python users have as images: `crane.load`."""

import dataclasses
import json
import logging
import threading
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Float, UInt8
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor

from crane import schema
from crane.config import compose
from crane.data.images import EXACT, AnyImage, any_rgb, image_to_tensor, is_one_image
from crane.errors import UsageError
from crane.files import sha256
from crane.methods import (
    AUTO,
    OBJECT,
    PromptCheckpoint,
    adopt_config,
    build_model,
    compile_towers,
    default_checkpoint,
    model_config,
    open_checkpoint,
    save_prompts,
)
from crane.methods import Detector as Method
from crane.pictures import resize_map
from crane.prediction.calibration import Threshold, calibrate
from crane.prediction.image_scoring import DetectorOptions, Precision, find_device
from crane.prediction.inputs import LIST_SUFFIXES, find_images
from crane.prediction.outputs import ImageResult
from crane.types import Prediction
from crane.views import Crop, View, Whole, build_view, cut
from crane.weights import MINI_CLIP

logger = logging.getLogger(__name__)

THRESHOLD = "threshold"
"""The entry of a checkpoint's `info` that holds a calibrated threshold."""

TOY = (
    "the backbone mini is a toy that has seen drawings only: its scores of other images say "
    "little; for CLIP's own weights, choose the checkpoint crane_mvtec or crane_plus_mvtec"
)

if TYPE_CHECKING:
    Images = AnyImage | Iterable[AnyImage]
else:  # checkers of types at run time leave it to `predict` to say what is wrong
    Images = Any


class AnomalyDetector:
    """A model on its device; `crane.load` makes one. Several threads may use it at once.

    Args:
        model: The method's detector, with what it learned.
        options: Where and how it runs.
        image_size: Side of the square that images are resized to, in pixels.
        class_name: What the images show, for methods whose sentences name it.
        threshold: What decides, if there is one already.
        config: The configuration of the model, which `save` writes.
        view: How images are looked at; as a whole unless given.
    """

    def __init__(
        self,
        model: Method[Any, Any],
        options: DetectorOptions,
        *,
        image_size: int,
        class_name: str = OBJECT[0],
        threshold: Threshold | None = None,
        config: DictConfig | None = None,
        view: View | None = None,
    ) -> None:
        self.view = view or Whole(resolution="model")
        self.model, self.options, self.image_size = model, options, image_size
        self.threshold, self.config, self.class_name = threshold, config, class_name
        self.origin: dict[str, Any] = {}
        self.resizer = EXACT if config is None else resizer_of(config)
        self._lock = threading.Lock()
        if options.device.type == "cuda":
            torch.cuda.set_device(options.device)
        model.to(options.device).eval()
        # The text is encoded once, before anything is compiled: for one call that would not pay.
        with torch.inference_mode(), options.autocast():
            self._text = model.encode_classes([class_name])
        compile_towers(model, options.compile)

    @classmethod
    def from_config(
        cls,
        config: DictConfig,
        checkpoint: PromptCheckpoint | None,
        options: DetectorOptions,
    ) -> "AnomalyDetector":
        """Build the model of a configuration, with what a checkpoint holds in it.

        Args:
            config: With the model of the checkpoint in it (`adopt_config`), and `class_name`.
            checkpoint: What was learned; None for methods that train nothing.
            options: Where and how it runs.

        Raises:
            UsageError: Parts do not fit each other, or weights are missing.
        """
        if config.backbone.model.architecture == MINI_CLIP:
            logger.warning(TOY)
        view, model = build_view(config), build_model(config)
        if checkpoint is not None:
            model.load_learned(checkpoint.prompts)
        detector = cls(
            model,
            options,
            image_size=config.image_size,
            class_name=config.class_name,
            threshold=stored_threshold(checkpoint),
            config=config,
            view=view,
        )
        if checkpoint is not None:
            detector.origin = {
                "checkpoint": checkpoint.name,
                "checkpoint_sha256": checkpoint.path and sha256(checkpoint.path),
                "sources": checkpoint.info.get("sources", {}),
            }
        return detector

    def score_batch(
        self, images: Float[Tensor, "B 3 S S"], size: tuple[int, int] | None = None
    ) -> Prediction:
        """Score images that lie on the device: RGB in [0, 1] at the size of the model.

        Args:
            images: The images.
            size: Height and width of the maps; those of the images unless given.
        """
        with self._lock, self.options.autocast():
            size = size or (images.shape[-2], images.shape[-1])
            class_id = torch.zeros(len(images), dtype=torch.int64)  # the host reads it
            return self.model.predict(self.model.encode(images), self._text, class_id, size)

    def score_view(self, image: UInt8[np.ndarray, "H W 3"], *, batch_size: int) -> Prediction:
        """Score an RGB image through the crops of the view.

        Args:
            image: The image at its own size.
            batch_size: Crops in a forward pass.

        Returns:
            A score of shape (1,) and a map as of `View.predict`.
        """

        def score(crops: Sequence[Crop], size: tuple[int, int]) -> Prediction:
            pixels = cut(image, crops, self.resizer).to(self.options.device)
            return self.score_batch(pixels, size)

        height, width = image.shape[:2]
        return self.view.predict(height, width, self.image_size, batch_size, score)

    def predict(self, images: Images, *, batch_size: int = 8) -> Any:
        """Score one image or many.

        Args:
            images: A file; a PIL image; an array (H, W, 3) or (H, W), or a tensor (3, H, W), of
                uint8 or of floats from 0 to 1; a stack, list, iterator or generator of these; a
                folder, a glob, or a `.txt` file that lists images.
            batch_size: Images in a forward pass, or crops of one image.

        Returns:
            For one image an `ImageResult`; for a stack or list a list of them; for a folder, glob,
            list file, iterator or generator an iterator, which reads and scores as it is consumed.

        Raises:
            UsageError: An image is of another type, shape or range, or cannot be read; names it.
        """
        schema.check("predict", {"batch_size": batch_size})
        if isinstance(images, (str, Path)):
            file = Path(images).expanduser()
            if file.is_file() and file.suffix.lower() not in LIST_SUFFIXES:
                return next(self._results(iter([file]), 1))
            return self._results(iter(find_images(images, key="images")), batch_size)
        if is_one_image(images):
            return next(self._results(iter([images]), 1))
        if not isinstance(images, Iterable):
            kind = type(images).__name__
            raise UsageError(f"images must be paths, PIL images, arrays or tensors, not {kind}")
        results = self._results(iter(images), batch_size)
        return results if isinstance(images, Iterator) else list(results)

    __call__ = predict

    def _results(self, images: Iterator[Any], batch_size: int) -> Iterator[ImageResult]:
        number = 0
        while batch := list(islice(images, batch_size if self.view.is_whole else 1)):
            read = [
                any_rgb(one, str(one) if isinstance(one, (str, Path)) else f"image {place}")
                for place, one in enumerate(batch, start=number + 1)
            ]
            number += len(batch)
            scores, maps = self._scored(read, batch_size)
            for one, image, score, map in zip(batch, read, scores, maps, strict=True):
                is_file = isinstance(one, (str, Path))
                yield ImageResult(
                    score,
                    resize_map(map.numpy(), image.height, image.width),
                    self.threshold,
                    str(one) if is_file else None,
                    None if is_file else image,
                )

    def _scored(
        self, images: Sequence[Image.Image], batch_size: int
    ) -> tuple[list[float], Float[Tensor, "B H W"]]:
        """Scores and maps of a batch of images, or of one image through the crops of the view."""
        with torch.inference_mode():
            if self.view.is_whole:
                pixels = torch.stack(
                    [image_to_tensor(image, self.image_size, self.resizer) for image in images]
                )
                score, map = self.score_batch(pixels.to(self.options.device))
            else:
                (image,) = images
                score, map = self.score_view(np.asarray(image), batch_size=batch_size)
            score, map = score.float().cpu(), map.float().cpu()
        if not (score.isfinite().all() and map.isfinite().all()):
            raise UsageError(
                "the model gives NaN or infinity; precision='32-true' avoids overflows of half "
                "precision",
                key="precision",
            )
        return score.tolist(), map

    def calibrate(
        self, normal_images: Images, false_alarm_rate: float = 0.05, *, batch_size: int = 8
    ) -> Threshold:
        """Choose and keep the threshold from images known to be normal; see `calibrate`.

        Args:
            normal_images: As `predict` takes them.
            false_alarm_rate: The rate of normal images that may be called anomalous.
            batch_size: Images in a forward pass.

        Returns:
            The threshold, which results have from now on, and which `save` writes.

        Raises:
            UsageError: As `predict`; or the rate is not above 0 and below 1.
        """
        results = self.predict(normal_images, batch_size=batch_size)
        results = [results] if isinstance(results, ImageResult) else results
        facts = [(result.score, float(result.map.max())) for result in results]
        scores, peaks = [score for score, _ in facts], [peak for _, peak in facts]
        self.threshold = calibrate(scores, false_alarm_rate, peaks)
        return self.threshold

    def save(self, path: str | Path) -> Path:
        """Write a checkpoint (`.safetensors`): what was learned, its configuration, the threshold.

        `crane.load` and every `checkpoint=` read it.

        Raises:
            UsageError: The name ends otherwise, or the model was not loaded by crane.
        """
        path = Path(path).expanduser()
        if path.suffix != ".safetensors":
            wanted = path.with_suffix(".safetensors").name
            raise UsageError(f"{path.name} must end in .safetensors, as {wanted}")
        if self.config is None:
            raise UsageError("this model has no configuration to save; load it with crane.load")
        decided = {} if self.threshold is None else {THRESHOLD: dataclasses.asdict(self.threshold)}
        sources = self.origin.get("sources")
        info = json.loads(json.dumps({**({"sources": sources} if sources else {}), **decided}))
        save_prompts(path, self.model, model_config(self.config), info)
        return path

    def export(
        self,
        path: str | Path,
        *,
        precision: str = "fp32",
        size: Sequence[int] | None = None,
        calibration: Images | None = None,
    ) -> Path:
        """Write one graph from camera images to scores and maps, for use without crane.

        Args:
            path: `.onnx`, `.pt2` (torch.export) or `.xml` (OpenVINO).
            precision: `fp32`, `fp16`, or for ONNX `int8`.
            size: Height and width of all images in pixels; None for a graph that takes any.
            calibration: Images, as `predict` takes them, on which the ranges of int8 are measured;
                None measures them anew for each image.

        Returns:
            The path. With a threshold the graph decides, too.

        Raises:
            UsageError: The method is not one graph, or a value is wrong.
        """
        from crane.prediction.exporting import export

        arrays = None
        if calibration is not None:
            arrays = (np.asarray(any_rgb(one, str(one))) for one in _each(calibration))
        return export(self, path, precision=precision, size=size, calibration=arrays)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        repo: str = "owner/name",
        licence: str | None = None,
        results: str | Path | None = None,
    ) -> Path:
        """Write a folder for the Hugging Face Hub: checkpoint, `config.json` and a model card.

        Args:
            folder: Made if missing; files of the same names are replaced.
            repo: The repository that the card names.
            licence: Of what was learned, as the hub names it, such as `mit`.
            results: The folder of a run, whose numbers the card shows.

        Returns:
            The folder; `crane.load` reads its `model.safetensors`.

        Raises:
            UsageError: As `save`; or there are no such results.
        """
        from crane.prediction.hub_folder import save_folder

        return save_folder(self, folder, repo=repo, licence=licence, results=results)

    def push_to_hub(
        self,
        repo: str,
        *,
        licence: str | None = None,
        results: str | Path | None = None,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes; `crane.load("hf://OWNER/NAME")` reads it.

        Args:
            repo: `OWNER/NAME`; created if missing.
            licence: As of `save_pretrained`.
            results: As of `save_pretrained`.
            private: Whether a repository that is created is private.
            token: Of the hub; that of `hf auth login` unless given.

        Returns:
            The address of the commit.

        Raises:
            UsageError: As `save_pretrained`; or the hub cannot be reached, or refuses.
        """
        from crane.prediction.hub_folder import push_folder

        return push_folder(
            self, repo, licence=licence, results=results, private=private, token=token
        )

    def __repr__(self) -> str:
        name = type(self.model).__name__
        decides = "no threshold" if self.threshold is None else f"{self.threshold.value:.3g}"
        return (
            f"<{name} for images of {self.image_size} x {self.image_size} pixels on "
            f"{self.options.device}, {decides}>"
        )


def _each(images: Images) -> Iterable[Any]:
    """The images of whatever `predict` takes, one by one."""
    if isinstance(images, (str, Path)):
        return find_images(str(images), key="images")
    return [images] if is_one_image(images) else cast(Iterable[Any], images)


def resizer_of(config: DictConfig) -> str:
    """How a method resizes images; a few have ways of their own (`data.resizer`)."""
    return str(OmegaConf.select(config, "data.resizer", default=EXACT))


def stored_threshold(checkpoint: PromptCheckpoint | None) -> Threshold | None:
    """The threshold that a checkpoint carries, if any.

    Raises:
        UsageError: What it carries is none.
    """
    content = None if checkpoint is None else checkpoint.info.get(THRESHOLD)
    if content is None:
        return None
    try:
        return Threshold(**content)
    except (TypeError, ValueError) as error:
        assert checkpoint is not None
        raise UsageError(
            f"the threshold in {checkpoint.name} cannot be read ({error}); calibrate again",
            key="checkpoint",
        ) from error


def load(
    checkpoint: str | Path = AUTO,
    *,
    device: str = "auto",
    precision: str = "32-true",
    image_size: int | None = None,
    class_name: str = OBJECT[0],
    threshold: float | None = None,
    compile: str = "none",
    overrides: Sequence[str] = (),
) -> AnomalyDetector:
    """Load a model, ready to predict.

    Args:
        checkpoint: A file; the folder of a training; a name (`crane_mvtec`, `crane_visa`,
            `crane_plus_mvtec`, `crane_plus_visa`, each with `@1` to `@5` for an epoch; `mini`,
            a toy to try things with); `hf://OWNER/NAME@REVISION`; or `auto`, the published prompts
            of the method chosen.
        device: `auto`, `cpu`, `gpu` (or `cuda`) or `mps`.
        precision: `32-true`, `bf16-mixed` or `16-mixed`.
        image_size: Side of the square that images are resized to; the checkpoint's unless given.
        class_name: What the images show, for methods whose sentences name it.
        threshold: Scores from here on are anomalous; the checkpoint's own unless given.
        compile: A mode of `torch.compile`.
        overrides: More changes, as on the command line: `["method=winclip"]`, `["guide=none"]`.

    Raises:
        UsageError: There is no such checkpoint or device, weights are missing, or a value is wrong.
    """
    schema.check(
        "predict",
        {
            **{"class_name": class_name, "compile": compile, "precision": precision},
            **{"threshold": threshold, "accelerator": device},
            **({} if image_size is None else {"image_size": image_size}),
        },
    )
    typed = [*overrides, *([] if image_size is None else [f"image_size={image_size}"])]
    config = compose("predict", [*typed, "input=none"])
    config.class_name = class_name
    spec = default_checkpoint(config) if checkpoint == AUTO else checkpoint
    found = None
    if spec is not None:
        found = open_checkpoint(spec, config.weights_dir, allow_download=config.allow_download)
        config = adopt_config(config, found, typed)
    options = DetectorOptions(find_device(device), cast(Precision, precision), compile)
    detector = AnomalyDetector.from_config(config, found, options)
    if threshold is not None:
        detector.threshold = Threshold(float(threshold))
    return detector
