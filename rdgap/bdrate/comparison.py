"""Codecs against an anchor over a set of images, in every way of averaging that is published, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from .delta import BDQuality, BDRate, RDCurve, bd_quality, bd_rate, common_quality_range, subset_changes_percent
from .grid import CodecGrid, CurveAveraging
from .interpolation import Interpolant, Interpolation
from .measures import MeasureName, measure_called

Array = NDArray[np.float64]
Averaging = Literal["mean quality", "mean distortion", "images"]
"""One BD of the curve averaged over images, in either way of `CurveAveraging`, or the mean of the images' own BDs."""

QualityRange = Literal["common", "aligned"] | tuple[float, float]
"""Over which qualities a BD-rate is averaged: all that codec and anchor cover, all that the anchor and every codec of
the table cover, or those given. BD-qualities have the corresponding ranges of rates; with a given range of qualities,
all rates that codec and anchor cover."""

CONFIDENCE = 0.95
"""Of the intervals: percentiles of a paired bootstrap over images."""

_MOST_UNDEFINED = 0.05  # of the resamples, beyond which an interval of the others would mislead


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number with its 95 % interval.

    Attributes:
        value: The number from all images.
        low: 2.5 % of the resamples are below; NaN where there is no interval: for a single image, or where more than
            5 % of the resamples have no BD.
        high: 2.5 % of the resamples are above; NaN likewise.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Delta:
    """The two differences of a codec in one way of averaging.

    Attributes:
        averaging: Which of `Averaging`.
        bd_rate_percent: Rate change at equal quality.
        bd_quality: Change of quality at equal rate, in dB for PSNR and MS-SSIM, of -LPIPS for LPIPS.
        quality_low: Lower end of the range of quality; of the images' own ranges the mean.
        quality_high: Upper end, likewise.
        images: Images that it is averaged over.
        undefined_resamples: Resamples of the bootstrap without a BD-rate.
    """

    averaging: Averaging
    bd_rate_percent: Interval
    bd_quality: Interval
    quality_low: float
    quality_high: float
    images: int
    undefined_resamples: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """A codec against an anchor on the same images.

    The averagings differ: averaging curves weighs images by their rate. Name the one you quote.

    Attributes:
        anchor: Name of the anchor codec.
        test: Name of the codec under test.
        anchor_rate_kind: Whether the anchor's rate is "estimated" or "coded".
        test_rate_kind: The same of the codec under test.
        dataset: Name of the data set.
        measure: What the quality is.
        interpolation: How curves are interpolated.
        quality_range: The rule that chose the ranges.
        resamples: Of the bootstrap.
        anchor_curves: Averaged curve of the anchor, in both ways.
        test_curves: The same of the codec under test.
        deltas: The differences, in all ways of averaging.
        subset_changes_percent: Changes of the BD-rate of the curves of mean quality when single points are left out,
            over the range that both curves cover.
        by_image: BD-rate of each image whose two curves allow one, over that image's own range.
        quality_by_image: BD-quality of those images.
        excluded: The other images, each with the reason.
    """

    anchor: str
    test: str
    anchor_rate_kind: str
    test_rate_kind: str
    dataset: str
    measure: MeasureName
    interpolation: Interpolation
    quality_range: QualityRange
    resamples: int
    anchor_curves: Mapping[CurveAveraging, RDCurve]
    test_curves: Mapping[CurveAveraging, RDCurve]
    deltas: Mapping[Averaging, Delta]
    subset_changes_percent: Array
    by_image: Mapping[str, BDRate]
    quality_by_image: Mapping[str, BDQuality]
    excluded: Mapping[str, str]

    @property
    def num_images(self) -> int:
        """Images that the curves are averaged over."""
        return len(self.by_image) + len(self.excluded)


