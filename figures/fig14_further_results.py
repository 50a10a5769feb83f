"""Figure 14: iterative encoding of the baseline, scaled-down baselines, and a cheap hyper synthesis.

python figures/fig14_further_results.py     # reads analysis/tables, writes figures/out/fig14_further_results.png, .pdf
"""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
from _figure import main, measured_grids, measured_style, published_style, read, tidy
from _savings import draw_curve, draw_savings
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES
from rdgap.bdrate import RDCurve, published_curve
from rdgap.schemas import ENCODED

PUBLISHED = (
    "paper/2-layer_syn+SGA",
    "paper/2-layer_syn",
    "paper/JPEG-like_syn",
    "others/sga",
    "tfc/minnen-2018-neurips-no-context",
)
WANTED = ("cenic-lite", "elic-xs-lite", "jpeg-like-hyper-lite")
"""What the paper's figure has and no other of ours."""


def draw() -> Figure:
    """Draw the savings over BPG, and beside them what iterative encoding saves each codec over itself.

    Ours were encoded iteratively on crops, for which there is no BPG, so that their gain has a panel of its own.
    """
    figure = Figure(figsize=(2 * COLUMN_WIDTH_INCHES, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    grids = measured_grids()
    draw_savings(left, grids.values(), PUBLISHED)
    missing = [name for name in WANTED if name not in grids]
    left.set_title(f"No trained weights yet: {', '.join(missing)}" if missing else "", fontsize=7)
    _draw_sga(right, read("sga_kodak.csv", ENCODED))
    right.set_title("Ours: crops of six images; published: all of Kodak", fontsize=7)
    handles = {label: handle for axes in (left, right) for handle, label in zip(*axes.get_legend_handles_labels())}  # noqa: B905
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def _draw_sga(axes: Axes, encoded: pd.DataFrame) -> None:
    """Draw the rate that iterative encoding saves each codec over its own encoder, at equal PSNR."""
    for model, rows in encoded.groupby("model"):
        lmbdas = len(set(rows["lmbda"]))
        if lmbdas < 2:  # no curve to compare along
            continue
        curves = [_curve(rows, f"{kind}bits", f"{kind}mse") for kind in ("encoder_", "")]
        draw_curve(
            axes,
            curves[0],
            curves[1],
            {**measured_style(str(model), lmbdas), "marker": "*", "markersize": 6, "label": f"{model} + SGA"},
        )
    for codec, own in (("paper/2-layer_syn+SGA", "paper/2-layer_syn"), ("others/sga", "others/mbt2018")):
        draw_curve(axes, published_curve(own, "kodak"), published_curve(codec, "kodak"), published_style(codec))
    axes.set(xlabel="PSNR [dB], mean over images", ylabel="Rate saved by SGA [%]", ylim=(0, None))
    tidy(axes)


def _curve(rows: pd.DataFrame, bits: str, mse: str) -> RDCurve:
    """Return the curve of mean rate and mean PSNR over the crops."""
    points = rows.assign(rate=rows[bits] / rows["num_pixels"], psnr=10 * np.log10(255**2 / rows[mse]))
    means = pd.DataFrame(points.groupby("lmbda")[["rate", "psnr"]].mean()).to_numpy()
    return RDCurve(rate_bpp=means[:, 0], quality=means[:, 1], measure="psnr")


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
