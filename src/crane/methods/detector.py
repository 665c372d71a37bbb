"""The protocol that every detection method follows.

A method has a frozen part (`encode`), whose output can be kept on disk; text for class names
(`encode_classes`), computed once for a test; something learned, or nothing; and `predict`, which
turns both into scores and maps. Training, testing, prediction, the cache, checkpoints and reports
know no more of a method than this.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crane.errors import UsageError
from crane.types import Prediction, Truth, VisionTokens, check_images

Features = TypeVar("Features", bound=tuple[Any, ...])
Text = TypeVar("Text")

OBJECT = ("object",)
"""The class name of images of which nothing is known."""


def of_class(text: Float[Tensor, "C *S"], class_id: Int[Tensor, " B"]) -> Float[Tensor, "B *S"]:
    """The text of each image's class. `class_id` may be on the host, which does not wait."""
    return text[class_id.to(text.device, non_blocking=True)]


def on_device(rows: Sequence[int], like: Tensor) -> Int[Tensor, " n"]:
    """Row numbers that the host knows, copied to a tensor's device without waiting for it."""
    return torch.tensor(rows).to(like.device, non_blocking=True)


class Outputs(NamedTuple):
    """What `PixelLoss` compares with the truth."""

    pixels: Float[Tensor, "M B 2 H W"]
    """Probabilities (normal, anomalous) of each pixel in each of M maps."""
    image: Float[Tensor, "B 2"]
    """Logits of the whole image, divided by the temperature of the method's training."""


