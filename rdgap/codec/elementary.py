"""Elementary functions that have the same bits on every machine.

The functions of a C library, of NumPy and of torch differ in their last digits between machines, and a probability
table that differs in one count decodes to noise. Here everything is made of additions, multiplications, divisions and
scalings by powers of two, one array operation each, which IEEE 754 rounds correctly: there is one possible result.
All functions take and return float64 arrays and are accurate to about 1e-15.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# ln 2 in two parts; the first has so few binary digits that its product with an exponent is exact.
_LN2_HIGH = float.fromhex("0x1.62e42feep-1")
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_INVERSE_LN2 = 1.0 / (_LN2_HIGH + _LN2_LOW)


def exp(x: Array) -> Array:
    """Return `e^x`; arguments are kept between -700 and 700."""
    x = np.clip(x, -700.0, 700.0)
    exponent = np.rint(x * _INVERSE_LN2)
    rest = (x - exponent * _LN2_HIGH) - exponent * _LN2_LOW
    power = np.ones_like(rest)
    for degree in range(14, 0, -1):  # Horner's scheme of the Taylor series, |rest| < 0.35
        power = power * rest / float(degree) + 1.0
    return np.ldexp(power, exponent.astype(np.int32))


def log(x: Array) -> Array:
    """Return the natural logarithm of positive numbers."""
    mantissa, exponent = np.frexp(x)
    below = mantissa < 0.7071
    mantissa, exponent = np.where(below, 2.0 * mantissa, mantissa), (exponent - below).astype(np.float64)
    ratio = (mantissa - 1.0) / (mantissa + 1.0)  # log m = 2 artanh(ratio), |ratio| < 0.172
    square, series = ratio * ratio, np.zeros_like(ratio)
    for power in range(23, 0, -2):
        series = series * square + 1.0 / power
    return exponent * _LN2_HIGH + (exponent * _LN2_LOW + 2.0 * ratio * series)


def sigmoid(x: Array) -> Array:
    """Return `1 / (1 + e^-x)`."""
    return 1.0 / (1.0 + exp(-x))


def tanh(x: Array) -> Array:
    """Return the hyperbolic tangent."""
    decay = exp(-2.0 * np.abs(x))
    return np.copysign((1.0 - decay) / (1.0 + decay), x)


def softplus(x: Array) -> Array:
    """Return `log(1 + e^x)`."""
    return np.maximum(x, 0.0) + log(1.0 + exp(-np.abs(x)))


def normal_above_median(x: Array) -> Array:
    """Return the probability that a standard normal variable lies between 0 and `x`, for 0 <= x <= 8.

    By the series `phi(x) (x + x^3 / 3 + x^5 / (3 5) + ...)`, whose terms are all positive.
    """
    square = x * x
    term, total = x, x
    for odd in range(3, 201, 2):
        term = term * square / float(odd)
        total = total + term
    return exp(-0.5 * square) * total / math.sqrt(2.0 * math.pi)
