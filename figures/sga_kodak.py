"""What stochastic Gumbel annealing saves: L of six Kodak crops, each shipped model over lmbda.

python figures/sga_kodak.py        # reads analysis/tables, writes figures/out/sga_kodak.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import main, measured_style, read, tidy
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES
from rdgap.schemas import ENCODED


def draw() -> Figure:
    """Draw the mean saving over lmbda, one curve per model, and each crop as a pale point beside it."""
    table = read("sga_kodak.csv", ENCODED)
    models = sorted(set(table["model"]))
    figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 3.5), layout="constrained")
    axes = figure.subplots()
    for index, model in enumerate(models):
        rows = table.loc[table["model"] == model, :]
        means = rows.groupby("lmbda")["saving_percent"].mean()
        style = measured_style(model)
        shift = 1.06 ** (index - (len(models) - 1) / 2)  # side by side
        axes.plot(rows["lmbda"] * shift, rows["saving_percent"], ".", color=style["color"], alpha=0.3, ms=3)
        axes.plot(means.index.to_numpy() * shift, means, **style)
    axes.set(xscale="log", xlabel="$\\lambda$", ylabel="L saved by SGA, 500 steps [%]", ylim=(0, None))
    lmbdas = sorted(set(table["lmbda"]))
    axes.set_xticks(lmbdas, [f"{lmbda:g}" for lmbda in lmbdas], rotation=30)
    axes.minorticks_off()
    tidy(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, handlelength=2.0, labelspacing=0.3)
    return figure


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
