"""Copies of tensors from a device to the host that do not hold the device up."""

import torch
from torch import Tensor


class HostCopy:
    """Starts copying tensors to the host; `wait` returns the copies once they have arrived.

    On a GPU the copies are non-blocking, so that the next batch can be launched meanwhile. Tensors
    of other devices are copied at once, since non-blocking copies could be read too early there.

    Args:
        tensors: Tensors of any shape, all on one device.

    >>> HostCopy(torch.ones(2)).wait()
    (tensor([1., 1.]),)
    """

    def __init__(self, *tensors: Tensor) -> None:
        device = tensors[0].device
        is_cuda = device.type == "cuda"
        self._copies = tuple(tensor.to("cpu", non_blocking=is_cuda) for tensor in tensors)
        self._arrival: torch.cuda.Event | None = None
        if is_cuda:
            self._arrival = torch.cuda.Event()
            self._arrival.record(torch.cuda.current_stream(device))

    def wait(self) -> tuple[Tensor, ...]:
        """The copies, in the order of the tensors."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._copies
