"""What stochastic Gumbel annealing saves: L of six Kodak crops, each shipped model over lmbda.

python figures/sga_kodak.py        # reads analysis/tables, writes figures/out/sga_kodak.png and .pdf
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES, STYLE, save
from rdgap.tables import ENCODED, read_table

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "figures" / "out"
STYLES: dict[str, dict[str, Any]] = {
    "two-layer-lite": {"color": "#c1272d", "marker": "o"},
    "jpeg-like-lite": {"color": "#0072b2", "marker": "s"},
    "mean-scale-lite": {"color": "#009e73", "marker": "D"},
    "balle2018-lite": {"color": "#e69f00", "marker": "^"},
    "charm-lite": {"color": "#cc79a7", "marker": "v"},
}


def draw(table: pd.DataFrame) -> Figure:
    """Draw the mean saving over lmbda, one curve per model, and each crop as a pale point beside it."""
    models = [model for model in STYLES if model in set(table["model"])]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 2.6), layout="constrained")
        axes = figure.subplots()
        for index, model in enumerate(models):
            rows = table.loc[table["model"] == model, :]
            means = rows.groupby("lmbda")["saving_percent"].mean()
            shift = 1.06 ** (index - (len(models) - 1) / 2)  # side by side
            axes.plot(rows["lmbda"] * shift, rows["saving_percent"], ".", color=STYLES[model]["color"], alpha=0.3, ms=3)
            axes.plot(means.index.to_numpy() * shift, means, label=model, **STYLES[model])
        axes.set(xscale="log", xlabel="$\\lambda$", ylabel="L saved by SGA, 500 steps [%]", ylim=(0, None))
        lmbdas = sorted(set(table["lmbda"]))
        axes.set_xticks(lmbdas, [f"{lmbda:g}" for lmbda in lmbdas], rotation=30)
        axes.minorticks_off()
        axes.grid(color="0.9", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, handlelength=2.0, labelspacing=0.3)
    return figure


def main() -> None:
    """Write the figure."""
    table = read_table(ROOT / "analysis" / "tables" / "sga_kodak.csv", ENCODED)
    for suffix in ("png", "pdf"):
        save(draw(table), OUT / f"sga_kodak.{suffix}")


if __name__ == "__main__":
    main()
