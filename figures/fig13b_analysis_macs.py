"""Figure 13b: BD-rate savings on Kodak over the complexity of the analysis before the two-layer synthesis.

python figures/fig13b_analysis_macs.py      # reads analysis/tables, writes figures/out/fig13b_analysis_macs.png, .pdf
"""

from __future__ import annotations

import sys

from _figure import main, measured_style, published_style, tidy
from _points import bd_points
from fig13a_analysis_savings import ANALYSES
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES


def draw() -> Figure:
    """Draw a point per analysis transform, with the interval over images where there is one."""
    figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 2.6), layout="constrained")
    axes = figure.subplots()
    there = []
    for point in bd_points(("analysis",)):
        if point.model not in ANALYSES and not point.model.startswith("cnn-analysis"):
            continue
        if point.published and point.published != "paper/2-layer_syn":
            continue
        there.append(point.model)
        style = published_style(point.published) if point.published else measured_style(point.model)
        axes.errorbar(point.macs_per_pixel / 1e3, -point.bd_rate_percent, yerr=point.errors, capsize=2, **style)
    if not any(model.startswith("cnn-analysis") for model in there):
        axes.set_title("CNN analyses: no trained weights yet", fontsize=7)
    axes.axhline(0.0, color="0.35", linewidth=0.8)
    axes.set(xscale="log", xlabel="Analysis [thousand MAC per pixel]", ylabel="BD-rate saved over BPG [%]")
    axes.margins(x=0.3)
    tidy(axes)
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
