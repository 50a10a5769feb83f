"""The decomposition on sources whose rate-distortion function is known, beside what is certain of each term.

python figures/known_sources.py     # reads analysis/tables, writes figures/out/known_sources.png and .pdf
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from _figure import main, read
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES

TERMS = {
    "modeling_gap": ("modeling gap, interval", "#4c5b6b", "s"),
    "inference_gap": ("inference gap, $\\pm$ 3 standard errors", "#b5443c", "o"),
}


def draw() -> Figure:
    """Draw the gaps of each codec as a share of its cost; open diamonds are truths."""
    rows = read("known_sources.csv")
    rows = rows.loc[~rows["source"].str.startswith("patches"), :]
    figure = Figure(figsize=(1.6 * COLUMN_WIDTH_INCHES, 2.8), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows.to_dict("records")):
        percent = 100 / row["measured_nats"]
        low, high = row["modeling_gap_lower_nats"] * percent, row["modeling_gap_upper_nats"] * percent
        axes.plot([place - 0.15] * 2, [low, high], color=TERMS["modeling_gap"][1], linewidth=4, alpha=0.6)
        _truth(axes, place - 0.15, row["modeling_gap_truth_nats"] * percent)
        axes.errorbar(
            place + 0.15, row["inference_gap_nats"] * percent, yerr=3 * row["inference_gap_stderr_nats"] * percent,
            color=TERMS["inference_gap"][1], marker="o", capsize=2,
        )  # fmt: skip
        _truth(axes, place + 0.15, row["inference_gap_truth_nats"] * percent)
    names = [f"{row['source']}\n$\\lambda$ = {row['lmbda']:g}" for row in rows.to_dict("records")]
    axes.set_xticks(range(len(names)), names, rotation=40, ha="right")
    axes.set_ylabel("Share of the cost [%]")
    axes.set_ylim(0, None)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [
        axes.plot([], [], color=colour, linewidth=4 if marker == "s" else 1, marker=marker, label=label)[0]
        for label, colour, marker in TERMS.values()
    ]
    handles += axes.plot([], [], label="truth (integral)", **_DIAMOND)
    figure.legend(handles=handles, loc="outside upper center", ncols=3, frameon=False)
    return figure


_DIAMOND: dict[str, Any] = {
    "marker": "D", "markersize": 4, "color": "white", "markeredgecolor": "black", "linestyle": "none",
}  # fmt: skip


def _truth(axes: Any, place: float, percent: float) -> None:
    if np.isfinite(percent):
        axes.plot(place, percent, zorder=5, **_DIAMOND)


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