def compare(
    anchor: CodecGrid,
    tests: Sequence[CodecGrid],
    *,
    interpolation: Interpolation,
    generator: np.random.Generator,
    quality_range: QualityRange = "common",
    resamples: int = 1000,
) -> list[Comparison]:
    """Compare every codec with the anchor, by averaged curves and by the mean over images.

    An image without a BD of its own (curves that do not overlap, or are not monotone) is left out of the mean over
    images and listed with the reason; it stays in the averaged curves. The bootstrap draws images, the same for
    anchor and codecs, averages the curves anew and chooses the ranges anew unless they are given.

    Args:
        anchor: The anchor.
        tests: Codecs under test, on the same images and of the same measure.
        interpolation: How curves are interpolated.
        generator: Draws the resamples.
        quality_range: Rule for the ranges of quality.
        resamples: Of the bootstrap; none for no intervals.

    Raises:
        ValueError: If the images differ, or averaged curves allow no BD.
    """
    for test in tests:
        check_same_images(anchor, test)
    everyone = (anchor, *tests)
    count = len(anchor.images)
    draws = generator.multinomial(count, np.full(count, 1 / count), size=resamples if count > 1 else 0) / count
    curves = [{way: grid.averaged_curve(way) for way in get_args(CurveAveraging)} for grid in everyone]
    results = []
    for index, test in enumerate(tests, start=1):
        deltas: dict[Averaging, Delta] = {}
        for way in get_args(CurveAveraging):
            try:
                ranges = _ranges([curve[way] for curve in curves], index, quality_range)
                rate = bd_rate(curves[0][way], curves[index][way], interpolation=interpolation, quality_range=ranges[0])
                quality = bd_quality(
                    curves[0][way], curves[index][way], interpolation=interpolation, rate_range_bpp=ranges[1]
                )
            except ValueError as error:
                raise ValueError(f"{test.codec} over {anchor.codec}, {way}: {error}") from error
            rates, qualities = _resampled(everyone, index, way, draws, quality_range, interpolation)
            deltas[way] = Delta(
                averaging=way,
                bd_rate_percent=_interval(rate.bd_rate_percent, rates),
                bd_quality=_interval(quality.bd_quality, qualities),
                quality_low=rate.quality_low,
                quality_high=rate.quality_high,
                images=count,
                undefined_resamples=int(np.isnan(rates).sum()),
            )
        by_image, quality_by_image, excluded = _by_image(everyone, index, quality_range, interpolation)
        deltas["images"] = _mean_of_images(anchor.images, by_image, quality_by_image, draws)
        results.append(
            Comparison(
                anchor=anchor.codec,
                test=test.codec,
                anchor_rate_kind=anchor.rate_kind,
                test_rate_kind=test.rate_kind,
                dataset=test.dataset,
                measure=anchor.measure,
                interpolation=interpolation,
                quality_range=quality_range,
                resamples=len(draws),
                anchor_curves=curves[0],
                test_curves=curves[index],
                deltas=deltas,
                subset_changes_percent=subset_changes_percent(
                    curves[0]["mean quality"], curves[index]["mean quality"], interpolation=interpolation
                ),
                by_image=by_image,
                quality_by_image=quality_by_image,
                excluded=excluded,
            )
        )
    return results


class _Ranges(NamedTuple):
    """Ranges of quality and of rate; None for what both curves cover."""

    quality: tuple[float, float] | None
    rate_bpp: tuple[float, float] | None


def _ranges(curves: Sequence[RDCurve], index: int, rule: QualityRange) -> _Ranges:
    if rule == "common":
        return _Ranges(None, None)
    if rule != "aligned":
        return _Ranges(rule, None)
    quality = _intersection([(float(curve.quality[0]), float(curve.quality[-1])) for curve in curves])
    rate_bpp = _intersection([(float(curve.rate_bpp[0]), float(curve.rate_bpp[-1])) for curve in curves])
    if not quality[0] < quality[1] or not rate_bpp[0] < rate_bpp[1]:
        common_quality_range(curves[0], curves[index])  # the clearer message, where already these two have none
        measure = measure_called(curves[0].measure)
        raise ValueError(
            f"An aligned range needs qualities and rates that the anchor and every codec cover, got {measure.label} "
            f"from {quality[0]:.4f} to {quality[1]:.4f} and rates from {rate_bpp[0]:.4f} to {rate_bpp[1]:.4f} bpp."
        )
    return _Ranges(quality, rate_bpp)


