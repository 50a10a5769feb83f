"""BD-rate against the `bjontegaard` package."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import bjontegaard
import numpy as np

from rdgap.bdrate import RDCurve, bd_rate

Comparison = tuple[str, Callable[[], float], Callable[[], float], Callable[[float, float], float]]


def comparisons() -> Iterator[Comparison]:
    """Yield BD-rate by each interpolation, of two curves of 18 points."""
    psnr = np.linspace(26.0, 44.0, 18)
    rate = 0.02 * np.exp(0.26 * (psnr - 26.0)) * (1 + 0.02 * np.sin(psnr))
    test_rate = rate * (0.9 + 0.004 * (psnr - 26.0))
    anchor, test = (RDCurve(rate_bpp=values, quality=psnr) for values in (rate, test_rate))
    for kind in ("pchip", "akima"):
        yield (
            f"BD-rate, {kind}; bjontegaard",
            lambda kind=kind: bd_rate(anchor, test, interpolation=kind).bd_rate_percent,
            lambda kind=kind: _by_package(bjontegaard.bd_rate(rate, psnr, test_rate, psnr, method=kind)),
            lambda here, other: abs(here - other),
        )


def _by_package(percent: object) -> float:
    assert isinstance(percent, float)  # its return type depends on a flag
    return percent
