"""Copies from a device to the host."""

import pytest
import torch

from crane.types import HostCopy


def test_copies_come_in_the_order_of_the_tensors():
    first, second = HostCopy(torch.arange(3), torch.ones(2, 2)).wait()
    assert first.tolist() == [0, 1, 2]
    assert second.tolist() == [[1, 1], [1, 1]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_copies_from_a_gpu_are_whole_once_waited_for():
    large = torch.rand(4096, 4096, device="cuda")
    copies = []
    for _ in range(5):
        large = large @ large / large.norm()  # still computing when the copy is asked for
        copies.append((HostCopy(large, large.sum()), large))
    for copy, original in copies:
        on_host, total = copy.wait()
        assert on_host.device.type == "cpu"
        assert torch.equal(on_host, original.cpu())
        assert total == original.sum().cpu()
