"""Savings over the anchor against PSNR, as in Fig. 13a of Yang & Mandt (2023)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .._plots import COLUMN_WIDTH_INCHES, MARKERS, STYLE
from .comparison import Comparison
from .delta import savings_percent


def plot_savings(comparisons: Sequence[Comparison]) -> Figure:
    """Draw the rate that each codec saves over the anchor at each PSNR, from the averaged curves.

    Lines interpolate as the comparisons did; markers sit at the codec's own points. Lines end where either curve does.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 2.5), layout="constrained")
        axes = figure.subplots()
        anchor = comparisons[0].anchor
        axes.axhline(0.0, color="0.35", linewidth=0.8, label=anchor)
        for index, color in enumerate(sns.color_palette("colorblind", len(comparisons))):
            comparison = comparisons[index]
            low, high = comparison.averaged.psnr_low_db, comparison.averaged.psnr_high_db
            points = comparison.test_curve.psnr_db
            points = points[(points >= low) & (points <= high)]
            style = {"color": color, "label": comparison.test, "marker": MARKERS[index % len(MARKERS)]}
            dense = np.unique(np.concatenate([np.linspace(low, high, 256), points]))
            savings = savings_percent(
                comparison.anchor_curve, comparison.test_curve, dense, interpolation=comparison.averaged.interpolation
            )
            axes.plot(dense, savings, markevery=np.searchsorted(dense, points).tolist(), **style)
        axes.set(xlabel="PSNR [dB]", ylabel=f"Rate saved over {anchor} [%]")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(color="0.9", linewidth=0.5)
        axes.set_axisbelow(True)
        sns.despine(ax=axes)
        axes.legend(frameon=False, handlelength=1.6, labelspacing=0.3)
    return figure