def _intersection(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return max(low for low, _ in ranges), min(high for _, high in ranges)


def _resampled(
    everyone: Sequence[CodecGrid],
    index: int,
    way: CurveAveraging,
    draws: Array,
    rule: QualityRange,
    interpolation: Interpolation,
) -> tuple[Array, Array]:
    """Return BD-rate in percent and BD-quality of every resample, NaN where it has none."""
    involved = everyone if rule == "aligned" else (everyone[0], everyone[index])
    points = []
    for grid in involved:
        rate_bpp, quality = grid.weighted_points(draws, way)
        order = np.argsort(grid.rate_bpp.mean(axis=0))
        points.append((np.log(rate_bpp[:, order]), quality[:, order]))
    rising = np.all(
        [
            (np.diff(values, axis=1) > 0).all(axis=1) & np.isfinite(values).all(axis=1)
            for pair in points
            for values in pair
        ],
        axis=0,
    )
    anchor, test = points[0], points[index if rule == "aligned" else 1]
    results = []
    for across, along in ((1, 0), (0, 1)):  # ln(rate) over quality, then quality over ln(rate)
        low = np.max([pair[across][:, 0] for pair in points], axis=0)
        high = np.min([pair[across][:, -1] for pair in points], axis=0)
        usable = rising & (low < high)
        if across == 1 and not isinstance(rule, str):
            usable &= (low <= rule[0]) & (rule[1] <= high)
            low, high = np.full_like(low, rule[0]), np.full_like(high, rule[1])
        ends = low[usable], high[usable]
        means = [
            Interpolant(pair[across][usable], pair[along][usable], interpolation).mean(*ends) for pair in (anchor, test)
        ]
        differences = np.full(len(draws), math.nan)
        differences[usable] = means[1] - means[0]
        results.append(differences)
    return 100.0 * np.expm1(results[0]), results[1]


def _by_image(
    everyone: Sequence[CodecGrid], index: int, rule: QualityRange, interpolation: Interpolation
) -> tuple[dict[str, BDRate], dict[str, BDQuality], dict[str, str]]:
    by_image: dict[str, BDRate] = {}
    quality_by_image: dict[str, BDQuality] = {}
    excluded: dict[str, str] = {}
    for image in everyone[0].images:
        try:
            involved = everyone if rule == "aligned" else (everyone[0], everyone[index])
            curves = [grid.image_curve(image) for grid in involved]
            place = index if rule == "aligned" else 1
            ranges = _ranges(curves, place, rule)
            pair = curves[0], curves[place]
            rate = bd_rate(*pair, interpolation=interpolation, quality_range=ranges.quality)
            quality = bd_quality(*pair, interpolation=interpolation, rate_range_bpp=ranges.rate_bpp)
        except ValueError as error:
            excluded[image] = str(error)
        else:
            by_image[image], quality_by_image[image] = rate, quality
    return by_image, quality_by_image, excluded


def _mean_of_images(
    images: Sequence[str], by_image: Mapping[str, BDRate], quality_by_image: Mapping[str, BDQuality], draws: Array
) -> Delta:
    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if values else math.nan

    def interval(values: Callable[[str], float]) -> Interval:
        known = [values(image) for image in by_image]
        weights = draws[:, [image in by_image for image in images]]
        with np.errstate(invalid="ignore"):
            resampled = weights @ np.array(known, dtype=np.float64) / weights.sum(axis=1)
        return _interval(mean(known), resampled if len(known) > 1 else resampled[:0])

    shares = draws[:, [image in by_image for image in images]].sum(axis=1)
    return Delta(
        averaging="images",
        bd_rate_percent=interval(lambda image: by_image[image].bd_rate_percent),
        bd_quality=interval(lambda image: quality_by_image[image].bd_quality),
        quality_low=mean([result.quality_low for result in by_image.values()]),
        quality_high=mean([result.quality_high for result in by_image.values()]),
        images=len(by_image),
        undefined_resamples=int((shares == 0).sum()),
    )


def _interval(value: float, resampled: Array) -> Interval:
    defined = resampled[~np.isnan(resampled)]
    if len(defined) == 0 or len(defined) < (1 - _MOST_UNDEFINED) * len(resampled):
        return Interval(value=value, low=math.nan, high=math.nan)
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(value=value, low=float(low), high=float(high))


def check_same_images(anchor: CodecGrid, test: CodecGrid) -> None:
    """Raise `ValueError` unless both codecs saw the same images, by name and number of pixels."""
    sizes = [dict(zip(grid.images, grid.num_pixels.tolist(), strict=True)) for grid in (anchor, test)]
    if sizes[0].keys() != sizes[1].keys():
        only_anchor = [image for image in anchor.images if image not in sizes[1]]
        only_test = [image for image in test.images if image not in sizes[0]]
        raise ValueError(
            f"{test.codec} and its anchor {anchor.codec} must have the same images, got {_some(only_test)} only of the "
            f"test, {_some(only_anchor)} only of the anchor, and {len(sizes[0].keys() & sizes[1].keys())} in common."
        )
    for image, pixels in sizes[0].items():
        if sizes[1][image] != pixels:
            raise ValueError(
                f"{test.codec} and its anchor {anchor.codec} must have the same images, "
                f"got {image} with {sizes[1][image]} and {pixels} pixels."
            )


def _some(images: list[str], most: int = 3) -> str:
    if not images:
        return "0"
    return f"{len(images)} ({', '.join(images[:most])}{', ...' if len(images) > most else ''})"