class Detector(nn.Module, ABC, Generic[Features, Text]):
    """A zero-shot anomaly detector.

    Subclasses build their parts and call `freeze` at the end of their constructor.
    """

    LEARNED: ClassVar[str] = "learned"
    """Name of the submodule that is trained, saved and loaded; everything else is frozen."""

    not_one_graph: ClassVar[str] = ""
    """Why the method cannot be exported, to complete a sentence; empty for those that can."""

    no_guide: ClassVar[str] = "its constructor has none"
    """Why the method takes no guide, to complete a sentence; for those without that argument."""

    image_size: int | None = None
    """Height and width that `forward` takes, in pixels; None for any. `load_model` sets it."""

    @property
    def trained(self) -> nn.Module:
        """What is trained, saved and loaded; without parameters in training-free methods."""
        part = getattr(self, self.LEARNED)
        assert isinstance(part, nn.Module)
        return part

    @property
    def is_trainable(self) -> bool:
        """Whether there is anything to train."""
        return any(True for _ in self.trained.parameters())

    @abstractmethod
    def encode(self, images: Float[Tensor, "B 3 H W"]) -> Features:
        """The frozen features of images (RGB in [0, 1]), without gradients.

        Returns:
            A NamedTuple; its fields that are tensors have the batch as one axis, and are what the
            cache keeps.
        """

    @abstractmethod
    def encode_classes(self, class_names: Sequence[str]) -> Text:
        """Text for class names, computed once for many images; None if each image has its own.

        Args:
            class_names: The classes; `class_id` counts in this order.
        """

    @abstractmethod
    def predict(
        self,
        features: Features,
        text: Text,
        class_id: Int[Tensor, " B"],
        size: tuple[int, int],
    ) -> Prediction:
        """Scores and maps of images.

        Args:
            features: What `encode` gave.
            text: What `encode_classes` gave.
            class_id: The class of each image, on any device.
            size: Height and width of the maps in pixels.
        """

    def to_arrays(
        self, features: Features
    ) -> tuple[Float[Tensor, "B G"], Float[Tensor, "B M h w D"]]:
        """Features as the two arrays that the cache keeps; for `VisionTokens` unless redefined.

        Args:
            features: What `encode` gave.

        Returns:
            A vector and a stack of planes for each image, of any widths.
        """
        assert isinstance(features, VisionTokens)
        planes = features.patches.transpose(0, 1).unflatten(2, features.grid)
        return features.global_, planes

    def from_arrays(
        self,
        global_: Float[Tensor, "B G"],
        planes: Float[Tensor, "B M h w D"],
        size: tuple[int, int],
    ) -> Features:
        """Features from the arrays that `to_arrays` gave.

        Args:
            global_: The vectors.
            planes: The planes.
            size: Height and width of the images in pixels.
        """
        grid = (planes.shape[2], planes.shape[3])
        tokens = VisionTokens(global_, planes.transpose(0, 1).flatten(2, 3), grid)
        return cast(Features, tokens)

    def training_text(self, class_names: Sequence[str]) -> Text | None:
        """Frozen text for a whole training; None for methods that learn their text."""
        return None

    def losses(
        self,
        loss: Callable[..., Any],
        features: Features,
        text: Text | None,
        truth: Truth,
        generator: torch.Generator,
    ) -> Any:
        """The losses of a batch.

        Args:
            loss: The configured loss.
            features: What `encode` gave.
            text: What `training_text` gave.
            truth: Masks, labels and classes.
            generator: Random numbers of this step, the same on every process and when resumed.

        Returns:
            A NamedTuple of scalars, `total` among them.
        """
        mask = truth["mask"]
        size = (mask.shape[-2], mask.shape[-1])
        outputs = self.training_outputs(features, text, truth["class_id"], size)
        return loss(outputs, mask=mask, has_mask=truth["has_mask"], label=truth["label"])

    def training_outputs(
        self, features: Features, text: Any, class_id: Int[Tensor, " B"], size: tuple[int, int]
    ) -> Outputs:
        """What is compared with the truth, with gradients to what is learned.

        Raises:
            UsageError: The method has nothing to train.
        """
        raise UsageError(
            f"{type(self).__name__} has nothing to train; test it without a checkpoint",
            key="method",
        )

    def train(self, mode: bool = True) -> "Detector[Features, Text]":
        """Set the mode of what is learned; the frozen towers always stay in evaluation mode."""
        super().train(mode)
        for name, part in self.named_children():
            if name != self.LEARNED:
                part.eval()
        return self

    def freeze(self) -> None:
        """Leave gradients to what is learned."""
        wanted = [parameter.requires_grad for parameter in self.trained.parameters()]
        self.requires_grad_(False)
        for parameter, is_wanted in zip(self.trained.parameters(), wanted, strict=True):
            parameter.requires_grad_(is_wanted)

    def forward(
        self,
        images: Tensor,
        class_names: Sequence[str] = OBJECT,
        class_id: Int[Tensor, " B"] | None = None,
    ) -> Prediction:
        """Score images (RGB in [0, 1]) and their pixels.

        Args:
            images: The images, of shape (B, 3, H, W) and a float type.
            class_names: The classes that occur.
            class_id: Class of each image; all are of the first one unless given.

        Raises:
            UsageError: The model has an `image_size`, and the images are not of that size, not RGB
                or not in [0, 1].
        """
        if self.image_size is not None:
            check_images(images, self.image_size)
        if class_id is None:
            class_id = torch.zeros(len(images), dtype=torch.int64)
        text = self.encode_classes(class_names)
        size = (images.shape[-2], images.shape[-1])
        return self.predict(self.encode(images), text, class_id, size)

    def check_exportable(self) -> None:
        """Refuse a method that is not one graph from image to score and map.

        Raises:
            UsageError: Says why not.
        """
        if self.not_one_graph:
            raise UsageError(
                f"{type(self).__name__} cannot be exported: {self.not_one_graph}", key="method"
            )

    def load_learned(self, state_dict: Mapping[str, Any]) -> None:
        """Take learned values over; a method reads its authors' layout too.

        Raises:
            UsageError: They were learned for other sizes.
        """
        wanted = {name: tuple(value.shape) for name, value in self.trained.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in state_dict.items()}
        if found != wanted:
            differing = sorted(set(wanted.items()) ^ set(found.items()))[:3]
            raise UsageError(
                f"the checkpoint does not fit {type(self).__name__} as configured; these tensors "
                f"differ: {', '.join(f'{name} {shape}' for name, shape in differing)}",
                key="checkpoint",
            )
        self.trained.load_state_dict(dict(state_dict))
