"""A score above which an image is called anomalous, with a known rate of false alarms."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from crane.errors import UsageError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Threshold:
    """Images that score `value` or more are called anomalous.

    >>> Threshold(0.5).is_anomalous(0.5)
    True
    """

    value: float
    """The lowest score that raises an alarm."""
    false_alarm_rate: float | None = None
    """The rate of false alarms it was calibrated for; None for a threshold that was given."""
    num_normals: int | None = None
    """How many normal images it was calibrated on."""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise UsageError("a finite threshold", self.value, key="threshold")

    def is_anomalous(self, score: float) -> bool:
        """Tell whether a score raises an alarm."""
        return score >= self.value


def calibrate(scores: Sequence[float], false_alarm_rate: float) -> Threshold:
    """Choose a threshold from the scores of normal images.

    With n normal images and a wanted rate α, the alarm is raised above the k-th lowest score,
    k = ceil((n + 1)(1 - α)). If the images calibrated on and a new normal image are exchangeable
    (taken in the same way, in any order), the probability that the new one raises a false alarm
    is at most α: the new score is equally likely to take any of the n + 1 ranks, and n + 1 - k
    <= α(n + 1) of them lie above. The plain (1 - α) quantile does not hold that for small n.
    (Split conformal prediction: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random
    World", 2005.) The probability is over the calibration images too; one calibration on few
    images may by chance lie above or below.

    When n < 1/α - 1, no score among those seen is high enough. The highest is taken, a warning
    names the rate that holds, 1 / (n + 1), and how many images the wanted one needs.

    Args:
        scores: scores of normal images.
        false_alarm_rate: wanted rate α, in (0, 1).

    Returns:
        The threshold: the smallest float above the k-th lowest score.

    Raises:
        UsageError: for a rate outside (0, 1), no scores, or scores that are not finite.

    >>> calibrate([0.1, 0.2, 0.3, 0.4], 0.2).is_anomalous(0.4)
    False
    >>> calibrate([0.1, 0.2, 0.3, 0.4], 0.2).is_anomalous(0.41)
    True
    """
    if not 0 < false_alarm_rate < 1:
        raise UsageError(
            "a false-alarm rate between 0 and 1",
            false_alarm_rate,
            key="calibration.false_alarm_rate",
        )
    if not scores:
        raise UsageError("scores of normal images", "none", key="calibration.input")
    if not all(math.isfinite(score) for score in scores):
        raise UsageError("finite scores of normal images", "NaN or infinity")
    num_normals = len(scores)
    # The small step keeps a product that should be whole, like 20 * 0.95, from being rounded up.
    rank = max(1, math.ceil((num_normals + 1) * (1 - false_alarm_rate) - 1e-9))
    if rank > num_normals:
        _warn_of_too_few(num_normals, false_alarm_rate)
        rank = num_normals
    value = math.nextafter(sorted(scores)[rank - 1], math.inf)
    return Threshold(value, false_alarm_rate, num_normals)


def _warn_of_too_few(num_normals: int, false_alarm_rate: float) -> None:
    logger.warning(
        "%d normal images are too few for a false-alarm rate of %g: their highest score is the "
        "threshold, which holds a rate of %.3g; %g needs %d images",
        num_normals,
        false_alarm_rate,
        1 / (num_normals + 1),
        false_alarm_rate,
        math.ceil(1 / false_alarm_rate - 1e-9) - 1,
    )
