"""Scores and maps in at least 32 bits, whatever the towers compute in."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def widened(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors in float32, and in float64 as they are."""
    return tuple(t.to(torch.promote_types(t.dtype, torch.float32)) for t in tensors)


def full_precision(device: torch.device) -> AbstractContextManager[None]:
    """Give a block without autocast.

    bfloat16 has 8 bits of mantissa: a similarity divided by 0.07 or 0.01 would come in steps so
    coarse that images tie which are not alike. What is saved is next to nothing: the towers take
    the time.
    """
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
