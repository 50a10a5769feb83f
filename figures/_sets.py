"""Figures 15 to 21: quality over rate on one data set, published points beside ours where we have the images."""

from __future__ import annotations

from typing import Any

import numpy as np
from _figure import PUBLISHED, draw_published, measured_grids, measured_style, shown, tidy
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES
from rdgap.bdrate.measures import MeasureName

SETS = {
    "kodak": ("Kodak", 24),
    "tecnick": ("Tecnick", 100),
    "clic2018-professional-valid": ("CLIC 2018, professional, validation", 41),
}
BASELINES: dict[tuple[str, MeasureName], tuple[str, ...]] = {
    ("tecnick", "psnr"): (
        *("tfc/minnen-2018-neurips-no-context", "others/sga", "tfc/balle-2018-iclr-opt-mse"),
        *("tfc/bpg444", "tfc/jpeg420"),
    ),
    ("tecnick", "ms-ssim"): ("tfc/balle-2018-iclr-opt-mse", "tfc/bpg444", "tfc/jpeg420"),
}
"""What was published beside the paper's own curves."""
AXES: dict[MeasureName, str] = {
    "psnr": "PSNR [dB]",
    "ms-ssim": "MS-SSIM [dB], $-10\\,\\log_{10}(1 - \\mathrm{MS\\!-\\!SSIM})$",
    "lpips": "LPIPS, less is better (ours: AlexNet)",
}


def curves_on(dataset: str, measure: MeasureName) -> Figure:
    """Draw the curves."""
    name, images = SETS[dataset]
    ours = measured_grids(dataset, measure)
    figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 4.2 if ours else 2.9), layout="constrained")
    axes = figure.subplots()
    for codec, grid in ours.items():
        curve = grid.averaged_curve("mean distortion" if measure == "lpips" else "mean quality")
        axes.plot(curve.rate_bpp, shown(curve.quality, measure), **measured_style(codec, len(curve.quality)))
    for codec in (code for code in PUBLISHED if code.startswith("paper/")):
        draw_published(axes, codec, dataset, measure)
    for codec in BASELINES.get((dataset, measure), ()):
        draw_published(axes, codec, dataset, measure)
    axes.set(xlabel=f"Rate [bpp], mean of {images}", ylabel=AXES[measure], xlim=(0, 1.6))
    learned = [line for line in axes.lines if line.get_marker() != "None"]
    reached = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in learned])
    margin = 0.08 * np.ptp(reached)
    axes.set_ylim(reached.min() - margin, reached.max() + margin)  # conventional codecs go on to lossless
    axes.set_title(name if ours else f"{name}\n(ours not measured)", fontsize=7)
    tidy(axes)
    corner = "upper right" if measure == "lpips" else "lower right"
    look: Any = {"frameon": False, "handlelength": 2.4, "labelspacing": 0.3, "fontsize": 6.5}
    if ours:
        figure.legend(loc="outside lower center", ncols=2, **look)
    else:
        axes.legend(loc=corner, **look)
    return figure
