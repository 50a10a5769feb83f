"""How the interval of F_g, the best cost of a fixed decoder, closes when its prior is refitted.

python figures/known_refits.py     # reads analysis/tables, writes figures/out/known_refits.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import main, read
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES, MARKERS

COLOURS = ("#2f6d8c", "#b5443c", "#e0a458", "#4c5b6b", "#7a9a4d", "#8c5a9e")


def draw() -> Figure:
    """Draw the width on the samples that the prior is fitted to, over the distance from the best prior."""
    rows = read("known_refits.csv")
    figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 2.5), layout="constrained")
    axes = figure.subplots()
    for index, (source, group) in enumerate(rows.groupby("source", sort=False)):
        axes.plot(
            1 - group["share_of_best_prior"],
            group["fitted_width_nats"],
            color=COLOURS[index],
            marker=MARKERS[index],
            label=source,
        )
    axes.set(xscale="log", yscale="log", xlabel="Share of the codec's own prior")
    axes.set_ylabel("Width of the interval of $F_g$ [nats]")
    axes.invert_xaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
