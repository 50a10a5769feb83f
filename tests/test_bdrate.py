"""Bjontegaard differences of two curves."""

from __future__ import annotations

import bjontegaard
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

from rdgap.bdrate import (
    CodecGrid,
    Interpolation,
    RDCurve,
    bd_quality,
    bd_rate,
    codec_grids,
    savings_percent,
    shipped_anchor_path,
)
from rdgap.schemas import EVALUATION
from rdgap.tables import read_table
from tests._data import data_folder

INTERPOLATIONS: tuple[Interpolation, ...] = ("akima", "pchip", "cubic")
every_interpolation = pytest.mark.parametrize("interpolation", INTERPOLATIONS)

ANCHOR = RDCurve(
    rate_bpp=np.array([0.11, 0.19, 0.34, 0.62, 0.97, 1.61]), quality=np.array([26.3, 28.6, 31.1, 34.0, 36.2, 38.9])
)
TEST = RDCurve(rate_bpp=np.array([0.09, 0.2, 0.31, 0.55, 1.05]), quality=np.array([27.1, 29.9, 31.4, 33.8, 37.4]))


def scaled(curve: RDCurve, factor: float) -> RDCurve:
    return RDCurve(rate_bpp=factor * curve.rate_bpp, quality=curve.quality)


def grid(name: str) -> CodecGrid:
    return codec_grids(read_table(shipped_anchor_path(name), EVALUATION))[name]


# ---- two curves


@every_interpolation
@settings(deadline=None, derandomize=True, max_examples=25)
@given(factor=st.floats(0.01, 100))
def test_scaled_rates_give_the_factor(interpolation: Interpolation, factor: float) -> None:
    delta = bd_rate(ANCHOR, scaled(ANCHOR, factor), interpolation=interpolation)
    assert delta.bd_rate_percent == pytest.approx(100 * (factor - 1), rel=1e-11, abs=1e-9)
    assert (delta.quality_low, delta.quality_high) == (26.3, 38.9)


@every_interpolation
def test_ten_percent_more_rate_is_plus_ten_percent(interpolation: Interpolation) -> None:
    delta = bd_rate(ANCHOR, scaled(ANCHOR, 1.1), interpolation=interpolation)
    assert delta.bd_rate_percent == pytest.approx(10, abs=1e-9)
    assert (delta.anchor_points, delta.test_points, delta.interpolation) == (6, 6, interpolation)


@every_interpolation
def test_swapping_the_curves_inverts_the_ratio(interpolation: Interpolation) -> None:
    forward = bd_rate(ANCHOR, TEST, interpolation=interpolation).bd_rate_percent
    backward = bd_rate(TEST, ANCHOR, interpolation=interpolation).bd_rate_percent
    assert abs(forward) > 1
    assert (1 + forward / 100) * (1 + backward / 100) == pytest.approx(1, abs=1e-12)


@every_interpolation
def test_log_linear_curves_have_the_closed_form(interpolation: Interpolation) -> None:
    # ln R = a + b q on both sides: the mean of their difference is its value in the middle of the common range.
    anchor_psnr_db, test_psnr_db = np.array([25.0, 28, 30, 37]), np.array([27.0, 29, 33, 36, 40])
    anchor = RDCurve(rate_bpp=np.exp(-6 + 0.15 * anchor_psnr_db), quality=anchor_psnr_db)
    test = RDCurve(rate_bpp=np.exp(-5 + 0.11 * test_psnr_db), quality=test_psnr_db)
    delta = bd_rate(anchor, test, interpolation=interpolation)
    assert (delta.quality_low, delta.quality_high) == (27, 37)
    assert delta.bd_rate_percent == pytest.approx(100 * (np.exp(1 - 0.04 * 32) - 1), rel=1e-10)
    narrow = bd_rate(anchor, test, interpolation=interpolation, quality_range=(28, 32))
    assert narrow.bd_rate_percent == pytest.approx(100 * (np.exp(1 - 0.04 * 30) - 1), rel=1e-10)
    assert (narrow.quality_low, narrow.quality_high) == (28, 32)


@every_interpolation
def test_shifted_psnr_is_the_bd_quality(interpolation: Interpolation) -> None:
    shifted = RDCurve(rate_bpp=ANCHOR.rate_bpp, quality=ANCHOR.quality + 0.73)
    delta = bd_quality(ANCHOR, shifted, interpolation=interpolation)
    assert delta.bd_quality == pytest.approx(0.73, abs=1e-11)
    assert (delta.rate_low_bpp, delta.rate_high_bpp) == pytest.approx((0.11, 1.61))


