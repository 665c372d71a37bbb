"""What the states of all metrics share, and that of image metrics: one score and label an image."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric

from crane.checks import PositiveInt, checked
from crane.errors import UsageError
from crane.metrics.counts import Counts, group_scores, with_ties

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


class ImageScores(FiniteMetric):
    """Scores and labels by sample index; image metrics are exact but for ties within rounding.

    The table has room for `max_images` images, 12 bytes each, however many are seen. Each image
    belongs to one process, so the tables of several processes merge by addition, and an image seen
    twice anywhere has a count of two.

    Args:
        num_classes: Number of classes of the data set.
        max_images: Largest number of images a data set may have.
        names: Name of each image by its index, for error messages.
        **metric_options: Options of `torchmetrics.Metric`.

    Raises:
        UsageError: An image comes twice, a score is NaN or infinite, a label is neither 0 nor 1, a
            class is not below `num_classes` or an index not below `max_images`.

    >>> images = ImageScores(num_classes=1, max_images=10)
    >>> images.update(torch.tensor([0.2, 0.7]), torch.tensor([0, 1]), torch.tensor([3, 8]))
    >>> images.compute()[0].lower.round(1).tolist()
    [0.7, 0.2]
    """

    scored = "score"

    times_seen: Tensor
    score: Tensor
    target: Tensor

    @checked
    def __init__(
        self,
        num_classes: PositiveInt,
        max_images: PositiveInt,
        names: Sequence[str] | None = None,
        **metric_options: Any,
    ) -> None:
        super().__init__(num_classes, names=names, **metric_options)
        if names is not None and len(names) > max_images:
            raise UsageError(
                f"must be at least {len(names)}, the number of images, not {max_images}",
                key="metrics.images.max_images",
            )
        self.max_images = max_images
        self._next = 0  # not a state: `forward` forgets states for a moment
        self.add_zeros("times_seen", (max_images,), np.int32)
        self.add_zeros("score", (max_images,), np.float32)
        self.add_zeros("target", (max_images,), np.int32)

    def update(
        self,
        score: Float[Tensor, " B"],
        label: Int[Tensor, " B"],
        index: Int[Tensor, " B"] | None = None,
        class_id: Int[Tensor, " B"] | None = None,
    ) -> None:
        """Add images.

        Args:
            score: Anomaly score of each image.
            label: 0 for normal, 1 for anomalous.
            index: Position of each image in its data set; None, in one process, for the next ones.
            class_id: Class of each image; None if there is one class.
        """
        device = self.first_broken.device
        score, label = score.detach().float().to(device), label.to(device)
        if index is None:
            index = (torch.arange(len(score), device=device) + self._next) % self.max_images
            self._next = (self._next + len(score)) % self.max_images
        index = index.to(device)
        class_id = None if class_id is None else class_id.to(device, non_blocking=True)
        class_id = torch.zeros_like(label) if class_id is None else class_id
        self.note_broken(~score.isfinite(), index)
        # Reading values back from an accelerator would make it wait; there, `compute` checks.
        if index.device.type == "cpu":
            check_classes(class_id, self.num_classes)
            self._check_labels(label)
            self._check_new(index)
        self.times_seen.index_add_(0, index, torch.ones_like(index, dtype=torch.int32))
        self.score.index_add_(0, index, score)
        self.target.index_add_(0, index, (2 * class_id + label).to(torch.int32))

    def _check_labels(self, label: Int[Tensor, " B"]) -> None:
        wrong = (label != 0) & (label != 1)
        if wrong.any():
            found = label[wrong].tolist()
            raise UsageError(f"image labels must be 0 (normal) or 1 (anomalous), not {found}")

    def _check_new(self, index: Int[Tensor, " B"]) -> None:
        outside = (index < 0) | (index >= self.max_images)
        if outside.any():
            found = index[outside].tolist()
            raise UsageError(
                f"sample indices must be from 0 to {self.max_images - 1}, not {found}; "
                "metrics.images.max_images sets how many there are",
                key="metrics.images.max_images",
            )
        distinct, times = index.unique(return_counts=True)
        self._refuse_repeated(distinct[times + self.times_seen[distinct] > 1].tolist())

    def _refuse_repeated(self, repeated: list[int]) -> None:
        if repeated:
            raise UsageError(
                f"{image_name(repeated[0], self.names)} was evaluated more than once; give each "
                "process its own images, without repeating some to even the shares out"
            )

    def compute(self) -> Any:
        """The counts of each class, over all processes.

        Raises:
            UsageError: An image came twice, or a score was NaN or infinite.
        """
        self.refuse_broken()
        times_seen = self.times_seen.cpu().numpy()
        seen = np.flatnonzero(times_seen)
        self._refuse_repeated(seen[times_seen[seen] > 1].tolist())
        score, target = (state.cpu().numpy()[seen] for state in (self.score, self.target))
        return [self._class_counts(score, target, c) for c in range(self.num_classes)]

    def scores(self) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
        """Index and score of every image seen, over all processes, sorted by index."""
        with self.sync_context():
            seen = np.flatnonzero(self.times_seen.cpu().numpy())
            return seen, self.score.cpu().numpy()[seen]

    @staticmethod
    def _class_counts(score: np.ndarray, target: np.ndarray, class_id: int) -> Counts:
        own = target // 2 == class_id
        return group_scores(with_ties(score[own]), target[own] % 2 == 1, unit="image")[0]
