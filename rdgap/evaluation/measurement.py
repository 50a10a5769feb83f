"""What is measured of one image."""

from __future__ import annotations

import math
from dataclasses import dataclass

METRICS = ("ms_ssim", "lpips")
"""What can be measured beside the squared error, by column of a table."""

DEFAULT_METRICS = ("ms_ssim",)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Rate and distortion of one image.

    Attributes:
        num_pixels: Height times width.
        bits: Size of the image's description.
        rate_kind: "estimated" or "coded".
        mse: Mean squared error of the decoded image rounded to 8 bit, 0..255 scale.
        psnr_db: `10 log10(255^2 / mse)`; `inf` where the decoded image is exact.
        ms_ssim: Multi-scale structural similarity; NaN where not measured, so for images too small for it.
        lpips: LPIPS on AlexNet; NaN where not measured.
    """

    num_pixels: int
    bits: float
    rate_kind: str
    mse: float
    psnr_db: float
    ms_ssim: float
    lpips: float = math.nan

    @property
    def rate_bpp(self) -> float:
        """Rate in bits per pixel."""
        return self.bits / self.num_pixels
