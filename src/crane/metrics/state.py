"""What the states of all metrics share: checks of their input, and large tensors of counts."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric

from crane.checks import PositiveInt, checked
from crane.errors import UsageError

WITHOUT_FLOAT64 = frozenset({"mps"})
"""Types of devices without float64; metrics of data there count on the host."""

_NONE = torch.iinfo(torch.int64).max


def image_name(index: int, names: Sequence[str] | None) -> str:
    """Name an image for an error message.

    Args:
        index: Its index.
        names: Name of each image by its index; None if they have none.

    >>> image_name(1, ["a.png", "b.png"])
    'image 1 (b.png)'
    """
    return f"image {index}" + (f" ({names[index]})" if names is not None else "")


def check_classes(class_id: Int[Tensor, " B"], num_classes: int) -> None:
    """Refuse class ids outside the classes a metric was made for.

    Args:
        class_id: Class of each image.
        num_classes: Number of classes.

    Raises:
        UsageError: A class id is negative or not below `num_classes`.
    """
    outside = (class_id < 0) | (class_id >= num_classes)
    if outside.any():
        found = class_id[outside].tolist()
        raise UsageError(f"class ids must be from 0 to {num_classes - 1}, not {found}")


class FiniteMetric(Metric):
    """A metric that refuses NaN and infinite scores, and names the image.

    On the CPU `update` raises at once. On an accelerator, where reading a value back would make it
    wait, the first such image is kept and `compute` raises.

    Args:
        num_classes: Number of classes.
        names: Name of each image by its index, for error messages.
        **metric_options: Options of `torchmetrics.Metric`.

    Raises:
        UsageError: `num_classes` is less than 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    scored: ClassVar[str]
    """What holds the scores, for error messages."""

    first_broken: Tensor

    @checked
    def __init__(
        self,
        num_classes: PositiveInt,
        names: Sequence[str] | None = None,
        **metric_options: Any,
    ) -> None:
        super().__init__(**metric_options)
        self.num_classes, self.names = num_classes, names
        self._zeros: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {}
        self.add_state("first_broken", torch.tensor(_NONE), dist_reduce_fx="min")

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Module:
        """Move the states between devices, in the types they have: `.half()` would lose counts.

        States stay where they are instead of going to a device without float64.
        """
        probe = fn(torch.empty(0, device=self.first_broken.device))

        def move(tensor: Tensor) -> Tensor:
            if probe.device.type in WITHOUT_FLOAT64:
                return tensor
            moved = fn(tensor)
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(move, exclude_state)

    def add_zeros(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        """Add a large state that starts at 0 and adds up over processes.

        Its default is one number, not the copy that `add_state` would keep. The zeros come from
        numpy, which takes memory only for the pages that are written.

        Args:
            name: The attribute that holds it.
            shape: Its shape.
            dtype: Its numpy type.
        """
        self._zeros[name] = (shape, dtype)
        self.add_state(name, torch.from_numpy(np.zeros((), dtype)), dist_reduce_fx="sum")
        setattr(self, name, torch.from_numpy(np.zeros(shape, dtype)))

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        for name, (shape, dtype) in self._zeros.items():
            device = getattr(self, name).device
            setattr(self, name, torch.from_numpy(np.zeros(shape, dtype)).to(device))

    def note_broken(self, broken: Bool[Tensor, " B"], index: Int[Tensor, " B"]) -> None:
        """Remember the first image with NaN or infinity; on the CPU, raise at once.

        Args:
            broken: Whether each image has such a score.
            index: Position of each image in its data set.

        Raises:
            UsageError: There is such an image, on the CPU.
        """
        if len(index) == 0:
            return
        first = torch.where(broken, index.long(), _NONE).amin()
        self.first_broken = torch.minimum(self.first_broken, first)
        if broken.device.type == "cpu":
            self.refuse_broken()

    def refuse_broken(self) -> None:
        """Raise if an image with NaN or infinity is known.

        Raises:
            UsageError: Names the image.
        """
        index = int(self.first_broken)
        if index != _NONE:
            image = image_name(index, self.names)
            raise UsageError(
                f"anomaly scores must be finite; NaN or infinity in the {self.scored} of {image}"
            )
