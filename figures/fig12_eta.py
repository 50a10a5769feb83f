"""Figure 12: curve length over chord, eta, against the chord, of random pairs of crops in all shipped models.

python figures/fig12_eta.py      # reads analysis/tables, writes figures/out/fig12_eta.png and .pdf
"""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from rdgap._curvature_plots import colours_of, draw_etas
from rdgap._plots import COLUMN_WIDTH_INCHES, STYLE, save
from rdgap.tables import CURVATURE, read_table

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "figures" / "out"


def draw(table: pd.DataFrame) -> Figure:
    """Draw one panel per crop, above the shipped models and below the controls; darker points have larger lmbdas."""
    colours = colours_of(list(table["model"]))
    with mpl.rc_context(STYLE):
        crops = sorted(set(table["crop"]))
        figure = Figure(figsize=(2 * COLUMN_WIDTH_INCHES, 4.2), layout="constrained")
        grid = figure.subplots(2, len(crops), squeeze=False, sharey="row")
        control = table["model"].str.endswith("-control")
        for panels, rows in zip(grid, (table.loc[~control, :], table.loc[control, :]), strict=True):
            for axes, crop in zip(panels, crops, strict=True):
                draw_etas(axes, rows.loc[rows["crop"] == crop, :], colours)
                if axes is not panels[-1]:
                    axes.get_legend().remove()
                if axes is not panels[0]:
                    axes.set_ylabel("")
            panels[0].set_ylim(bottom=1 - 0.03 * (float(rows["eta"].max()) - 1))
        for axes, crop in zip(grid[0], crops, strict=True):
            axes.set_title(f"{crop} x {crop} pixels", fontsize="medium")
            axes.set_xlabel("")
    return figure


def main() -> None:
    """Write the figure."""
    table = read_table(ROOT / "analysis" / "tables" / "latent_curvature.csv", CURVATURE)
    for suffix in ("png", "pdf"):
        save(draw(table), OUT / f"fig12_eta.{suffix}")


if __name__ == "__main__":
    main()
