"""The scale of scores: which scores share a bin.

Streaming metrics count scores in bins. The bins must keep the order of any finite scores, be the
same in every process, and be narrow wherever scores crowd. Anomaly probabilities crowd in three
ways: spread over [0, 1], against 0, and against 1. `ScoreScale` therefore adds three
non-decreasing integers, each narrow in one of these places; their sum keeps the order, and two
scores share a bin only if they share all three.
"""

import functools
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32
from torch import Tensor

from crane.checks import Interval, checked

_MANTISSA_BITS = 23
_EXPONENT_BIAS = 127
_MAGNITUDE = 0x7FFFFFFF
_LARGEST = 0x7F7FFFFF  # bits of the largest finite float32

_COARSE_BITS = 4  # bins an octave, as a power of two, for magnitudes outside the fine octaves
_FINE_OCTAVES = (-40, 8)
_MIRRORED_OCTAVES = (-24, -1)  # 1 - 2**-24 is the float32 below 1: nothing lies closer


@checked
@dataclass(frozen=True)
class ScoreScale:
    """Bins over all finite float32 scores, in their order.

    The bin of a score x is the sum of

    - a logarithmic scale of x with 2**octave_bits bins an octave for magnitudes from 2**-40 to
      2**8, and 16 bins an octave beyond;
    - a logarithmic scale of 1 - x with 2**octave_bits bins an octave, for x in [1/2, 1];
    - a linear scale with 2**linear_bits bins over [0, 1].

    0 and 1, where saturated maps pile up, have a bin of their own, and so has every score within
    2**(octave_bits - 24) of 1. Bins come from integer arithmetic on the bits of the scores, so
    every device and process agrees on them.

    Args:
        octave_bits: Logarithm (base 2) of the number of bins an octave, from 4 to 16.
        linear_bits: Logarithm (base 2) of the number of bins over [0, 1], from 0 to 22.

    Raises:
        UsageError: A number of bits is out of range.

    >>> scale = ScoreScale(octave_bits=10, linear_bits=17)
    >>> scale.num_bins
    261090
    >>> bins = scale.bins(torch.tensor([-3.0, 0.0, 1e-30, 0.25, 0.9999999, 1.0, 1e30]))
    >>> bool((bins.diff() > 0).all())
    True
    """

    octave_bits: Annotated[int, Interval(ge=_COARSE_BITS, le=16)]
    linear_bits: Annotated[int, Interval(ge=0, le=22)]

    @property
    def num_bins(self) -> int:
        """Number of bins over all finite float32 scores."""
        num_mirrored = self._mirrored_end - self._mirrored_start
        return 2 * self._top + 1 + (1 << self.linear_bits) + num_mirrored

    @property
    def _top(self) -> int:
        """The logarithmic scale's value at the largest score."""
        first, last = _FINE_OCTAVES
        coarse = -(-_LARGEST >> (_MANTISSA_BITS - _COARSE_BITS))
        return ((last - first) << self.octave_bits) + coarse

    @property
    def _mirrored_start(self) -> int:
        """One below the mirrored scale's first octave: 1 - x = 0 has a bin of its own."""
        return ((_MIRRORED_OCTAVES[0] + _EXPONENT_BIAS) << self.octave_bits) - 1

    @property
    def _mirrored_end(self) -> int:
        return (_MIRRORED_OCTAVES[1] + _EXPONENT_BIAS) << self.octave_bits

    def bins(self, scores: Float[Tensor, "*shape"]) -> Int32[Tensor, "*shape"]:
        """Return the bin of each score; other float types are rounded to float32 first.

        A NaN or an infinity gets some valid bin: callers refuse them by other means.
        """
        scores = scores.float()
        bounded = scores.clamp(0, 1)
        mirrored = self._mirrored((1 - bounded).view(torch.int32))
        linear = bounded.mul_(1 << self.linear_bits).to(torch.int32)
        bins = linear.add_(mirrored).sub_(self._logarithmic(scores.view(torch.int32)))
        return bins.add_(self._top + self._mirrored_end).clamp_(0, self.num_bins - 1)

    def _logarithmic(self, bits: Int32[Tensor, "*shape"]) -> Int32[Tensor, "*shape"]:
        """Scale both signs alike, and negate. A negated number shifts away from 0: only 0 stays."""
        negated = (bits & _MAGNITUDE).neg_()
        first, last = ((octave + _EXPONENT_BIAS) << self.octave_bits for octave in _FINE_OCTAVES)
        value = (negated >> (_MANTISSA_BITS - self.octave_bits)).clamp_(-last, -first)
        value.add_(negated.bitwise_right_shift_(_MANTISSA_BITS - _COARSE_BITS)).add_(first)
        return value.mul_((bits >> 31).bitwise_or_(1))  # -1 below zero, else 1

    def _mirrored(self, bits: Int32[Tensor, "*shape"]) -> Int32[Tensor, "*shape"]:
        """Scale the distance from 1 the same way, but for the value it starts from."""
        shifted = bits.neg_().bitwise_right_shift_(_MANTISSA_BITS - self.octave_bits)
        return shifted.clamp_(-self._mirrored_end, -self._mirrored_start)

    def edges(self) -> tuple[Float32[np.ndarray, " bins"], Float32[np.ndarray, " bins"]]:
        """Return the lowest and highest score of each bin (lowest > highest if it is unused)."""
        return _edges(self)


@functools.lru_cache(maxsize=4)
def _edges(scale: ScoreScale) -> tuple[np.ndarray, np.ndarray]:
    """Sort the places where the three scales step: the k-th step begins bin k."""
    octave_shift = _MANTISSA_BITS - scale.octave_bits
    fine = np.arange(*((octave + _EXPONENT_BIAS) << scale.octave_bits for octave in _FINE_OCTAVES))
    coarse_shift = _MANTISSA_BITS - _COARSE_BITS
    coarse = np.arange(-(-_LARGEST >> coarse_shift))
    # The logarithmic scale rounds up: it steps just above these magnitudes, or below 0 at them.
    magnitudes = np.concatenate([fine << octave_shift, coarse << coarse_shift]).astype(np.int32)
    above, at = (magnitudes + 1).view(np.float32), -magnitudes.view(np.float32)
    num_linear = 1 << scale.linear_bits
    linear = np.arange(1, num_linear + 1, dtype=np.float32) / np.float32(num_linear)
    distances = (
        np.arange(scale._mirrored_start, scale._mirrored_end, dtype=np.int32) << octave_shift
    )
    exact = 1 - distances.view(np.float32).astype(np.float64)
    mirrored = exact.astype(np.float32)
    mirrored = np.where(mirrored < exact, np.nextafter(mirrored, np.float32(2)), mirrored)

    largest = np.finfo(np.float32).max
    steps = np.sort(np.concatenate([at, above, linear, mirrored]))
    lower = np.append(-largest, steps)
    upper = np.append(np.nextafter(steps, -largest), largest)
    return lower, upper
