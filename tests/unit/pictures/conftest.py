from collections.abc import Callable
from dataclasses import replace

import pytest

from crane.pictures import ColourScale, OverlayOptions, PerClass

OPTIONS = OverlayOptions(
    scale=ColourScale(0.0, 1.0, "inferno"),
    alpha=0.7,
    choose="random",
    num_anomalous=2,
    num_normal=1,
    tile=40,
    num_columns=2,
    gallery=PerClass(1, 1),
)


@pytest.fixture(scope="session")
def make_options() -> Callable[..., OverlayOptions]:
    """Options of small pictures, with changes."""
    return lambda **changes: replace(OPTIONS, **changes)