def test_two_points_make_a_log_linear_curve() -> None:
    anchor = RDCurve(rate_bpp=np.array([0.1, 0.4]), quality=np.array([28.0, 34.0]))
    test = RDCurve(rate_bpp=np.array([0.1, 0.4]), quality=np.array([29.0, 35.0]))
    expected = 100 * (4 ** (-1 / 6) - 1)
    for interpolation in ("akima", "pchip"):
        assert bd_rate(anchor, test, interpolation=interpolation).bd_rate_percent == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("interpolation", "piecewise"), [("akima", Akima1DInterpolator), ("pchip", PchipInterpolator)])
def test_agrees_with_dense_quadrature(interpolation: Interpolation, piecewise: type) -> None:
    anchor = piecewise(ANCHOR.quality, np.log(ANCHOR.rate_bpp))
    test = piecewise(TEST.quality, np.log(TEST.rate_bpp))
    knots = sorted({*ANCHOR.quality, *TEST.quality})[1:-1]
    integral, _ = quad(lambda q: float(test(q) - anchor(q)), 27.1, 37.4, points=knots, limit=200, epsabs=1e-12)
    expected = 100 * (np.exp(integral / (37.4 - 27.1)) - 1)
    assert bd_rate(ANCHOR, TEST, interpolation=interpolation).bd_rate_percent == pytest.approx(expected, abs=1e-9)


def test_cubic_of_four_points_passes_through_them() -> None:
    four = RDCurve(rate_bpp=ANCHOR.rate_bpp[:4], quality=ANCHOR.quality[:4])
    one_bpp = RDCurve(rate_bpp=np.array([1, 1 + 1e-12, 1 + 2e-12, 1 + 3e-12]), quality=four.quality)
    savings = savings_percent(one_bpp, four, four.quality, interpolation="cubic")
    assert savings == pytest.approx(100 * (1 - four.rate_bpp), abs=1e-8)


@every_interpolation
def test_savings_average_to_the_bd_rate(interpolation: Interpolation) -> None:
    psnr_db = np.linspace(27.1, 37.4, 20001)
    savings = savings_percent(ANCHOR, TEST, psnr_db, interpolation=interpolation)
    mean_log_ratio = np.trapezoid(np.log1p(-savings / 100), psnr_db) / (37.4 - 27.1)
    delta = bd_rate(ANCHOR, TEST, interpolation=interpolation)
    assert delta.bd_rate_percent == pytest.approx(100 * np.expm1(mean_log_ratio), abs=1e-6)


def test_savings_at_a_shared_psnr_are_the_ratio_of_the_rates() -> None:
    halved = scaled(ANCHOR, 0.5)
    savings = savings_percent(ANCHOR, halved, np.array([[26.3, 30.0], [34.0, 38.9]]), interpolation="pchip")
    assert savings == pytest.approx(np.full((2, 2), 50.0), abs=1e-9)


def test_points_may_come_in_any_order_and_are_not_changed() -> None:
    rate_bpp, psnr_db = np.array([0.34, 0.11, 0.97, 0.62]), np.array([31.1, 26.3, 36.2, 34.0])
    curve = RDCurve(rate_bpp=rate_bpp, quality=psnr_db)
    assert curve.rate_bpp.tolist() == [0.11, 0.34, 0.62, 0.97]
    assert curve.quality.tolist() == [26.3, 31.1, 34.0, 36.2]
    assert rate_bpp.tolist() == [0.34, 0.11, 0.97, 0.62]
    with pytest.raises(ValueError, match="read-only"):
        curve.rate_bpp[0] = 1.0


# ---- refused curves


