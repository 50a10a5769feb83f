"""Rate-distortion curves on Kodak: every trained model, JPEG, WebP, BPG, and the paper's published points.

python figures/kodak_rd.py        # reads analysis/tables, writes figures/out/kodak_rd.png and .pdf
"""

from __future__ import annotations

import sys

from _figure import CONVENTIONAL, bpg_curve, draw_published, main, measured_grids, measured_style, read, tidy
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES, look_of
from rdgap.bdrate import codec_grids
from rdgap.schemas import EVALUATION


def draw() -> Figure:
    """Draw mean PSNR over mean rate."""
    figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 4.9), layout="constrained")
    axes = figure.subplots()
    for codec, grid in measured_grids().items():
        curve = grid.averaged_curve("mean quality")
        axes.plot(curve.rate_bpp, curve.quality, **measured_style(codec, len(curve.quality)))
    for codec in ("paper/2-layer_syn", "paper/JPEG-like_syn"):
        draw_published(axes, codec, "kodak")
    grids = codec_grids(read("kodak_conventional.csv", EVALUATION))
    curves = {"bpg": bpg_curve()} | {name: grid.averaged_curve("mean quality") for name, grid in grids.items()}
    for codec, curve in curves.items():
        color = look_of(codec)["color"]
        axes.plot(curve.rate_bpp, curve.quality, color=color, linestyle=CONVENTIONAL[codec], label=codec, linewidth=1.0)
    axes.set(xlim=(0, 1.8), ylim=(25.5, 38.5), xlabel="Rate [bpp], mean of 24", ylabel="PSNR [dB], mean of 24")
    tidy(axes)
    figure.legend(frameon=False, loc="outside lower center", ncols=2, handlelength=2.2, labelspacing=0.3)
    return figure


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
