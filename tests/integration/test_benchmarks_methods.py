"""The products that limits of the benchmark `methods` rest on, against torch's own count."""

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.methods import METHODS, built, forward, products, vit_products
from crane.cli.validation import options
from crane.config import conf_dir

pytestmark = pytest.mark.long


@pytest.mark.parametrize("method", METHODS)
def test_products_are_those_that_torch_counts(method: str) -> None:
    model, image = built(method, small=True, device="cpu")
    work = forward(model, image)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    ratio = counter.get_total_flops() / vit_products(model, image)
    stated = products(model, image) / vit_products(model, image)
    assert stated == pytest.approx(ratio, rel=0.01), "blurs are not in it, 0.7 % at this size"
    assert stated >= 0.99


def test_every_method_is_measured() -> None:
    """Crane+ needs a guide, and has rows of its own in the benchmark `forward`."""
    assert {*METHODS, "crane_plus"} == set(options(conf_dir() / "method"))
