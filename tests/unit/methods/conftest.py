"""Crane and Crane+ on the smallest backbone and guide of the configuration."""

import pytest

from crane.methods import Crane, build_model
from reference.build import composed

METHODS = {
    "crane": ("backbone=tiny", "method=crane"),
    "crane_plus": ("backbone=tiny", "method=crane_plus", "guide=tiny"),
}


@pytest.fixture(params=METHODS, scope="module")
def model(request: pytest.FixtureRequest) -> Crane:
    return build_model(composed(*METHODS[request.param]))


@pytest.fixture(scope="module")
def crane() -> Crane:
    return build_model(composed(*METHODS["crane"]))
