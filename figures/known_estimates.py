"""What each estimator and bound says of F on sources where it is known, over three seeds.

python figures/known_estimates.py     # reads analysis/tables, writes figures/out/known_estimates.png and .pdf
"""

from __future__ import annotations

import sys
from typing import Any

from _figure import main, read
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES, MARKERS

COLOURS = {
    "Blahut-Arimoto, grid": "#e0a458", "Blahut-Arimoto": "#e0a458", "mixture": "#2f6d8c", "wgd": "#7a9a4d",
    "nerd": "#8c5a9e", "dual": "#b5443c",
}  # fmt: skip
LABELS = {"mixture": "mixture (upper)", "wgd": "particles (upper)", "nerd": "NERD (upper)", "dual": "dual (lower)",
          "Blahut-Arimoto, grid": "Blahut-Arimoto (grid)"}  # fmt: skip


def draw() -> Figure:
    """Draw every estimate over the known upper bound, with three standard errors; the gray bars are what is known.

    Of patches nothing is known: their upper bound is the mixture's.
    """
    rows = read("known_estimates.csv")
    rows = rows.loc[(rows["refused"] == 0) & (rows["method"] != "Blahut-Arimoto"), :]
    groups = [group.to_dict("records") for _, group in rows.groupby(["source", "lmbda"], sort=False)]
    figure = Figure(figsize=(2 * COLUMN_WIDTH_INCHES, 3.0), layout="constrained")
    axes = figure.subplots()
    for place, records in enumerate(groups):
        unit, low = records[0]["known_upper_nats"], records[0]["known_lower_nats"]
        if unit == float("inf"):
            unit = min(row["f_nats"] for row in records if row["side"] == "upper")
        axes.fill_between([place - 0.4, place + 0.4], low / unit - 0.004, 1.004, color="0.88", linewidth=0)
        methods = list(COLOURS)
        for row in records:
            index = methods.index(row["method"])
            offset = 0.14 * (index - 3) + 0.035 * (row["seed"] - 1)
            look: Any = {"color": COLOURS[row["method"]], "marker": MARKERS[index], "markersize": 2.5}
            axes.errorbar(place + offset, row["f_nats"] / unit, yerr=3 * row["stderr_nats"] / unit, **look)
    names = [f"{records[0]['source']}\n$\\lambda$ = {records[0]['lmbda']:.3g}" for records in groups]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=6)
    axes.set_ylabel("F($\\lambda$) / known upper bound")
    axes.set_ylim(0, 1.1)
    axes.spines[["top", "right"]].set_visible(False)
    shown = [method for method in LABELS if method in set(rows["method"])]
    handles = [
        axes.plot([], [], color=COLOURS[name], marker=MARKERS[list(COLOURS).index(name)], linestyle="none",
                  label=LABELS[name])[0]
        for name in shown
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside upper center", ncols=5, frameon=False)
    return figure


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
