"""What "equal quality" means: PSNR, MS-SSIM in dB, or LPIPS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

MeasureName = Literal["psnr", "ms-ssim", "lpips"]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A measure of quality, which rises with the rate, and the distortion that it comes from.

    Attributes:
        label: What it is called.
        unit: "dB", or "" for a number without one.
        axis: Its name and unit, for axes and headers.
        column: Column of `rdgap.schemas.EVALUATION` that it is computed from.
        distortion: Maps that column to the distortion that a mean over images may be taken of.
        quality: Maps a distortion to the quality.
    """

    label: str
    unit: str
    axis: str
    column: str
    distortion: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    quality: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    def span(self, low: float, high: float, digits: int = 4) -> str:
        """Return a range of qualities for people, with the unit; LPIPS, whose quality is negative, as LPIPS."""
        low, high = sorted((abs(low), abs(high))) if high <= 0 else (low, high)
        return f"{low:.{digits}f}..{high:.{digits}f} {self.unit}".rstrip()


MEASURES: dict[MeasureName, Measure] = {
    "psnr": Measure(
        label="PSNR",
        unit="dB",
        axis="PSNR [dB]",
        column="mse",
        distortion=lambda mse: mse,
        quality=lambda mse: 10.0 * np.log10(255.0**2 / mse),
    ),
    "ms-ssim": Measure(
        label="MS-SSIM",
        unit="dB",
        axis="MS-SSIM, -10 log10(1 - MS-SSIM) [dB]",
        column="ms_ssim",
        distortion=lambda ms_ssim: 1.0 - ms_ssim,
        quality=lambda dissimilarity: -10.0 * np.log10(dissimilarity),
    ),
    "lpips": Measure(
        label="LPIPS",
        unit="",
        axis="LPIPS (lower is better)",
        column="lpips",
        distortion=lambda lpips: lpips,
        quality=lambda lpips: -lpips,
    ),
}
"""Every measure by name."""


def measure_called(name: str) -> Measure:
    """Return the measure of that name.

    Raises:
        ValueError: If there is none.
    """
    for known in get_args(MeasureName):
        if name == known:
            return MEASURES[known]
    raise ValueError(f"`measure` must be one of {', '.join(MEASURES)}, got {name!r}.")


def quality_of(name: MeasureName, distortion: ArrayLike) -> NDArray[np.float64]:
    """Return the quality of a distortion: MSE on the 0..255 scale, `1 - MS-SSIM`, or LPIPS; `inf` dB for none."""
    with np.errstate(divide="ignore"):
        return measure_called(name).quality(np.asarray(distortion, dtype=np.float64))
