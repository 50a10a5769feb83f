"""Interpolation of curves, exact integrals, many curves at once.

Every kind ends in the same form, values and slopes at the points, between which lies the one cubic that has them
(Hermite): so one integral serves all, and a bootstrap evaluates its resamples in one go.
References: Fritsch & Butland (1984) for PCHIP, Akima (1970), Bjontegaard, VCEG-M33 (2001) for the cubic.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Interpolation = Literal["akima", "pchip", "cubic"]
"""`akima`; `pchip` (JVET practice); `cubic`: one global cubic, least squares beyond four points (Bjontegaard 2001)."""


class Interpolant:
    """Curves y(x) through points, one or many of the same number of points.

    Args:
        x: Where the points are, (..., points), strictly increasing.
        y: Values there, shaped alike.
        interpolation: How to go from one to the next.

    Raises:
        ValueError: If there is no such interpolation, or fewer than four points for a cubic.
    """

    def __init__(self, x: ArrayLike, y: ArrayLike, interpolation: Interpolation) -> None:
        self._x, self._y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        if interpolation == "pchip":
            self._slopes = _pchip_slopes(self._x, self._y)
        elif interpolation == "akima":
            self._slopes = _akima_slopes(self._x, self._y)
        elif interpolation == "cubic":
            self._y, self._slopes = _least_squares_cubic(self._x, self._y)
        else:
            names = ", ".join(get_args(Interpolation))
            raise ValueError(f"`interpolation` must be one of {names}, got {interpolation!r}.")

    def mean(self, low: ArrayLike, high: ArrayLike) -> Array:
        """Return the mean of each curve over the range from `low` to `high`, inside its points."""
        low, high = (np.asarray(end, dtype=np.float64)[..., None] for end in (low, high))
        start, step = self._x[..., :-1], np.diff(self._x)
        first, last = (np.clip((end - start) / step, 0.0, 1.0) for end in (low, high))
        integral = (step * (self._antiderivative(last) - self._antiderivative(first))).sum(axis=-1)
        return integral / (high - low)[..., 0]

    def at(self, x: ArrayLike) -> Array:
        """Return the values of a single curve at any `x` inside its points."""
        x = np.asarray(x, dtype=np.float64)
        left = np.clip(np.searchsorted(self._x, x, side="right") - 1, 0, self._x.size - 2)
        step = self._x[left + 1] - self._x[left]
        t = (x - self._x[left]) / step
        return (
            self._y[left] * (1 + 2 * t) * (1 - t) ** 2
            + self._y[left + 1] * t**2 * (3 - 2 * t)
            + step * t * (1 - t) * (self._slopes[left] * (1 - t) - self._slopes[left + 1] * t)
        )

    def _antiderivative(self, t: Array) -> Array:
        """Return the integral of every piece from its start, t = 0, to t, over the length of the piece."""
        step = np.diff(self._x)
        values, slopes = self._y, self._slopes
        return (
            values[..., :-1] * (t - t**3 + t**4 / 2)
            + values[..., 1:] * (t**3 - t**4 / 2)
            + step * slopes[..., :-1] * (t**2 / 2 - 2 * t**3 / 3 + t**4 / 4)
            + step * slopes[..., 1:] * (t**4 / 4 - t**3 / 3)
        )


def _pchip_slopes(x: Array, y: Array) -> Array:
    """Weighted harmonic means of the neighbouring secants, zero where those change sign."""
    step = np.diff(x)
    secants = np.diff(y) / step
    if x.shape[-1] == 2:
        return np.repeat(secants, 2, axis=-1)
    before, after = secants[..., :-1], secants[..., 1:]
    weight_before = 2 * step[..., 1:] + step[..., :-1]
    weight_after = step[..., 1:] + 2 * step[..., :-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        harmonic = (weight_before + weight_after) / (weight_before / before + weight_after / after)
    inner = np.where(before * after > 0, harmonic, 0.0)
    first = _pchip_end(step[..., 0], step[..., 1], secants[..., 0], secants[..., 1])
    last = _pchip_end(step[..., -1], step[..., -2], secants[..., -1], secants[..., -2])
    return np.concatenate([first[..., None], inner, last[..., None]], axis=-1)


def _pchip_end(step: Array, next_step: Array, secant: Array, next_secant: Array) -> Array:
    """Slope of the parabola through the three last points, held back so that it overshoots nothing."""
    slope = ((2 * step + next_step) * secant - step * next_secant) / (step + next_step)
    slope = np.where(slope * secant <= 0, 0.0, slope)
    overshoots = (secant * next_secant <= 0) & (np.abs(slope) > 3 * np.abs(secant))
    return np.where(overshoots, 3 * secant, slope)


def _akima_slopes(x: Array, y: Array) -> Array:
    """Means of the neighbouring secants, each weighed by how little the secants beyond the other one change."""
    secants = np.diff(y) / np.diff(x)
    if x.shape[-1] == 2:
        return np.repeat(secants, 2, axis=-1)
    for _ in range(2):  # two secants beyond either end, going on as the last two do
        before = 2 * secants[..., :1] - secants[..., 1:2]
        after = 2 * secants[..., -1:] - secants[..., -2:-1]
        secants = np.concatenate([before, secants, after], axis=-1)
    change = np.abs(np.diff(secants))
    left, right = change[..., 2:], change[..., :-2]
    total = left + right
    straight = total <= 1e-9 * total.max(axis=-1, keepdims=True)
    share = np.where(straight, 0.5, right / np.where(straight, 1.0, total))
    return secants[..., 1:-2] + share * np.diff(secants)[..., 1:-1]


def _least_squares_cubic(x: Array, y: Array) -> tuple[Array, Array]:
    """Return the values and slopes at the points of the cubic that is closest to all of them."""
    if x.shape[-1] < 4:
        raise ValueError(f"Cubic interpolation needs at least four points, got {x.shape[-1]}.")
    # In x scaled to -1..1, because powers of 40 dB would cost six digits.
    center, half = (x[..., :1] + x[..., -1:]) / 2, (x[..., -1:] - x[..., :1]) / 2
    powers = ((x - center) / half)[..., None] ** np.arange(4)
    coefficients = np.linalg.pinv(powers) @ y[..., None]
    derivatives = np.concatenate([np.zeros_like(powers[..., :1]), powers[..., :-1] * np.arange(1, 4)], axis=-1)
    return (powers @ coefficients)[..., 0], (derivatives @ coefficients)[..., 0] / half