@pytest.mark.parametrize(
    ("rate_bpp", "psnr_db", "message"),
    [
        ([0.5], [30], "at least two points, got 1"),
        ([], [], "at least two points, got 0"),
        ([0.5, 1], [30, 31, 32], r"two lists of one length, got shapes \(2,\) and \(3,\)"),
        ([[0.5, 1]], [[30, 31]], r"got shapes \(1, 2\)"),
        ([0.5, -1], [30, 31], r"positive finite rates, got \(-1 bpp, 31 dB\)"),
        ([0, 1], [30, 31], r"positive finite rates, got \(0 bpp, 30 dB\)"),
        ([0.5, 1], [30, np.inf], r"finite PSNR .* got \(1 bpp, inf dB\)"),
        ([np.nan, 1], [30, 31], r"got \(nan bpp, 30 dB\)"),
        ([0.3, 0.9, 0.5], [30, 32, 34], r"rise strictly .* got \(0.5 bpp, 34 dB\) followed by \(0.9 bpp, 32 dB\)"),
        ([0.3, 0.5, 0.5], [30, 32, 34], r"got \(0.5 bpp, 32 dB\) followed by \(0.5 bpp, 34 dB\)"),
        ([0.3, 0.5, 0.6], [30, 32, 32], r"got \(0.5 bpp, 32 dB\) followed by \(0.6 bpp, 32 dB\)"),
        ([1, 2, 3, 4, 5, 6], [36, 35, 34, 33, 32, 31], r"\(3 bpp, 34 dB\) followed by \(4 bpp, 33 dB\) and 2 more"),
    ],
)
def test_what_is_no_curve_is_refused(rate_bpp: list[float], psnr_db: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RDCurve(rate_bpp=np.array(rate_bpp), quality=np.array(psnr_db))


def test_curves_without_overlap_are_refused() -> None:
    above = RDCurve(rate_bpp=ANCHOR.rate_bpp + 2, quality=ANCHOR.quality + 12.6)
    message = r"range of PSNR in common, got 26.3000..38.9000 dB \(anchor\) and 38.9000..51.5000 dB \(test\)"
    with pytest.raises(ValueError, match=message):
        bd_rate(ANCHOR, above, interpolation="pchip")
    with pytest.raises(ValueError, match=message):
        savings_percent(ANCHOR, above, 38.9, interpolation="pchip")
    with pytest.raises(ValueError, match=r"range of rates in common, got 0.1100..1.6100 bpp \(anchor\) and 2.1100"):
        bd_quality(ANCHOR, above, interpolation="pchip")


@pytest.mark.parametrize("quality_range", [(27.0, 30.0), (30.0, 37.5), (30.0, 30.0), (32.0, 30.0), (30.0, np.nan)])
def test_a_range_outside_the_curves_is_refused(quality_range: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"must rise and lie in 27.1000..37.4000 dB, which both curves cover, got"):
        bd_rate(ANCHOR, TEST, interpolation="pchip", quality_range=quality_range)


@pytest.mark.parametrize("psnr_db", [27.0, 37.5, np.nan])
def test_savings_outside_the_common_range_are_refused(psnr_db: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in 27.1000..37.4000 dB, which both curves cover, got"):
        savings_percent(ANCHOR, TEST, [30.0, psnr_db], interpolation="pchip")


def test_interpolation_is_checked() -> None:
    three = RDCurve(rate_bpp=ANCHOR.rate_bpp[:3], quality=ANCHOR.quality[:3])
    with pytest.raises(ValueError, match="Cubic interpolation needs at least four points, got 3"):
        bd_rate(ANCHOR, three, interpolation="cubic")
    with pytest.raises(ValueError, match="must be one of akima, pchip, cubic, got 'linear'"):
        bd_rate(ANCHOR, TEST, interpolation="linear")  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="interpolation"):
        bd_rate(ANCHOR, TEST)  # pyright: ignore[reportCallIssue]


# ---- an independent implementation


def check_against_bjontegaard(anchor: RDCurve, test: RDCurve, interpolation: Interpolation) -> None:
    points = anchor.rate_bpp, anchor.quality, test.rate_bpp, test.quality
    options = {"method": interpolation, "require_matching_points": False, "min_overlap": 0}
    ours = bd_rate(anchor, test, interpolation=interpolation).bd_rate_percent
    assert ours == pytest.approx(bjontegaard.bd_rate(*points, **options), abs=1e-6)
    ours = bd_quality(anchor, test, interpolation=interpolation).bd_quality
    assert ours == pytest.approx(bjontegaard.bd_psnr(*points, **options), abs=1e-6)


@every_interpolation
def test_bpg_of_two_efforts_agrees_with_bjontegaard(interpolation: Interpolation) -> None:
    anchor, test = grid("bpg"), grid("bpg-m9")
    check_against_bjontegaard(anchor.averaged_curve("mean quality"), test.averaged_curve("mean quality"), interpolation)
    check_against_bjontegaard(anchor.image_curve("kodim08"), test.image_curve("kodim20"), interpolation)


@every_interpolation
def test_published_curves_agree_with_bjontegaard(interpolation: Interpolation) -> None:
    folder = data_folder()
    if folder is None or not (table := folder / "published" / "compressai.csv").is_file():
        pytest.skip("the published R-D points are not there")
    points = pd.read_csv(table).query("dataset == 'kodak' and opt_metric == 'mse' and variant != '8bit-decoded'")
    anchor = grid("bpg").averaged_curve("mean quality")
    compared = 0
    for _, rows in points.groupby(["codec", "variant"], dropna=False):
        try:
            test = RDCurve(rate_bpp=rows["bpp"].to_numpy(), quality=rows["psnr"].to_numpy())
        except ValueError:
            continue  # a file may hold two curves
        check_against_bjontegaard(anchor, test, interpolation)
        compared += 1
    assert compared >= 10
