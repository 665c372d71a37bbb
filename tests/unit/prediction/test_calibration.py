import logging
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from crane.config import compose
from crane.errors import UsageError
from crane.gate import build
from crane.prediction.calibration import Threshold, calibrate


@settings(max_examples=200, deadline=None)
@given(
    scores=st.lists(st.floats(0, 1, width=32), min_size=2, max_size=60),
    rate=st.floats(0.01, 0.99),
)
def test_false_alarms_are_held_on_exchangeable_scores(scores: list[float], rate: float) -> None:
    # Leaving each score out in turn is drawing the new image from the exchangeable n + 1.
    num_normals = len(scores) - 1
    alarms = sum(
        calibrate(scores[:new] + scores[new + 1 :], rate).is_anomalous(scores[new])
        for new in range(len(scores))
    )
    holds = max(rate, 1 / (num_normals + 1))
    assert alarms / len(scores) <= holds + 1e-9


def test_the_threshold_is_not_needlessly_high() -> None:
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(400):
        threshold = calibrate(rng.random(99).tolist(), 0.1)
        rates.append(1 - threshold.value)
    assert np.mean(rates) == pytest.approx(0.1, abs=0.005)


@pytest.mark.parametrize(
    ("num_normals", "rate", "rank"), [(19, 0.05, 19), (99, 0.05, 95), (100, 0.05, 96), (9, 0.5, 5)]
)
def test_rank(num_normals: int, rate: float, rank: int) -> None:
    scores = [place / 1000 for place in range(1, num_normals + 1)]
    threshold = calibrate(scores[::-1], rate)
    assert threshold.value == math.nextafter(rank / 1000, 1)
    assert (threshold.false_alarm_rate, threshold.num_normals) == (rate, num_normals)


def test_too_few_normals_are_said_to_be(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        calibrate([0.1] * 19, 0.05)
        assert not caplog.records
        threshold = calibrate([0.1, 0.3, 0.2], 0.05)
    assert "3 normal images are too few" in caplog.text
    assert "rate of 0.25; 0.05 needs 19 images" in caplog.text
    assert not threshold.is_anomalous(0.3)
    assert threshold.is_anomalous(0.3001)


def test_saturated_scores_raise_no_false_alarm() -> None:
    assert not calibrate([1.0] * 40, 0.05).is_anomalous(1.0)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 5.0, math.nan, "low", None])
def test_rates_that_are_none(rate: object) -> None:
    with pytest.raises(UsageError, match="false_alarm_rate must be a number above 0 and below 1"):
        calibrate([0.1], rate)
    config = compose("predict", ["checkpoint=a.ckpt", "input=photos"])
    OmegaConf.update(config, "calibration.false_alarm_rate", rate)
    with pytest.raises(
        UsageError, match=r"^calibration\.false_alarm_rate must be a number above 0"
    ):
        build(config.calibration, "calibration")


def test_scores_that_are_none() -> None:
    with pytest.raises(UsageError, match="at least one normal image"):
        calibrate([], 0.1)
    with pytest.raises(UsageError, match=r"scores must be a list, each entry a number.*entry 2"):
        calibrate([0.1, math.nan], 0.1)
    with pytest.raises(UsageError, match="value must be a number, not nan"):
        Threshold(math.nan)
