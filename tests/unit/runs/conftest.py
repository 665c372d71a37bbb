import math
from collections.abc import Callable

import pytest

from crane.runs import DatasetResult


def _make_result(dataset: str = "mini", shift: float = 0.0) -> DatasetResult:
    return DatasetResult(
        dataset=dataset,
        class_names=("nut", "bolt", "bad, name"),
        values={
            "image_auroc": (1 / 3 + shift, 0.98765, math.nan),
            "aupro": (0.5, 0.25, 0.125),
        },
        means={"image_auroc": (1 / 3 + shift + 0.98765) / 2, "aupro": 0.875 / 3},
        num_normal=(4, 5, 6),
        num_anomalous=(7, 8, 0),
        reasons={("image_auroc", "bad, name"): "no anomalous image"},
        bounds={"aupro": (1e-6, 2e-6, math.nan)},
        mean_bounds={"aupro": 1.5e-6},
    )


@pytest.fixture
def make_result() -> Callable[..., DatasetResult]:
    """Results of three classes, one of which has no anomalous image."""
    return _make_result
