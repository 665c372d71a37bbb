"""Thresholds on anomaly scores: given, or calibrated for a known rate of false alarms."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import crane_runtime
from crane.checks import Interval, checked
from crane.errors import UsageError, counted
from crane.prediction.inputs import ImageList, find_images

logger = logging.getLogger(__name__)

Rate = Annotated[float, Interval(gt=0, lt=1)]
"""A rate of false alarms."""


@checked
@dataclass(frozen=True)
class Threshold(crane_runtime.Threshold):
    """The threshold of the runtime, whose values are checked.

    Raises:
        UsageError: A value is not a number.
    """


@checked
@dataclass(frozen=True)
class Calibration:
    """Images known to be normal, on which a threshold is calibrated; `calibration` in `conf/`."""

    input: str | Sequence[str] | None
    """The images, as `find_images` takes them; None for no calibration."""
    false_alarm_rate: Rate
    """The wanted rate."""

    @cached_property
    def normals(self) -> ImageList:
        """The images, found once.

        Raises:
            UsageError: There are none.
        """
        return find_images(self.input, key="calibration.input")


@checked
def calibrate(
    scores: Sequence[float], false_alarm_rate: Rate, peaks: Sequence[float] = ()
) -> Threshold:
    """Choose a threshold from the scores of normal images.

    With n normal images and a wanted rate α, scores above the k-th lowest raise an alarm,
    k = ceil((n + 1)(1 - α)). If the images calibrated on and a new normal image are exchangeable
    (taken in the same way, in any order), the probability that the new one raises a false alarm
    is at most α: the new score is equally likely to take any of the n + 1 ranks, and n + 1 - k
    <= α(n + 1) of them lie above. The plain (1 - α) quantile does not guarantee that for small n.
    (Split conformal prediction: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random
    World", 2005.) The probability is over the calibration images too; one calibration on few
    images may by chance lie above or below.

    When n < 1/α - 1, no score among those seen is high enough. The highest is taken, and a warning
    names the rate that is guaranteed, 1 / (n + 1), and how many images the wanted one needs.

    Args:
        scores: Scores of normal images.
        false_alarm_rate: Wanted rate α, above 0 and below 1.
        peaks: The highest probability in the map of each of the same images; by the same rule
            they give the pixel threshold. None leaves it at one half.

    Returns:
        The threshold: the smallest float above the k-th lowest score.

    Raises:
        UsageError: The rate is out of range, or there are no scores, or they are not finite.

    >>> calibrate([0.1, 0.2, 0.3, 0.4], 0.2).is_anomalous(0.4)
    False
    >>> calibrate([0.1, 0.2, 0.3, 0.4], 0.2).is_anomalous(0.41)
    True
    """
    if not scores:
        raise UsageError(
            "calibration needs the score of at least one normal image", key="calibration.input"
        )
    num_normals = len(scores)
    # The small step keeps a product that should be whole, like 20 * 0.95, from being rounded up.
    rank = max(1, math.ceil((num_normals + 1) * (1 - false_alarm_rate) - 1e-9))
    if rank > num_normals:
        logger.warning(
            "%s too few for a false-alarm rate of %g: their highest score is the "
            "threshold, which guarantees a rate of %.3g; %g needs %d images",
            counted(num_normals, "normal image is", "normal images are"),
            false_alarm_rate,
            1 / (num_normals + 1),
            false_alarm_rate,
            math.ceil(1 / false_alarm_rate - 1e-9) - 1,
        )
        rank = num_normals
    value = math.nextafter(sorted(scores)[rank - 1], math.inf)
    pixel = math.nextafter(sorted(peaks)[rank - 1], math.inf) if peaks else Threshold.PIXEL
    return Threshold(value, false_alarm_rate, num_normals, pixel)
