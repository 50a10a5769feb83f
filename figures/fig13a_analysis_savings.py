"""Figure 13a: rate saved over BPG on Kodak with various analysis transforms before the two-layer synthesis.

python figures/fig13a_analysis_savings.py # reads analysis/tables, writes figures/out/fig13a_analysis_savings.png, .pdf
"""

from __future__ import annotations

import sys

from _figure import main, measured_grids
from _savings import draw_savings
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES

ANALYSES = ("two-layer", "two-layer-lite", "two-layer-elic-lite")
"""Beside these: every `cnn-analysis` of whatever width."""


def draw() -> Figure:
    """Draw every trained model of that synthesis beside the paper's, which has ELIC's analysis."""
    figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 3.1), layout="constrained")
    axes = figure.subplots()
    chosen = [grid for codec, grid in measured_grids().items() if codec in ANALYSES or codec.startswith("cnn-analysis")]
    draw_savings(axes, chosen, ["paper/2-layer_syn"])
    if not any(grid.codec.startswith("cnn-analysis") for grid in chosen):
        axes.set_title("CNN analyses: no trained weights yet", fontsize=7)
    figure.legend(frameon=False, loc="outside lower center", ncols=2, handlelength=2.2, labelspacing=0.3)
    return figure


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
