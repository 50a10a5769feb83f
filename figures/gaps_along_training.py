"""Which gap does training close, and when? The terms of the decomposition at snapshots of one training run.

python figures/gaps_along_training.py       # reads analysis/tables, writes figures/out/gaps_along_training.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import GAP_TERMS, main, read, tidy
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES


def draw() -> Figure:
    """Draw the cost as stacked terms at each snapshot, and beside it the two parts of the inference gap alone."""
    means = read("gaps_along_training_means.csv").sort_values("step")
    figure = Figure(figsize=(2 * COLUMN_WIDTH_INCHES, 2.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    places = range(len(means))
    bottom = 0.0 * means["encoder_bpp"]
    for term, (label, colour) in GAP_TERMS.items():
        left.bar(places, means[f"{term}_bpp"], bottom=bottom, width=0.7, color=colour, linewidth=0, label=label)
        bottom = bottom + means[f"{term}_bpp"]
    left.set(ylabel="Cost, rate + $\\lambda$ MSE [bpp]", ylim=(0, 1.1 * bottom.max()))
    for term, marker in (("approximation_gap", "o"), ("amortization_gap_lower", "s")):
        errors = means[f"{term}_image_stderr_bpp"]
        right.errorbar(places, means[f"{term}_bpp"], yerr=errors, color=GAP_TERMS[term][1], marker=marker, capsize=2)
    right.set(ylabel="Gap [bpp], mean over crops", ylim=(0, None))
    (model,) = set(means["model"])
    for axes in (left, right):
        axes.set_xticks(places, [f"{step}" for step in means["step"]])
        axes.set(xlabel=f"Step of training {model}, $\\lambda$ = {means['lmbda'].iloc[0]:g}")
        tidy(axes)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
