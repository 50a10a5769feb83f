"""Averagings, intervals, ranges and measures; published points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

from rdgap.bdrate import (
    CodecGrid,
    MeasureName,
    RDCurve,
    bd_quality,
    bd_rate,
    codec_grids,
    compare,
    in_batches,
    published,
    published_curve,
    published_grids,
    shipped_anchor_path,
    subset_changes_percent,
)
from rdgap.bdrate._convert_published import main as convert_published
from rdgap.bdrate.interpolation import Interpolant
from rdgap.schemas import EVALUATION
from rdgap.tables import read_table
from tests._bdrate import comparison, evaluation, shipped
from tests._data import data_folder

# ---- interpolation


@pytest.mark.parametrize("points", [2, 3, 4, 7])
@pytest.mark.parametrize("rises", [True, False])
def test_many_curves_at_once_are_scipys_curves_one_by_one(points: int, rises: bool) -> None:
    draws = np.random.default_rng(points)
    x = 25 + np.cumsum(draws.uniform(0.2, 3, (6, points)), axis=1)
    y = np.cumsum(draws.uniform(0.1, 1, x.shape), axis=1) if rises else draws.normal(size=x.shape)
    low, high = x[:, 0] + 0.1 * (x[:, -1] - x[:, 0]), x[:, -1] - 0.3 * (x[:, -1] - x[:, 0])
    for kind, piecewise in (("pchip", PchipInterpolator), ("akima", Akima1DInterpolator)):
        means = Interpolant(x, y, kind).mean(low, high)
        for row, mean in enumerate(means):
            by_scipy = piecewise(x[row], y[row])
            assert mean == pytest.approx(by_scipy.integrate(low[row], high[row]) / (high[row] - low[row]), abs=1e-12)
            dense = np.linspace(x[row, 0], x[row, -1], 33)
            assert Interpolant(x[row], y[row], kind).at(dense) == pytest.approx(by_scipy(dense), abs=1e-12)


def test_a_straight_line_has_the_slope_of_a_line_by_akima() -> None:
    line = Interpolant([1.0, 2.0, 4.0, 8.0], [3.0, 5.0, 9.0, 17.0], "akima")
    assert line.at([1.5, 6.0]) == pytest.approx([4.0, 13.0])


# ---- leaving points out


def test_leaving_a_point_of_a_line_out_changes_nothing_and_of_a_bend_what_it_bends() -> None:
    psnr = np.array([26.0, 29.0, 33.0, 38.0])
    line = RDCurve(rate_bpp=np.exp(-6 + 0.2 * psnr), quality=psnr)
    bent = RDCurve(rate_bpp=line.rate_bpp * np.array([1, 1.2, 1, 1]), quality=psnr)
    assert subset_changes_percent(line, line, interpolation="akima") == pytest.approx(np.zeros(4), abs=1e-9)
    changes = subset_changes_percent(line, bent, interpolation="pchip")
    full = bd_rate(line, bent, interpolation="pchip").bd_rate_percent
    assert full > 2
    assert changes[2] == pytest.approx(-full)  # without the point that is dear
    assert changes[:2] == pytest.approx([0, 0], abs=1e-9)
    assert len(subset_changes_percent(line, bent, interpolation="pchip", leave_out=2)) == 2
    assert subset_changes_percent(line, bent, interpolation="cubic").size == 0
    with pytest.raises(ValueError, match="`leave_out` must be at least 1, got 0"):
        subset_changes_percent(line, bent, interpolation="pchip", leave_out=0)


# ---- intervals


def test_intervals_are_those_of_resampled_images_one_by_one() -> None:
    # Slow and obviously right: the same draws, each resample compared as a set of images of its own.
    anchor, test = shipped("bpg"), published_grids("kodak")["2-layer_syn"]
    fast = comparison(anchor, test, "akima", resamples=40)
    draws = np.random.default_rng(0).multinomial(24, np.full(24, 1 / 24), size=40)
    slow: dict[str, list[float]] = {"mean quality": [], "mean distortion": [], "images": []}
    for draw in draws:
        rows = np.repeat(np.arange(24), draw)
        names = tuple(f"{place:02d}" for place in range(24))
        both = [
            CodecGrid(
                codec=grid.codec, rate_kind=grid.rate_kind, dataset="kodak", measure="psnr", images=names,
                settings=grid.settings, num_pixels=grid.num_pixels[rows], rate_bpp=grid.rate_bpp[rows],
                quality=grid.quality[rows], distortion=grid.distortion[rows],
            )
            for grid in (anchor, test)
        ]  # fmt: skip
        slow["mean quality"].append(_bd_rate(*(grid.averaged_curve("mean quality") for grid in both)))
        slow["mean distortion"].append(_bd_rate(*(grid.averaged_curve("mean distortion") for grid in both)))
        slow["images"].append(float(np.mean([_bd_rate(*(grid.image_curve(name) for grid in both)) for name in names])))
    for way, delta in fast.deltas.items():
        expected = np.quantile(slow[way], [0.025, 0.975])
        assert [delta.bd_rate_percent.low, delta.bd_rate_percent.high] == pytest.approx(expected.tolist(), abs=1e-9)
        assert delta.bd_rate_percent.low < delta.bd_rate_percent.value < delta.bd_rate_percent.high
        assert delta.undefined_resamples == 0


def _bd_rate(anchor: RDCurve, test: RDCurve) -> float:
    return bd_rate(anchor, test, interpolation="akima").bd_rate_percent


def test_pairing_makes_the_interval_of_a_constant_factor_vanish() -> None:
    table = read_table(shipped_anchor_path("bpg"), EVALUATION)
    test = codec_grids(table.assign(bits=0.9 * table["bits"]))["bpg"]
    for delta in comparison(shipped("bpg"), test).deltas.values():
        interval = delta.bd_rate_percent
        assert [interval.value, interval.low, interval.high] == pytest.approx([-10, -10, -10], abs=1e-9)
        assert delta.bd_quality.low > 0


def test_mean_over_images_and_averaged_curve_are_different_numbers() -> None:
    # One image 20 % cheaper, one 20 % dearer and with more bits: +-20 % has mean 0, the averaged curves do not.
    table = evaluation("x", images=("a", "b"))
    factors = np.where(table["image"] == "a", 0.8, 1.2)
    anchor = codec_grids(table)["x"]
    test = codec_grids(table.assign(codec="y", bits=table["bits"] * factors))["y"]
    delta = comparison(anchor, test)
    assert [delta.by_image[image].bd_rate_percent for image in test.images] == pytest.approx([-20, 20])
    mean = delta.deltas["images"].bd_rate_percent
    assert mean.value == pytest.approx(0, abs=1e-9)
    assert [mean.low, mean.high] == pytest.approx([-20, 20])  # a quarter of the resamples has one image twice
    assert delta.num_images == 2
    for way in ("mean quality", "mean distortion"):
        anchor_curve, test_curve = anchor.averaged_curve(way), test.averaged_curve(way)
        averaged = bd_rate(anchor_curve, test_curve, interpolation="pchip")
        assert averaged.bd_rate_percent > 0.5
        assert delta.deltas[way].bd_rate_percent.value == averaged.bd_rate_percent
        quality = bd_quality(anchor_curve, test_curve, interpolation="pchip").bd_quality
        assert delta.deltas[way].bd_quality.value == quality
        assert delta.deltas[way].quality_low == averaged.quality_low
    assert delta.deltas["mean quality"].quality_low == pytest.approx(27.35)
    of_mean_mse = -10 * np.log10((10**-2.7 + 10**-2.77) / 2)
    assert delta.deltas["mean distortion"].quality_low == pytest.approx(of_mean_mse, abs=1e-9)


# ---- ranges and measures


def test_an_aligned_range_is_common_to_all_codecs_of_the_table() -> None:
    anchor, other = (codec_grids(evaluation(name))[name] for name in ("x", "other"))
    short = codec_grids(evaluation("short").query("setting > 0"))["short"]
    common, aligned = (
        compare(
            anchor,
            [short, other],
            interpolation="pchip",
            generator=np.random.default_rng(0),
            quality_range=rule,
            resamples=20,
        )
        for rule in ("common", "aligned")
    )
    low = short.averaged_curve("mean quality").quality[0]
    assert common[1].deltas["mean quality"].quality_low == pytest.approx(27.7)
    assert [one.deltas["mean quality"].quality_low for one in aligned] == pytest.approx([low, low])
    assert aligned[1].by_image["a"].quality_low == short.image_curve("a").quality[0]
    assert np.isfinite(aligned[1].deltas["mean quality"].bd_rate_percent.low)


def test_a_given_range_is_used_everywhere_and_images_outside_are_named() -> None:
    anchor, test = codec_grids(evaluation("x"))["x"], codec_grids(evaluation("y", 1.1))["y"]
    delta = comparison(anchor, test, quality_range=(28.0, 36.0))
    assert (delta.deltas["mean distortion"].quality_low, delta.deltas["mean quality"].quality_high) == (28.0, 36.0)
    assert list(delta.excluded) == ["c"]  # which starts at 28.4 dB
    assert "The range of PSNR must rise and lie in 28.4000" in delta.excluded["c"]
    assert delta.deltas["mean quality"].undefined_resamples > 2  # those that are mostly of this image
    assert np.isnan(delta.deltas["mean quality"].bd_rate_percent.low)
    with pytest.raises(ValueError, match=r"y over x, mean quality: The range of PSNR .* got 20.0000..36.0000 dB"):
        comparison(anchor, test, quality_range=(20.0, 36.0))


def test_ranges_that_not_all_codecs_share_are_refused() -> None:
    tables = [evaluation("x"), evaluation("low").query("setting < 2"), evaluation("high").query("setting > 2")]
    anchor, low, high = (next(iter(codec_grids(table).values())) for table in tables)
    with pytest.raises(ValueError, match="aligned range needs qualities and rates that the anchor and every codec"):
        compare(anchor, [low, high], interpolation="pchip", generator=np.random.default_rng(0), quality_range="aligned")


@pytest.mark.parametrize(("measure", "best"), [("ms-ssim", -10 * np.log10(0.1 * 0.5**4)), ("lpips", -0.5 * 0.7**4)])
def test_measures_are_held_equal_each_in_its_own_unit(measure: MeasureName, best: float) -> None:
    table = evaluation("x")
    settings = table["setting"].to_numpy()
    table = table.assign(ms_ssim=1 - 0.1 * 0.5**settings, lpips=0.5 * 0.7**settings)
    dear = table.assign(codec="y", bits=1.25 * table["bits"])
    delta = comparison(codec_grids(table, measure)["x"], codec_grids(dear, measure)["y"])
    for way in delta.deltas.values():
        assert way.bd_rate_percent.value == pytest.approx(25, abs=1e-9)
        assert way.bd_quality.value < 0
        assert way.quality_high == pytest.approx(best)


def test_tables_without_the_measure_are_refused() -> None:
    with pytest.raises(ValueError, match="must have LPIPS to compare it, got none"):
        codec_grids(evaluation("x"), "lpips")
    with pytest.raises(ValueError, match="every image must have a MS-SSIM, got none for a at setting 0"):
        codec_grids(evaluation("x").assign(ms_ssim=np.nan), "ms-ssim")
    psnr = codec_grids(evaluation("x"))["x"].averaged_curve("mean quality")
    lpips = RDCurve(rate_bpp=psnr.rate_bpp, quality=psnr.quality - 100, measure="lpips")
    with pytest.raises(ValueError, match=r"of one measure, got psnr \(anchor\) and lpips \(test\)"):
        bd_rate(psnr, lpips, interpolation="pchip")
    with pytest.raises(ValueError, match="must be one of psnr, ms-ssim, lpips, got 'ssim'"):
        RDCurve(rate_bpp=psnr.rate_bpp, quality=psnr.quality, measure="ssim")  # pyright: ignore[reportArgumentType]


# ---- published points


def test_bpgs_ms_ssim_is_the_published_one() -> None:
    ours = shipped("bpg", "ms-ssim")
    published_bpg = published_curve("compressai/bpg_444_x265_ycbcr", "kodak", "ms-ssim")
    of_published = 1 - 10 ** (-published_bpg.quality / 10)
    means = zip(ours.rate_bpp.mean(axis=0), 1 - ours.distortion.mean(axis=0), strict=True)
    for rate, mean in means:
        nearest = int(np.abs(published_bpg.rate_bpp - rate).argmin())
        assert published_bpg.rate_bpp[nearest] == pytest.approx(rate, abs=1e-6)
        assert of_published[nearest] == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("dataset", ["kodak", "tecnick", "clic2018-professional-valid"])
@pytest.mark.parametrize("measure", ["psnr", "ms-ssim", "lpips"])
def test_published_images_average_to_the_published_curves(dataset: str, measure: MeasureName) -> None:
    grids = published_grids(dataset, measure)
    assert len(grids) == 3
    for codec, grid in grids.items():
        curve = published_curve(f"paper/{codec}", dataset, measure)
        averaged = grid.averaged_curve("mean distortion" if measure == "ms-ssim" else "mean quality")
        assert averaged.rate_bpp == pytest.approx(curve.rate_bpp, rel=1e-6)
        assert averaged.quality == pytest.approx(curve.quality, rel=1e-5)


def test_instances_of_kodak_are_numbered_as_its_files_are() -> None:
    # Rates of the paper's model and of BPG at 34 dB go up and down together, image by image, in this order alone.
    anchor, test = shipped("bpg"), published_grids("kodak")["2-layer_syn"]
    assert test.images == anchor.images
    rates = [
        [np.interp(34, np.sort(grid.quality[row]), np.sort(np.log(grid.rate_bpp[row]))) for row in range(24)]
        for grid in (anchor, test)
    ]
    assert np.corrcoef(rates)[0, 1] > 0.99
    assert max(np.corrcoef(rates[0], np.roll(rates[1], shift))[0, 1] for shift in range(1, 24)) < 0.9


def test_batches_of_tecnick_are_images_in_a_row() -> None:
    grids = published_grids("tecnick")
    batches, sga = in_batches(grids["2-layer_syn"], 5), grids["2-layer_syn+SGA"]
    assert batches.images == sga.images
    assert np.log(sga.rate_bpp) == pytest.approx(np.log(batches.rate_bpp), abs=0.05)
    for measure in ("psnr", "ms-ssim", "lpips"):  # averaged as they were published, all ways agree to 1.5 points
        of_measure = published_grids("tecnick", measure)
        deltas = comparison(in_batches(of_measure["2-layer_syn"], 5), of_measure["2-layer_syn+SGA"]).deltas.values()
        rates = [delta.bd_rate_percent.value for delta in deltas]
        assert max(rates) - min(rates) < 1.5
    with pytest.raises(ValueError, match="2-layer_syn must have a multiple of 7 images, got 100"):
        in_batches(grids["2-layer_syn"], 7)


def test_unknown_published_points_are_refused() -> None:
    with pytest.raises(ValueError, match="per image are of clic2018-professional-valid, kodak, tecnick, got 'clic'"):
        published_grids("clic")
    with pytest.raises(ValueError, match=r"curves on kodak are .*compressai/vtm.*; got 'vtm'"):
        published_curve("vtm", "kodak")
    with pytest.raises(ValueError, match=r"curves on clic are none on that data set, but on clic2018.*; got 'vtm'"):
        published_curve("vtm", "clic")


def test_published_tables_are_what_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data_folder()
    if folder is None or not (folder / "published").is_dir():
        pytest.skip("the published R-D points are not there")
    paths = {name: getattr(published, name) for name in ("CURVES_TABLE", "IMAGES_TABLE")}
    for name, path in paths.items():
        monkeypatch.setattr(f"rdgap.bdrate._convert_published.{name}", tmp_path / path.name)
    assert convert_published([str(folder / "published")]) == 0
    for path in paths.values():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
