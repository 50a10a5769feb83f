"""BD-rate of a codec over a set of images, both ways in which it is published."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from .delta import BDRate, Interpolation, RDCurve, bd_rate
from .grid import CodecGrid


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """A codec against an anchor on the same images.

    The two numbers differ, because averaging curves weighs images by their rate: name the one you quote.

    Attributes:
        anchor: Name of the anchor codec.
        test: Name of the codec under test.
        anchor_rate_kind: Whether the anchor's rate is "estimated" or "coded".
        test_rate_kind: The same of the codec under test.
        anchor_curve: Mean bpp and mean PSNR of the anchor at each setting.
        test_curve: The same of the codec under test.
        averaged: BD-rate between these two curves.
        by_image: BD-rate of each image whose two curves allow one, over that image's own PSNR range.
        excluded: The other images, each with the reason.
    """

    anchor: str
    test: str
    anchor_rate_kind: str
    test_rate_kind: str
    anchor_curve: RDCurve
    test_curve: RDCurve
    averaged: BDRate
    by_image: Mapping[str, BDRate]
    excluded: Mapping[str, str]

    @property
    def num_images(self) -> int:
        """Images that the curves are averaged over."""
        return len(self.by_image) + len(self.excluded)

    @property
    def mean_of_images_percent(self) -> float:
        """Mean of the BD-rates of single images; NaN if no image has one."""
        return statistics.fmean(self._percents) if self.by_image else math.nan

    @property
    def standard_error_percent(self) -> float:
        """Standard error of that mean over images; NaN for fewer than two."""
        if len(self.by_image) < 2:
            return math.nan
        return statistics.stdev(self._percents) / math.sqrt(len(self.by_image))

    @property
    def _percents(self) -> list[float]:
        return [image.bd_rate_percent for image in self.by_image.values()]


def compare(anchor: CodecGrid, test: CodecGrid, *, interpolation: Interpolation) -> Comparison:
    """Compare a codec with an anchor, by the averaged curve and by the mean over images.

    An image without a BD-rate of its own (curves that do not overlap, or are not monotone) is left out of the
    mean over images and listed with the reason; it stays in the averaged curve.

    Raises:
        ValueError: If the images of the two differ, or the averaged curves allow no BD-rate.
    """
    check_same_images(anchor, test)
    anchor_curve, test_curve = anchor.averaged_curve(), test.averaged_curve()
    try:
        averaged = bd_rate(anchor_curve, test_curve, interpolation=interpolation)
    except ValueError as error:
        raise ValueError(f"{test.codec} over {anchor.codec}: {error}") from error
    by_image: dict[str, BDRate] = {}
    excluded: dict[str, str] = {}
    for image in test.images:
        try:
            curves = anchor.image_curve(image), test.image_curve(image)
            by_image[image] = bd_rate(*curves, interpolation=interpolation)
        except ValueError as error:
            excluded[image] = str(error)
    return Comparison(
        anchor=anchor.codec,
        test=test.codec,
        anchor_rate_kind=anchor.rate_kind,
        test_rate_kind=test.rate_kind,
        anchor_curve=anchor_curve,
        test_curve=test_curve,
        averaged=averaged,
        by_image=by_image,
        excluded=excluded,
    )


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
