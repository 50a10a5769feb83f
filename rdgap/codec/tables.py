"""Integer probability tables of the latents.

A table gives every symbol of a range, and the escape from that range, a whole number of 2^-24ths of probability, at
least one. What leaves the range is coded by `entropy` itself, so that nothing cannot be coded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from constriction import stream  # pyright: ignore[reportAttributeAccessIssue]
from numpy.typing import NDArray
from torch import Tensor

from ..ntc.priors import LARGEST_SCALE, SMALLEST_SCALE, DeepFactorized
from . import elementary
from .elementary import Array
from .fixed_point import FRACTION_BITS

PROBABILITY_BITS = 24
"""Precision of the range coder's probabilities."""

_SCALE_STEP = 125
"""Logarithms of the scales of the tables differ by `125 * 2^-FRACTION_BITS`, 3 %; an odd number: see `scale_index`."""

_TAIL_SCALES = 5.0
_SMALLEST_TAIL = 2.0**-20
_WIDEST = 1024


class Tables:
    """Probability tables, each over the symbols `lowest` ... `highest` and, after these, the escape.

    Args:
        lowest: First symbol of each table.
        counts: For each table its counts in units of 2^-24, which sum to 2^24; the last is the escape's.
    """

    def __init__(self, lowest: NDArray[np.int64], counts: Sequence[NDArray[np.int64]]) -> None:
        self.lowest = lowest
        self.highest = lowest + np.array([len(each) - 2 for each in counts])
        self.counts = tuple(counts)
        # constriction scales what it is given to sum to 2^24 less one for each symbol, then adds one to each: for
        # whole numbers with just that sum, both are exact.
        self.models = [stream.model.Categorical((each - 1).astype(np.float64), perfect=False) for each in counts]


def _counts(probabilities: Array) -> NDArray[np.int64]:
    """Round probabilities of the symbols, the rest being the escape's, to counts; the likeliest makes up the sum.

    Args:
        probabilities: (symbols,), sums to at most 1 up to rounding.
    """
    total = np.cumsum(probabilities)[-1]  # summed in this order, unlike `sum`
    with_escape = np.append(probabilities, max(0.0, 1.0 - total))
    free = 2**PROBABILITY_BITS - len(with_escape)
    counts = np.rint(with_escape * float(free)).astype(np.int64)
    counts[np.argmax(counts)] += free - counts.sum()
    return counts + 1


@cache
def gaussian_tables() -> Tables:
    """Return the tables of `N(0, scale^2)` convolved with the unit box, at the integers, for each of the scales."""
    scales = elementary.exp(np.array(_log_scales()) / 2.0**FRACTION_BITS)
    reach = np.ceil(_TAIL_SCALES * scales).astype(np.int64)
    counts = []
    for scale, most in zip(scales, reach, strict=True):
        edges = np.minimum((np.arange(most + 1) + 0.5) / scale, 8.0)
        cumulative = elementary.normal_above_median(edges)
        side = np.diff(cumulative)
        counts.append(_counts(np.concatenate([side[::-1], 2.0 * cumulative[:1], side])))
    return Tables(-reach, counts)


def scale_index(scale: Tensor) -> Tensor:
    """Return the number of the Gaussian table for each of the scales, float64.

    Scales are exponentials of multiples of `2^-FRACTION_BITS`, limited to a range. The tables' own are so, too, and
    because the step between them is odd, midways between tables are midway between two possible scales: 1e-4 of a
    scale away from either, where exponential functions and logarithms err by 1e-15. So it does not matter whose
    functions they are.
    """
    steps = (scale.log() * 2.0**FRACTION_BITS - _log_scales()[0]) / _SCALE_STEP
    return torch.floor(steps + 0.5).clamp_(0, len(_log_scales()) - 1)


def _log_scales() -> range:
    """Return the logarithms of the scales that have tables, in units of `2^-FRACTION_BITS`."""
    # Neither end is near a half, so any `math.log` rounds them alike.
    smallest, largest = (round(math.log(scale) * 2**FRACTION_BITS) for scale in (SMALLEST_SCALE, LARGEST_SCALE))
    return range(smallest, largest + _SCALE_STEP // 2, _SCALE_STEP)


class ExactDensity:
    """The deep factorized density as integer tables and a lattice, one of each per channel.

    Attributes:
        offset: What lattice points have in excess of integers, (channels,), multiples of `2^-FRACTION_BITS`.
        tables: The table of each channel.
    """

    def __init__(self, density: DeepFactorized, *, about_medians: bool) -> None:
        def array(parameter: Tensor) -> Array:
            return parameter.detach().double().cpu().numpy()

        self._matrices = [elementary.softplus(array(matrix)) for matrix in density.matrices]
        self._biases = [array(bias) for bias in density.biases]
        self._factors = [elementary.tanh(array(factor)) for factor in density.factors]
        channels = len(self._matrices[0])
        self.offset = self._medians() if about_medians else np.zeros(channels)
        self.tables = self._tables()

    def _logits(self, values: Array, channels: NDArray[np.int64]) -> Array:
        """Return the logits of the cumulative of `channels` at `values`, both (len(channels), number)."""
        hidden = [values]
        for layer, (matrix, bias) in enumerate(zip(self._matrices, self._biases, strict=True)):
            outputs = []
            for row in range(matrix.shape[1]):
                output = np.broadcast_to(bias[channels, row], values.shape)
                for column, each in enumerate(hidden):  # a matrix product, summed in this order
                    output = output + matrix[channels, row, column, None] * each
                if layer < len(self._factors):
                    output = output + self._factors[layer][channels, row] * elementary.tanh(output)
                outputs.append(output)
            hidden = outputs
        return hidden[0]

    def _medians(self) -> Array:
        """Return the multiple of `2^-FRACTION_BITS` just below the median of each channel."""
        channels = np.arange(len(self._matrices[0]))
        grid = 2.0**FRACTION_BITS
        low, high = (np.full((len(channels), 1), sign * _WIDEST * grid) for sign in (-1.0, 1.0))
        while (high - low).max() > 1.0:
            middle = np.floor((low + high) / 2.0)
            above = self._logits(middle / grid, channels) > 0.0
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        return low[:, 0] / grid

    def _tables(self) -> Tables:
        """Return the tables, each as wide as its channel needs."""
        counts: dict[int, NDArray[np.int64]] = {}
        channels, reach = np.arange(len(self._matrices[0])), 8
        while len(channels):
            edges = self.offset[channels, None] + (np.arange(-reach, reach + 2) - 0.5)
            cumulative = elementary.sigmoid(self._logits(edges, channels))
            tails = cumulative[:, 0] + (1.0 - cumulative[:, -1])
            done = (tails < _SMALLEST_TAIL) | (reach >= _WIDEST)
            for channel, edge in zip(channels[done], cumulative[done], strict=True):
                counts[int(channel)] = _counts(np.maximum(np.diff(edge), 0.0))
            channels, reach = channels[~done], 2 * reach
        ordered = [counts[channel] for channel in range(len(counts))]
        return Tables(np.array([-(len(each) - 2) // 2 for each in ordered]), ordered)
