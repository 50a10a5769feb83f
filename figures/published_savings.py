"""Rate saved over BPG at each PSNR on Kodak by published codecs, in the style of the paper's Figs. 13a and 14.

python figures/published_savings.py        # reads analysis/tables, writes figures/out/published_savings.png and .pdf
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES, STYLE, save

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "figures" / "out"
STYLES: dict[str, dict[str, Any]] = {
    "compressai/vtm": {"label": "VTM", "color": "0.2", "linestyle": "--"},
    "compressai/paper-elic2022_mse": {"label": "ELIC 2022", "color": "#cc79a7", "marker": "P"},
    "tfc/minnen-2020-icip": {"label": "CHARM, Minnen 2020", "color": "#e69f00", "marker": "^"},
    "others/sga": {"label": "hyperprior + SGA, Yang 2020", "color": "#56b4e9", "marker": "v"},
    "paper/2-layer_syn+SGA": {"label": "two-layer + SGA, paper", "color": "#c1272d", "marker": "*"},
    "tfc/minnen-2018-neurips-no-context": {"label": "mean-scale, Minnen 2018", "color": "#009e73", "marker": "D"},
    "paper/2-layer_syn": {"label": "two-layer, paper", "color": "#c1272d", "marker": "o", "linestyle": ":"},
    "paper/JPEG-like_syn": {"label": "JPEG-like, paper", "color": "#0072b2", "marker": "s", "linestyle": ":"},
    "tfc/balle-2017-iclr-opt-mse": {"label": "factorized, Balle 2017", "color": "#a6761d", "marker": "X"},
    "compressai/webp": {"label": "WebP", "color": "0.45", "linestyle": "-."},
}


def draw(table: pd.DataFrame) -> Figure:
    """Draw the savings; lines end where either curve does, markers are at a codec's own points."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2 * COLUMN_WIDTH_INCHES, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.axhline(0.0, color="0.35", linewidth=0.8, label="BPG 4:4:4 (-m 8)")
        for codec, style in STYLES.items():
            rows = table.loc[table["codec"] == codec, :].sort_values("psnr_db")
            marks = [place for place, own in enumerate(rows["is_own_point"].tolist()) if own]
            axes.plot(rows["psnr_db"], rows["savings_percent"], markevery=marks, **style)
        axes.set(xlim=(26, 42), ylim=(-60, 38), xlabel="PSNR [dB], mean of 24", ylabel="Rate saved over BPG [%]")
        axes.grid(color="0.9", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        figure.legend(loc="outside right upper", frameon=False, handlelength=2.2, labelspacing=0.4)
    return figure


def main() -> None:
    """Write the figure."""
    table = pd.read_csv(ROOT / "analysis" / "tables" / "published_savings.csv")
    for suffix in ("png", "pdf"):
        save(draw(table), OUT / f"published_savings.{suffix}")


if __name__ == "__main__":
    main()
