"""Bjontegaard differences of two rate-distortion curves.

Curves are interpolated as ln(rate) over quality by a (piecewise) polynomial and integrated exactly,
in double precision, over the range that both cover; nothing is ever extrapolated.
References: Bjontegaard, VCEG-M33 (2001); Herglotz et al. (2022) for Akima and for leaving points out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .interpolation import Interpolant, Interpolation
from .measures import Measure, MeasureName, measure_called


@dataclass(frozen=True, kw_only=True, eq=False)
class RDCurve:
    """Rate-distortion curve of a codec, sorted by rate.

    Attributes:
        rate_bpp: Rates in bits per pixel, (points,), strictly increasing.
        quality: Quality at each rate, (points,), strictly increasing: dB of PSNR or MS-SSIM, or -LPIPS.
        measure: What the quality is.

    Raises:
        ValueError: If there are fewer than two points, a number is not finite, a rate is not positive, or rate and
            quality do not rise together; the message names the points.
    """

    rate_bpp: NDArray[np.float64]
    quality: NDArray[np.float64]
    measure: MeasureName = "psnr"

    def __post_init__(self) -> None:
        measure = measure_called(self.measure)
        rate_bpp = np.asarray(self.rate_bpp, dtype=np.float64)
        quality = np.asarray(self.quality, dtype=np.float64)
        if rate_bpp.ndim != 1 or rate_bpp.shape != quality.shape:
            raise ValueError(
                f"Rates and {measure.label} must be two lists of one length, "
                f"got shapes {rate_bpp.shape} and {quality.shape}."
            )
        if len(rate_bpp) < 2:
            raise ValueError(f"An R-D curve needs at least two points, got {len(rate_bpp)}.")
        valid = np.isfinite(rate_bpp) & np.isfinite(quality) & (rate_bpp > 0)
        if not valid.all():
            wrong = _listed(_point(rate_bpp[i], quality[i], measure) for i in np.flatnonzero(~valid))
            raise ValueError(f"An R-D curve needs finite {measure.label} at positive finite rates, got {wrong}.")
        order = np.lexsort((quality, rate_bpp))
        rate_bpp, quality = rate_bpp[order], quality[order]
        falls = np.flatnonzero((np.diff(rate_bpp) <= 0) | (np.diff(quality) <= 0))
        if falls.size:
            points = [_point(*point, measure) for point in zip(rate_bpp, quality, strict=True)]
            wrong = _listed(f"{points[i]} followed by {points[i + 1]}" for i in falls)
            raise ValueError(f"Quality ({measure.label}) must rise strictly with rate along an R-D curve, got {wrong}.")
        for name, array in (("rate_bpp", rate_bpp), ("quality", quality)):
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.rate_bpp)

    def without(self, points: Iterable[int]) -> RDCurve:
        """Return the curve without the points at these places."""
        kept = np.setdiff1d(np.arange(len(self)), list(points))
        return RDCurve(rate_bpp=self.rate_bpp[kept], quality=self.quality[kept], measure=self.measure)


@dataclass(frozen=True, kw_only=True)
class BDRate:
    """Average rate difference at equal quality.

    Attributes:
        bd_rate_percent: Average change of the rate; negative is better than the anchor.
        quality_low: Lower end of the range of quality averaged over.
        quality_high: Upper end of that range.
        measure: What the quality is.
        interpolation: How ln(rate) was interpolated over quality.
        anchor_points: Points of the anchor's curve, inside the range or not.
        test_points: Points of the tested curve.
    """

    bd_rate_percent: float
    quality_low: float
    quality_high: float
    measure: MeasureName
    interpolation: Interpolation
    anchor_points: int
    test_points: int


@dataclass(frozen=True, kw_only=True)
class BDQuality:
    """Average difference of quality at equal rate.

    Attributes:
        bd_quality: Average change, in dB for PSNR and MS-SSIM, of -LPIPS for LPIPS; positive is better than the anchor.
        rate_low_bpp: Lower end of the rate range averaged over (uniformly in ln(rate)).
        rate_high_bpp: Upper end of that range.
        measure: What the quality is.
        interpolation: How quality was interpolated over ln(rate).
        anchor_points: Points of the anchor's curve, inside the range or not.
        test_points: Points of the tested curve.
    """

    bd_quality: float
    rate_low_bpp: float
    rate_high_bpp: float
    measure: MeasureName
    interpolation: Interpolation
    anchor_points: int
    test_points: int


def bd_rate(
    anchor: RDCurve,
    test: RDCurve,
    *,
    interpolation: Interpolation,
    quality_range: tuple[float, float] | None = None,
) -> BDRate:
    """Average the rate change of `test` over `anchor` at equal quality.

    `100 (exp(mean of ln R_test - ln R_anchor over the range of quality) - 1)`.

    Args:
        anchor: Reference curve.
        test: Curve under test.
        interpolation: `"akima"`, `"pchip"` or `"cubic"` (at least four points). It changes the number, so choose.
        quality_range: Range to average over, inside both curves; by default all that both curves cover.

    Raises:
        ValueError: If the curves do not overlap, do not cover the range asked for, are too short for a cubic, or are
            of two measures.
    """
    covered = common_quality_range(anchor, test)
    low, high = covered if quality_range is None else quality_range
    if not covered[0] <= low < high <= covered[1]:
        measure = measure_called(anchor.measure)
        raise ValueError(
            f"The range of {measure.label} must rise and lie in {measure.span(*covered)}, which both curves cover, "
            f"got {measure.span(low, high)}."
        )
    log_ratio = _log_rate(test, interpolation).mean(low, high) - _log_rate(anchor, interpolation).mean(low, high)
    return BDRate(
        bd_rate_percent=100.0 * float(np.expm1(log_ratio)),
        quality_low=float(low),
        quality_high=float(high),
        measure=anchor.measure,
        interpolation=interpolation,
        anchor_points=len(anchor),
        test_points=len(test),
    )


def bd_quality(
    anchor: RDCurve,
    test: RDCurve,
    *,
    interpolation: Interpolation,
    rate_range_bpp: tuple[float, float] | None = None,
) -> BDQuality:
    """Average the change of quality of `test` over `anchor` at equal rate.

    The mean of `quality_test - quality_anchor` over the range of ln(rate): the BD-PSNR where the measure is PSNR.

    Args:
        anchor: Reference curve.
        test: Curve under test.
        interpolation: `"akima"`, `"pchip"` or `"cubic"` (at least four points).
        rate_range_bpp: Range to average over, inside both curves; by default all that both curves cover.

    Raises:
        ValueError: As `bd_rate`, for ranges of rates.
    """
    _check_measures(anchor, test)
    covered = _common(anchor.rate_bpp, test.rate_bpp)
    if not covered[0] < covered[1]:
        raise ValueError(
            "The curves must have a range of rates in common, "
            f"got {_rates(anchor.rate_bpp)} (anchor) and {_rates(test.rate_bpp)} (test)."
        )
    low, high = covered if rate_range_bpp is None else rate_range_bpp
    if not covered[0] <= low < high <= covered[1]:
        raise ValueError(
            f"`rate_range_bpp` must rise and lie in {_rates(covered)}, which both curves cover, got {low:g}..{high:g}."
        )
    means = [
        Interpolant(np.log(curve.rate_bpp), curve.quality, interpolation).mean(np.log(low), np.log(high))
        for curve in (anchor, test)
    ]
    return BDQuality(
        bd_quality=float(means[1] - means[0]),
        rate_low_bpp=float(low),
        rate_high_bpp=float(high),
        measure=anchor.measure,
        interpolation=interpolation,
        anchor_points=len(anchor),
        test_points=len(test),
    )


def savings_percent(
    anchor: RDCurve, test: RDCurve, quality: ArrayLike, *, interpolation: Interpolation
) -> NDArray[np.float64]:
    """Return the rate that `test` saves over `anchor` at each quality: `100 (1 - R_test / R_anchor)`.

    Args:
        anchor: Reference curve.
        test: Curve under test.
        quality: Where to compare, any shape, inside the range that both curves cover.
        interpolation: How ln(rate) is interpolated over quality.

    Raises:
        ValueError: If the curves do not overlap or a quality lies outside what both cover.
    """
    low, high = common_quality_range(anchor, test)
    quality = np.asarray(quality, dtype=np.float64)
    inside = (quality >= low) & (quality <= high)
    if not inside.all():
        measure = measure_called(anchor.measure)
        raise ValueError(
            f"{measure.label} must lie in {measure.span(low, high)}, which both curves cover, "
            f"got {quality[~inside].flat[0]:g}."
        )
    log_ratio = _log_rate(test, interpolation).at(quality) - _log_rate(anchor, interpolation).at(quality)
    return -100.0 * np.expm1(log_ratio)


def subset_changes_percent(
    anchor: RDCurve, test: RDCurve, *, interpolation: Interpolation, leave_out: int = 1
) -> NDArray[np.float64]:
    """Return how the BD-rate changes when points are left out, in percentage points: how far the points determine it.

    Every choice of `leave_out` points of one of the curves; the ends stay, so that the range does not change.

    Args:
        anchor: Reference curve.
        test: Curve under test.
        interpolation: As in `bd_rate`.
        leave_out: Points to leave out at a time.

    Returns:
        (choices,), BD-rate without the points less BD-rate; empty where no curve has points to spare.

    Raises:
        ValueError: If `leave_out` is less than one, or as `bd_rate`.
    """
    if leave_out < 1:
        raise ValueError(f"`leave_out` must be at least 1, got {leave_out}.")
    full = bd_rate(anchor, test, interpolation=interpolation).bd_rate_percent
    fewest = 4 if interpolation == "cubic" else 2
    changes = []
    for curve in (anchor, test):
        if len(curve) - leave_out < fewest:
            continue
        for points in combinations(range(1, len(curve) - 1), leave_out):
            rest = curve.without(points)
            pair = (rest, test) if curve is anchor else (anchor, rest)
            changes.append(bd_rate(*pair, interpolation=interpolation).bd_rate_percent - full)
    return np.array(changes, dtype=np.float64)


def common_quality_range(anchor: RDCurve, test: RDCurve) -> tuple[float, float]:
    """Return the range of quality that both curves cover.

    Raises:
        ValueError: If there is none, or the curves are of two measures.
    """
    _check_measures(anchor, test)
    low, high = _common(anchor.quality, test.quality)
    if not low < high:
        measure = measure_called(anchor.measure)
        spans = [measure.span(curve.quality[0], curve.quality[-1]) for curve in (anchor, test)]
        raise ValueError(
            f"The curves must have a range of {measure.label} in common, got {spans[0]} (anchor) and {spans[1]} (test)."
        )
    return low, high


def _check_measures(anchor: RDCurve, test: RDCurve) -> None:
    if anchor.measure != test.measure:
        raise ValueError(f"The curves must be of one measure, got {anchor.measure} (anchor) and {test.measure} (test).")


def _log_rate(curve: RDCurve, interpolation: Interpolation) -> Interpolant:
    return Interpolant(curve.quality, np.log(curve.rate_bpp), interpolation)


def _common(anchor: NDArray[np.float64], test: NDArray[np.float64]) -> tuple[float, float]:
    return float(max(anchor[0], test[0])), float(min(anchor[-1], test[-1]))


def _rates(values: ArrayLike) -> str:
    rates = np.asarray(values)
    return f"{rates[0]:.4f}..{rates[-1]:.4f} bpp"


def _point(rate_bpp: float, quality: float, measure: Measure) -> str:
    shown = f"{quality:.6g} {measure.unit}" if measure.unit else f"{measure.label} {-quality:.6g}"
    return f"({rate_bpp:.6g} bpp, {shown})"


def _listed(points: Iterable[str], most: int = 3) -> str:
    points = list(points)
    rest = f" and {len(points) - most} more" if len(points) > most else ""
    return "; ".join(points[:most]) + rest
