"""Where iterative encoding moves images in the plane of rate and quality."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from .._plots import COLUMN_WIDTH_INCHES, MARKERS, STYLE

if TYPE_CHECKING:
    import pandas as pd


def draw(table: pd.DataFrame) -> Figure:
    """Draw an arrow for each image from the encoder's own choice to what was found; one colour per model and lmbda."""
    groups = list(table.groupby(["model", "lmbda"], sort=False))
    colors = sns.color_palette("colorblind", len(groups))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 2.8), layout="constrained")
        axes = figure.subplots()
        for index, (_, rows) in enumerate(groups):
            before, after = (
                (np.asarray(rows[f"{side}bits"] / rows["num_pixels"]), _psnr_db(np.asarray(rows[f"{side}mse"])))
                for side in ("encoder_", "")
            )
            first = rows.iloc[0]
            name = f"{first['model']}, $\\lambda$ = {first['lmbda']:g}"
            label = f"{name}: {rows['saving_percent'].mean():.1f} % less, n = {len(rows)}"
            axes.plot(*before, MARKERS[index % len(MARKERS)], color=colors[index], mfc="white", zorder=2)
            axes.plot(*after, MARKERS[index % len(MARKERS)], color=colors[index], label=label, zorder=3)
            for start, end in zip(zip(*before, strict=True), zip(*after, strict=True), strict=True):
                axes.annotate("", end, start, arrowprops={"arrowstyle": "-", "color": colors[index], "lw": 0.8})
        axes.set(xlabel="Rate [bpp], estimated", ylabel="PSNR [dB]")
        axes.set_title(f"{table['method'].iloc[0]}, {table['steps'].iloc[0]} steps: hollow before, full after", size=7)
        axes.grid(color="0.9", linewidth=0.5)
        axes.set_axisbelow(True)
        sns.despine(ax=axes)
        figure.legend(loc="outside lower center", frameon=False, handlelength=1.2, labelspacing=0.3)
    return figure


def _psnr_db(mse: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255**2 / mse)
