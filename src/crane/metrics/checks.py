"""Refusing input no metric can be computed from."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torchmetrics import Metric

from crane.errors import UsageError

_NONE = torch.iinfo(torch.int64).max


def image_name(index: int, names: Sequence[str] | None) -> str:
    """Name an image for an error message.

    >>> image_name(1, ["a.png", "b.png"])
    'image 1 (b.png)'
    """
    return f"image {index}" + (f" ({names[index]})" if names is not None else "")


def check_classes(class_id: Int[Tensor, " B"], num_classes: int) -> None:
    """Refuse class ids outside the classes a metric was made for.

    Raises:
        UsageError: If a class id is negative or not below `num_classes`.
    """
    outside = (class_id < 0) | (class_id >= num_classes)
    if outside.any():
        raise UsageError(f"class ids from 0 to {num_classes - 1}", class_id[outside].tolist())


class FiniteMetric(Metric):
    """A metric that refuses NaN and infinite scores, naming the image.

    On the CPU `update` raises at once. On an accelerator, where reading a value back would make it
    wait, the first such image is kept and `compute` raises.

    Args:
        num_classes: Number of classes, at least 1.
        names: Name of each image by its index, for error messages.
        **metric_options: Options of `torchmetrics.Metric`.

    Raises:
        UsageError: If there is no class.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    checked: ClassVar[str]
    """What is checked, as the error calls it."""

    first_broken: Tensor

    def __init__(
        self, num_classes: int, names: Sequence[str] | None = None, **metric_options: Any
    ) -> None:
        super().__init__(**metric_options)
        if num_classes < 1:
            raise UsageError("at least one class", num_classes)
        self.num_classes, self.names = num_classes, names
        self._zeros: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {}
        self.add_state("first_broken", torch.tensor(_NONE), dist_reduce_fx="min")

    def add_zeros(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        """Add a large state that starts at 0 and adds up over processes.

        Its default is one number, not the copy that `add_state` would keep; and numpy's zeros take
        memory only once they are written, where scores fall.
        """
        self._zeros[name] = (shape, dtype)
        self.add_state(name, torch.from_numpy(np.zeros((), dtype)), dist_reduce_fx="sum")
        setattr(self, name, torch.from_numpy(np.zeros(shape, dtype)))

    def reset(self) -> None:
        """Start anew."""
        super().reset()
        for name, (shape, dtype) in self._zeros.items():
            device = getattr(self, name).device
            setattr(self, name, torch.from_numpy(np.zeros(shape, dtype)).to(device))

    def note_broken(self, broken: Bool[Tensor, " B"], index: Int[Tensor, " B"]) -> None:
        """Remember the first broken image; on the CPU, raise at once.

        Raises:
            UsageError: If there is such an image, on the CPU.
        """
        if len(index) == 0:
            return
        first = torch.where(broken, index.long(), _NONE).amin()
        self.first_broken = torch.minimum(self.first_broken, first)
        if broken.device.type == "cpu":
            self.refuse_broken()

    def refuse_broken(self) -> None:
        """Raise if a broken image is known.

        Raises:
            UsageError: Naming the image.
        """
        index = int(self.first_broken)
        if index != _NONE:
            got = f"NaN or infinity in the {self.checked} of {image_name(index, self.names)}"
            raise UsageError("finite anomaly scores", got)
