"""Bjontegaard differences of two rate-distortion curves.

Curves are interpolated as ln(rate) over PSNR by a (piecewise) polynomial and integrated exactly,
in double precision, over the range that both cover; nothing is ever extrapolated.
References: Bjontegaard, VCEG-M33 (2001); Herglotz et al. (2022) for Akima.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.polynomial import Polynomial
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator, PPoly

Interpolation = Literal["akima", "pchip", "cubic"]
"""`akima`; `pchip` (JVET practice); `cubic`: one global cubic, least squares beyond four points (Bjontegaard 2001)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RDCurve:
    """Rate-distortion curve of a codec, sorted by rate.

    Attributes:
        rate_bpp: Rates in bits per pixel, (points,), strictly increasing.
        psnr_db: PSNR at each rate, (points,), strictly increasing.

    Raises:
        ValueError: If there are fewer than two points, a number is not finite, a rate is not positive, or rate and
            PSNR do not rise together; the message names the points.
    """

    rate_bpp: NDArray[np.float64]
    psnr_db: NDArray[np.float64]

    def __post_init__(self) -> None:
        rate_bpp = np.asarray(self.rate_bpp, dtype=np.float64)
        psnr_db = np.asarray(self.psnr_db, dtype=np.float64)
        if rate_bpp.ndim != 1 or rate_bpp.shape != psnr_db.shape:
            raise ValueError(
                f"Rates and PSNRs must be two lists of one length, got shapes {rate_bpp.shape} and {psnr_db.shape}."
            )
        if len(rate_bpp) < 2:
            raise ValueError(f"An R-D curve needs at least two points, got {len(rate_bpp)}.")
        valid = np.isfinite(rate_bpp) & np.isfinite(psnr_db) & (rate_bpp > 0)
        if not valid.all():
            wrong = _listed(_point(rate_bpp[i], psnr_db[i]) for i in np.flatnonzero(~valid))
            raise ValueError(f"An R-D curve needs finite PSNRs at positive finite rates, got {wrong}.")
        order = np.lexsort((psnr_db, rate_bpp))
        rate_bpp, psnr_db = rate_bpp[order], psnr_db[order]
        falls = np.flatnonzero((np.diff(rate_bpp) <= 0) | (np.diff(psnr_db) <= 0))
        if falls.size:
            wrong = _listed(
                f"{_point(rate_bpp[i], psnr_db[i])} followed by {_point(rate_bpp[i + 1], psnr_db[i + 1])}"
                for i in falls
            )
            raise ValueError(f"PSNR must rise strictly with rate along an R-D curve, got {wrong}.")
        for name, array in (("rate_bpp", rate_bpp), ("psnr_db", psnr_db)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.rate_bpp)


@dataclass(frozen=True, kw_only=True)
class BDRate:
    """Average rate difference at equal PSNR.

    Attributes:
        bd_rate_percent: Average change of the rate; negative is better than the anchor.
        psnr_low_db: Lower end of the PSNR range averaged over.
        psnr_high_db: Upper end of that range.
        interpolation: How ln(rate) was interpolated over PSNR.
        anchor_points: Points of the anchor's curve, inside the range or not.
        test_points: Points of the tested curve.
    """

    bd_rate_percent: float
    psnr_low_db: float
    psnr_high_db: float
    interpolation: Interpolation
    anchor_points: int
    test_points: int


@dataclass(frozen=True, kw_only=True)
class BDPSNR:
    """Average PSNR difference at equal rate.

    Attributes:
        bd_psnr_db: Average change of the PSNR; positive is better than the anchor.
        rate_low_bpp: Lower end of the rate range averaged over (uniformly in ln(rate)).
        rate_high_bpp: Upper end of that range.
        interpolation: How PSNR was interpolated over ln(rate).
        anchor_points: Points of the anchor's curve, inside the range or not.
        test_points: Points of the tested curve.
    """

    bd_psnr_db: float
    rate_low_bpp: float
    rate_high_bpp: float
    interpolation: Interpolation
    anchor_points: int
    test_points: int


def bd_rate(
    anchor: RDCurve,
    test: RDCurve,
    *,
    interpolation: Interpolation,
    psnr_range_db: tuple[float, float] | None = None,
) -> BDRate:
    """Average the rate change of `test` over `anchor` at equal PSNR.

    `100 (exp(mean of ln R_test - ln R_anchor over the PSNR range) - 1)`.

    Args:
        anchor: Reference curve.
        test: Curve under test.
        interpolation: `"akima"`, `"pchip"` or `"cubic"` (at least four points). It changes the number, so choose.
        psnr_range_db: Range to average over, inside both curves; by default all that both curves cover.

    Raises:
        ValueError: If the curves do not overlap, do not cover the range asked for, or are too short for a cubic.
    """
    covered = common_psnr_range_db(anchor, test)
    low, high = covered if psnr_range_db is None else psnr_range_db
    if not covered[0] <= low < high <= covered[1]:
        raise ValueError(
            f"`psnr_range_db` must rise and lie in {covered[0]:.4f}..{covered[1]:.4f} dB, which both curves cover, "
            f"got {low:g}..{high:g}."
        )
    log_ratio = _mean(_log_rate(test, interpolation), low, high) - _mean(_log_rate(anchor, interpolation), low, high)
    return BDRate(
        bd_rate_percent=100.0 * float(np.expm1(log_ratio)),
        psnr_low_db=float(low),
        psnr_high_db=float(high),
        interpolation=interpolation,
        anchor_points=len(anchor),
        test_points=len(test),
    )


