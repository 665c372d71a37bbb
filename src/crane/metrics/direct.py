"""Metrics straight from scores and targets: what users hand over, checked, labelled and counted."""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Concatenate, ParamSpec, Protocol, overload, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int32, Shaped
from torch import Tensor

from crane.errors import UsageError
from crane.metrics.counts import Counts, Value
from crane.samples import label_regions

P = ParamSpec("P")

Given = Tensor | np.ndarray | Sequence[Any]
"""What metrics take: a tensor on any device, an array, or a list of numbers."""

_MASKS = "masks must hold true and false, 0 and 1, or the numbers of regions"
_ADVICE = (
    "give true and false (or 0 and 1) to have the regions found, or one number for each region"
)


@runtime_checkable
class ScoreFunction(Protocol[P]):
    """A metric of the counts of one class, or of scores and targets directly."""

    @overload
    def __call__(self, counts: Counts, /, *args: P.args, **kwargs: P.kwargs) -> Value: ...
    @overload
    def __call__(self, preds: Given, target: Given, /, **options: Any) -> Tensor: ...
    def __call__(self, counts: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Compute the metric."""


def of_scores_too(
    *, needs_regions: bool = False
) -> Callable[[Callable[Concatenate[Counts, P], Value]], ScoreFunction[P]]:
    """Let a metric of counts be called with scores and targets as well.

    `metric(counts, …)` stays what it is and returns a `Value`. `metric(preds, target, …)` returns a
    tensor of one number, exact, on the device of `preds`; NaN with a warning where it is undefined.

    Args:
        needs_regions: Whether the targets are masks whose regions count.
    """

    def decorate(measure: Callable[Concatenate[Counts, P], Value]) -> ScoreFunction[P]:
        @functools.wraps(measure)
        def metric(*args: Any, **options: Any) -> Any:
            named = (options.pop(name) for name in ("preds", "target") if name in options)
            given = [*args, *named]
            if isinstance(given[0] if given else options.get("counts"), Counts):
                return measure(*given, **options)
            if len(given) < 2:
                raise UsageError(f"{measure.__name__} takes scores and targets, or counts")
            preds, target, *rest = given
            value = measure(_counts(preds, target, needs_regions), *rest, **options)
            device = preds.device if isinstance(preds, Tensor) else torch.device("cpu")
            return result(value, measure.__name__, device)

        return metric

    return decorate


def result(value: Value, name: str, device: torch.device) -> Float[Tensor, ""]:
    """A metric's value as a tensor; warns where it is undefined.

    Args:
        value: The value.
        name: The metric's name, for the warning.
        device: Where the tensor goes.
    """
    if value.reason:
        warnings.warn(f"{name} is undefined and therefore NaN: {value.reason}", stacklevel=4)
    return torch.tensor(value.value, dtype=torch.float32, device=device)


def _counts(preds: Given, target: Given, needs_regions: bool) -> Counts:
    from crane.metrics.standalone import AUPRO, AUROC  # imports torchmetrics, which is slow

    state = (AUPRO if needs_regions else AUROC)()
    state.update(preds, target)
    return state.class_counts(0)


def as_tensor(given: Given, what: str) -> Tensor:
    """What a user handed over, as a tensor.

    Args:
        given: A tensor, an array or nested lists.
        what: What it should be, for the error.

    Raises:
        UsageError: It is nothing of the kind.
    """
    if isinstance(given, Tensor):
        return given.detach()
    try:
        return torch.from_numpy(np.array(given))
    except (TypeError, ValueError, RuntimeError):
        raise UsageError(
            f"{what} must be a tensor or an array of numbers, not {type(given).__name__}"
        ) from None


def as_scores(preds: Given) -> Float[Tensor, "*shape"]:
    """Scores as float32.

    Raises:
        UsageError: They are truth values or complex.
    """
    scores = as_tensor(preds, "scores")
    if scores.dtype == torch.bool or scores.is_complex():
        raise UsageError(
            f"scores must be real numbers, not {_dtype(scores)}; do not threshold them"
        )
    return scores.float()


def as_maps(preds: Given, target: Given) -> tuple[Float[Tensor, "B H W"], Shaped[Tensor, "B H W"]]:
    """Maps and masks, each (B, H, W), (B, 1, H, W) or (H, W), in their first form.

    Raises:
        UsageError: They have other shapes, or not the same.
    """
    maps = _images(as_scores(preds), "maps")
    masks = _images(as_tensor(target, "masks"), "masks")
    if maps.shape != masks.shape:
        raise UsageError(
            f"maps and masks must have the same shape, not {_shape(maps)} and {_shape(masks)}"
        )
    return maps, masks


def _images(given: Tensor, what: str) -> Shaped[Tensor, "B H W"]:
    images = given[:, 0] if given.ndim == 4 and given.shape[1] == 1 else given
    images = images.unsqueeze(0) if images.ndim == 2 else images
    if images.ndim != 3 or 0 in images.shape[1:]:
        raise UsageError(
            f"{what} must have the shape (images, height, width), (images, 1, height, width) or "
            f"(height, width), not {_shape(given)}"
        )
    return images


def as_binary(
    preds: Given, target: Given
) -> tuple[Float[Tensor, "B 1 P"], Int32[Tensor, "B 1 P"], bool]:
    """Scores of any shape and labels of the same as maps and masks, and whether they have one axis.

    Raises:
        UsageError: The shapes differ, or a label is neither 0 nor 1.
    """
    scores, labels = as_scores(preds), as_tensor(target, "targets")
    if scores.shape != labels.shape or scores.ndim == 0 or 0 in scores.shape[1:]:
        raise UsageError(
            "scores and targets must have the same shape, with at least one axis, not "
            f"{_shape(scores)} and {_shape(labels)}"
        )
    wrong = labels[(labels != 0) & (labels != 1)]
    if len(wrong):
        raise UsageError(f"targets must be 0 (normal) or 1 (anomalous), not {wrong[0].item():g}")
    shape = (len(scores), 1, scores[:1].numel())
    return scores.reshape(shape), labels.reshape(shape).int(), scores.ndim == 1


def region_numbers(
    masks: Shaped[Tensor, "B H W"], image: Callable[[int], str] = "image {}".format
) -> Int32[Tensor, "B H W"]:
    """Number the regions of masks from 1 on, on the CPU; 0 is normal.

    In an image with one value besides 0 (true, 1, 255), every 8-connected region gets a number of
    its own. In an image with several, they must be numbers of regions already: each value one
    8-connected region.

    Args:
        masks: True and false, or numbers of at least 0, of any type.
        image: Name of an image by its place, for errors.

    Raises:
        UsageError: A value is not a whole number of at least 0, or one of several lies in places
            that are not connected.

    >>> region_numbers(torch.tensor([[[1, 0, 1], [1, 0, 1]]])).tolist()
    [[[1, 0, 2], [1, 0, 2]]]
    >>> region_numbers(torch.tensor([[[2, 0, 7], [0, 2, 7]]])).tolist()
    [[[1, 0, 2], [0, 1, 2]]]
    """
    if masks.is_complex():
        raise UsageError(f"{_MASKS}, not {_dtype(masks)}")
    if masks.dtype == torch.bfloat16:
        masks = masks.float()
    numbered = [_numbered(mask, image(n)) for n, mask in enumerate(masks.cpu().numpy())]
    return torch.from_numpy(np.array(numbered, dtype=np.int32).reshape(masks.shape))


def _numbered(mask: Shaped[np.ndarray, "H W"], image: str) -> Int32[np.ndarray, "H W"]:
    where = mask != 0  # holds for NaN
    values = mask[where]
    numbers = values.astype(np.float64)
    wrong = values[(numbers < 0) | (numbers != np.round(numbers))]
    if len(wrong):
        raise UsageError(f"{_MASKS}, not {wrong[0]:g} ({image})")
    regions = label_regions(where)
    if len(values) == 0 or (values == values[0]).all():
        return regions
    distinct, number = np.unique(values, return_inverse=True)
    pairs = np.unique(np.stack([number, regions[where]]), axis=1)
    num_places, num_numbers = np.bincount(pairs[0]), np.bincount(pairs[1])
    alone = (num_places == 1)[pairs[0]] & (num_numbers == 1)[pairs[1]]
    for place in dict.fromkeys(pairs[0][~alone]):  # in several regions, or in one with others
        if num_places[place] > 1 or label_regions(mask == distinct[place]).max() > 1:
            raise UsageError(
                f"the mask of {image} holds several values, of which {distinct[place]:g} lies in "
                f"several places; {_ADVICE}"
            )
    regions[where] = number + 1
    return regions


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
