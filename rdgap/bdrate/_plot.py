"""Savings over an anchor against quality, as in Figs. 13a and 14 of Yang & Mandt (2023)."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from .._plots import COLUMN_WIDTH_INCHES, MARKERS, STYLE
from .comparison import Comparison
from .delta import common_quality_range, savings_percent
from .measures import MEASURES


def plot_savings(blocks: Sequence[Sequence[Comparison]]) -> Figure:
    """Draw the rate that each codec saves over its anchor at each quality, from the curves of mean quality.

    Lines interpolate as the comparisons did; markers sit at the codec's own points. Lines end where either curve does.

    Args:
        blocks: One panel each, of one anchor and measure.
    """
    codecs = list(dict.fromkeys(comparison.test for comparisons in blocks for comparison in comparisons))
    colors = dict(zip(codecs, sns.color_palette("colorblind", len(codecs)), strict=True))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 2.5 * len(blocks)), layout="constrained")
        for axes, comparisons in zip(figure.subplots(len(blocks), squeeze=False)[:, 0], blocks, strict=True):
            anchor, measure = comparisons[0].anchor, MEASURES[comparisons[0].measure]
            axes.axhline(0.0, color="0.35", linewidth=0.8, label=anchor)
            for comparison in comparisons:
                curves = comparison.anchor_curves["mean quality"], comparison.test_curves["mean quality"]
                low, high = common_quality_range(*curves)
                points = curves[1].quality
                points = points[(points >= low) & (points <= high)]
                dense = np.unique(np.concatenate([np.linspace(low, high, 256), points]))
                axes.plot(
                    dense,
                    savings_percent(*curves, dense, interpolation=comparison.interpolation),
                    markevery=np.searchsorted(dense, points).tolist(),
                    color=colors[comparison.test],
                    marker=MARKERS[codecs.index(comparison.test) % len(MARKERS)],
                    label=comparison.test,
                )
            axes.set(xlabel=measure.axis, ylabel=f"Rate saved over {anchor} [%]")
            axes.xaxis.set_major_locator(MaxNLocator(integer=bool(measure.unit)))
            if not measure.unit:
                axes.xaxis.set_major_formatter(FuncFormatter(lambda quality, _: f"{abs(quality):g}"))
            axes.grid(color="0.9", linewidth=0.5)
            axes.set_axisbelow(True)
            sns.despine(ax=axes)
            axes.legend(frameon=False, handlelength=1.6, labelspacing=0.3)
    return figure
