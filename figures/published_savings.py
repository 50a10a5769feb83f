"""Rate saved over BPG at each PSNR on Kodak by published codecs, in the style of the paper's Figs. 13a and 14.

python figures/published_savings.py        # reads analysis/tables, writes figures/out/published_savings.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import main, published_style, read, tidy
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES

CODECS = (
    "compressai/vtm",
    "compressai/paper-elic2022_mse",
    "tfc/minnen-2020-icip",
    "others/sga",
    "paper/2-layer_syn+SGA",
    "tfc/minnen-2018-neurips-no-context",
    "paper/2-layer_syn",
    "paper/JPEG-like_syn",
    "tfc/balle-2017-iclr-opt-mse",
    "compressai/webp",
)


def draw() -> Figure:
    """Draw the savings; lines end where either curve does, markers are at a codec's own points."""
    table = read("published_savings.csv")
    figure = Figure(figsize=(2 * COLUMN_WIDTH_INCHES, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(0.0, color="0.35", linewidth=0.8, label="BPG 4:4:4 (-m 8)")
    for codec in CODECS:
        rows = table.loc[table["codec"] == codec, :].sort_values("psnr_db")
        marks = [place for place, own in enumerate(rows["is_own_point"].tolist()) if own]
        axes.plot(rows["psnr_db"], rows["savings_percent"], markevery=marks, **published_style(codec))
    axes.set(xlim=(26, 42), ylim=(-60, 38), xlabel="PSNR [dB], mean of 24", ylabel="Rate saved over BPG [%]")
    tidy(axes)
    figure.legend(loc="outside right upper", frameon=False, handlelength=2.2, labelspacing=0.4)
    return figure


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
