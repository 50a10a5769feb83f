"""Averages of an evaluation table. Each is named, because the order of averaging moves the numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..objective import check_lmbda

if TYPE_CHECKING:
    import pandas as pd

AVERAGING = "rate_bpp: mean of the images' bits / pixels; psnr_db: mean of the images' dB; others: mean over images"
"""How `average` forms its columns."""


def average(table: pd.DataFrame) -> pd.DataFrame:
    """Average an evaluation table over the images of each data set, codec, encoder and setting.

    Returns:
        One row per data set, codec, encoder and setting, with `rate_kind`, the number of `images`, and the means over
        images of `rate_bpp` (mean of ratios), `psnr_db` (mean of dB), `ms_ssim` (NaN if any image has none), `mse` and,
        for learned codecs, whose settings are lmbdas, `lagrangian_bpp = rate_bpp + lmbda * mse`; NaN for others.
        And of `lpips`, NaN where it was not measured.
    """
    per_image = table.assign(rate_bpp=table["bits"] / table["num_pixels"])
    per_image["lagrangian_bpp"] = per_image["rate_bpp"] + table["setting"] * table["mse"]
    per_image.loc[~is_learned(table), "lagrangian_bpp"] = math.nan
    groups = per_image.groupby(["dataset", "codec", "encoder", "encoder_steps", "setting", "rate_kind"])
    columns = {name: (name, _mean) for name in ("rate_bpp", "psnr_db", "ms_ssim", "mse", "lagrangian_bpp", "lpips")}
    return groups.agg(images=("image", "size"), **columns).reset_index()


def is_learned(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return for each row whether its codec is a learned one: it has estimated rates, perhaps beside coded ones."""
    codecs = table["codec"].to_numpy()
    return np.isin(codecs.astype(str), codecs[table["rate_kind"] == "estimated"].astype(str))


def _mean(values: pd.Series) -> float:
    return float(values.to_numpy().mean())  # unlike pandas' own, not blind to NaN


def best_lagrangian(table: pd.DataFrame, lmbda: float) -> pd.DataFrame:
    """Return `mean over images of min over settings of (bpp + lmbda * mse)`, in bits per pixel.

    What a codec costs when its encoder chooses the best setting of the table for each image.

    Returns:
        One row per data set and codec, with the column `lagrangian_bpp`.

    Raises:
        ValueError: If `lmbda` is not positive.
    """
    check_lmbda(lmbda)
    per_image = table.assign(lagrangian_bpp=table["bits"] / table["num_pixels"] + lmbda * table["mse"])
    best = per_image.groupby(["dataset", "codec", "image"], as_index=False).agg(best=("lagrangian_bpp", "min"))
    return best.groupby(["dataset", "codec"], as_index=False).agg(lagrangian_bpp=("best", "mean"))
