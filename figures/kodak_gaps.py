"""Where the bits go on Kodak: the terms of the decomposition for each shipped model and lmbda.

python figures/kodak_gaps.py        # reads analysis/tables, writes figures/out/kodak_gaps.png and .pdf
"""

from __future__ import annotations

import sys
from typing import Any

from _figure import GAP_TERMS, main, read
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES


def draw() -> Figure:
    """Draw stacked bars, one per model in a panel per lmbda; error bars are standard errors over images."""
    means = read("kodak_gaps_means.csv")
    means = means.sort_values("model")
    lmbdas = sorted(set(means["lmbda"]))
    rows = {(row["model"], row["lmbda"]): row for row in means.to_dict("records")}
    figure = Figure(figsize=(1.6 * COLUMN_WIDTH_INCHES, 2.8), layout="constrained")
    panels = figure.subplots(1, len(lmbdas), squeeze=False)[0]
    for axes, lmbda in zip(panels, lmbdas, strict=True):
        models = [model for model, of_lmbda in rows if of_lmbda == lmbda]
        for position, model in enumerate(models):
            _stack(axes, position, rows[model, lmbda])
        images = int(rows[models[0], lmbda]["images"])
        axes.set_title(f"$\\lambda$ = {lmbda:g}, {images} crops", fontsize="small")
        names = [model.removesuffix("-lite") for model in models]
        axes.set_xticks(range(len(models)), names, rotation=30, ha="right")
        axes.set_ylim(0, 1.15 * max(rows[model, lmbda]["encoder_bpp"] for model in models))
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("Cost, rate + $\\lambda$ MSE [bpp]")
    handles = [panels[0].bar(0, 0, color=colour, label=label) for label, colour in GAP_TERMS.values()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False, fontsize="small")
    return figure


def _stack(axes: Any, position: int, row: dict[Any, Any]) -> None:
    bottom = 0.0
    for index, (term, (_, colour)) in enumerate(GAP_TERMS.items()):
        axes.bar(position, row[f"{term}_bpp"], bottom=bottom, width=0.7, color=colour, linewidth=0)
        bottom += row[f"{term}_bpp"]
        error = row[f"{term}_image_stderr_bpp"]
        # side by side: the small terms end close to each other
        axes.errorbar(position + 0.2 * (index - 1), bottom, yerr=error, ecolor="black", elinewidth=1, capsize=2)
    label = f"{row['inference_gap_lower_bpp']:.3f}"
    axes.annotate(label, (position, bottom), (0, 8), textcoords="offset points", ha="center", fontsize="x-small")


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