def bd_psnr(anchor: RDCurve, test: RDCurve, *, interpolation: Interpolation) -> BDPSNR:
    """Average the PSNR change of `test` over `anchor` at equal rate, in dB.

    The mean of `PSNR_test - PSNR_anchor` over the common range of ln(rate).

    Args:
        anchor: Reference curve.
        test: Curve under test.
        interpolation: `"akima"`, `"pchip"` or `"cubic"` (at least four points).

    Raises:
        ValueError: If the curves have no rate in common or are too short for a cubic.
    """
    low, high = _common(np.log(anchor.rate_bpp), np.log(test.rate_bpp))
    if not low < high:
        raise ValueError(
            "The curves must have a range of rates in common, "
            f"got {_span(anchor.rate_bpp, 'bpp')} (anchor) and {_span(test.rate_bpp, 'bpp')} (test)."
        )
    means = [
        _mean(_interpolant(np.log(curve.rate_bpp), curve.psnr_db, interpolation), low, high) for curve in (anchor, test)
    ]
    return BDPSNR(
        bd_psnr_db=means[1] - means[0],
        rate_low_bpp=float(np.exp(low)),
        rate_high_bpp=float(np.exp(high)),
        interpolation=interpolation,
        anchor_points=len(anchor),
        test_points=len(test),
    )


def savings_percent(
    anchor: RDCurve, test: RDCurve, psnr_db: ArrayLike, *, interpolation: Interpolation
) -> NDArray[np.float64]:
    """Return the rate that `test` saves over `anchor` at each PSNR: `100 (1 - R_test / R_anchor)`.

    Args:
        anchor: Reference curve.
        test: Curve under test.
        psnr_db: Where to compare, any shape, inside the range that both curves cover.
        interpolation: How ln(rate) is interpolated over PSNR.

    Raises:
        ValueError: If the curves do not overlap or a PSNR lies outside what both cover.
    """
    low, high = common_psnr_range_db(anchor, test)
    psnr_db = np.asarray(psnr_db, dtype=np.float64)
    inside = (psnr_db >= low) & (psnr_db <= high)
    if not inside.all():
        raise ValueError(
            f"`psnr_db` must lie in {low:.4f}..{high:.4f} dB, which both curves cover, "
            f"got {psnr_db[~inside].flat[0]:g}."
        )
    log_ratio = _log_rate(test, interpolation)(psnr_db) - _log_rate(anchor, interpolation)(psnr_db)
    return -100.0 * np.expm1(log_ratio)


def common_psnr_range_db(anchor: RDCurve, test: RDCurve) -> tuple[float, float]:
    """Return the PSNR range that both curves cover.

    Raises:
        ValueError: If there is none.
    """
    low, high = _common(anchor.psnr_db, test.psnr_db)
    if not low < high:
        raise ValueError(
            "The curves must have a range of PSNR in common, "
            f"got {_span(anchor.psnr_db, 'dB')} (anchor) and {_span(test.psnr_db, 'dB')} (test)."
        )
    return low, high


def _log_rate(curve: RDCurve, interpolation: Interpolation) -> PPoly:
    return _interpolant(curve.psnr_db, np.log(curve.rate_bpp), interpolation)


def _interpolant(x: NDArray[np.float64], y: NDArray[np.float64], interpolation: Interpolation) -> PPoly:
    """Return y(x) as a piecewise polynomial, which scipy integrates exactly."""
    if interpolation == "akima":
        return Akima1DInterpolator(x, y)
    if interpolation == "pchip":
        return PchipInterpolator(x, y)
    if interpolation != "cubic":
        raise ValueError(f"`interpolation` must be one of {', '.join(get_args(Interpolation))}, got {interpolation!r}.")
    if len(x) < 4:
        raise ValueError(f"Cubic interpolation needs at least four points, got {len(x)}.")
    # Fitted about the first point and in numpy's scaled variable: powers of 40 dB would cost six digits.
    rising_powers = Polynomial.fit(x - x[0], y, 3).convert().coef
    return PPoly(rising_powers[::-1, None], x[[0, -1]])


def _mean(curve: PPoly, low: float, high: float) -> float:
    return float(curve.integrate(low, high)) / (high - low)


def _common(anchor: NDArray[np.float64], test: NDArray[np.float64]) -> tuple[float, float]:
    return float(max(anchor[0], test[0])), float(min(anchor[-1], test[-1]))


def _span(values: NDArray[np.float64], unit: str) -> str:
    return f"{values[0]:.4f}..{values[-1]:.4f} {unit}"


def _point(rate_bpp: float, psnr_db: float) -> str:
    return f"({rate_bpp:.6g} bpp, {psnr_db:.6g} dB)"


def _listed(points: Iterable[str], most: int = 3) -> str:
    points = list(points)
    rest = f" and {len(points) - most} more" if len(points) > most else ""
    return "; ".join(points[:most]) + rest
