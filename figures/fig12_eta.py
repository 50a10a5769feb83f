"""Figure 12: curve length over chord, eta, against the chord, of random pairs of crops in all shipped models.

python figures/fig12_eta.py      # reads analysis/tables, writes figures/out/fig12_eta.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import main, read
from matplotlib.artist import Artist
from matplotlib.figure import Figure

from rdgap._curvature_plots import colours_of, draw_etas
from rdgap._plots import COLUMN_WIDTH_INCHES
from rdgap.schemas import CURVATURE


def draw() -> Figure:
    """Draw one panel per crop, above the shipped models and below the controls; darker points have larger lmbdas."""
    table = read("latent_curvature.csv", CURVATURE)
    colours = colours_of(list(table["model"]))
    crops = sorted(set(table["crop"]))
    figure = Figure(figsize=(2 * COLUMN_WIDTH_INCHES, 4.7), layout="constrained")
    grid = figure.subplots(2, len(crops), squeeze=False, sharey="row")
    control = table["model"].str.endswith("-control")
    handles: list[Artist] = []
    for panels, rows in zip(grid, (table.loc[~control, :], table.loc[control, :]), strict=True):
        for axes, crop in zip(panels, crops, strict=True):
            draw_etas(axes, rows.loc[rows["crop"] == crop, :], colours)
            if axes is not panels[0]:
                axes.set_ylabel("")
        handles += panels[0].get_legend().legend_handles
        for axes in panels:
            axes.get_legend().remove()
        panels[0].set_ylim(bottom=1 - 0.03 * (float(rows["eta"].max()) - 1))
    for axes, crop in zip(grid[0], crops, strict=True):
        axes.set_title(f"{crop} x {crop} pixels", fontsize="medium")
        axes.set_xlabel("")
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False, handletextpad=0.2)
    return figure


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
