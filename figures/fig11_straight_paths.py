"""Figure 11: distance of decoded latent lines to the straight paths between reconstructions and originals.

python figures/fig11_straight_paths.py   # reads analysis/tables, writes figures/out/fig11_straight_paths.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import main, read
from matplotlib.figure import Figure

from rdgap._curvature_plots import colours_of, draw_distances
from rdgap._plots import COLUMN_WIDTH_INCHES

LMBDA = 0.08  # as in the paper


def draw() -> Figure:
    """Draw one panel per crop: means over pairs at lmbda 0.08, and of the controls."""
    paths = read("latent_curvature_paths.csv")
    paths = paths.loc[(paths["lmbda"] == LMBDA) | paths["model"].str.endswith("-control"), :]
    columns = {f"{name}_mean": name for name in ("mse_to_originals", "mse_to_reconstructions")}
    paths = paths.rename(columns=columns).assign(lmbda=LMBDA)  # the controls as dark as the others
    colours = colours_of(list(paths["model"]))
    crops = sorted(set(paths["crop"]))
    figure = Figure(figsize=(2 * COLUMN_WIDTH_INCHES, 2.9), layout="constrained")
    panels = figure.subplots(1, len(crops), squeeze=False)[0]
    for axes, crop in zip(panels, crops, strict=True):
        draw_distances(axes, paths.loc[paths["crop"] == crop, :], colours)
        axes.set_title(f"{crop} x {crop} pixels", fontsize="medium")
        axes.set_yscale("symlog", linthresh=0.1)
        if axes is not panels[0]:
            axes.set_ylabel("")
        axes.get_legend().remove()
    handles = [panels[0].plot([], [], color=colour, label=model)[0] for model, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    kinds = {"to the path between originals": "-", "to the path between reconstructions": (0, (3, 1.5))}
    handles = [panels[0].plot([], [], color="0.3", ls=dashes, label=label)[0] for label, dashes in kinds.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=2, frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
