"""Rate saved over BPG at each PSNR, of models measured here and of published curves (Figs. 13a and 14)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from _figure import bpg_curve, measured_style, published_style, tidy
from matplotlib.axes import Axes

from rdgap.bdrate import CodecGrid, RDCurve, common_quality_range, published_curve, savings_percent


def draw_savings(axes: Axes, grids: Iterable[CodecGrid], published: Iterable[str]) -> None:
    """Draw the savings on Kodak; lines end where either curve does, markers are at a codec's own points."""
    anchor = bpg_curve()
    axes.axhline(0.0, color="0.35", linewidth=0.8, label="BPG 4:4:4 (-m 8)")
    for grid in grids:
        curve = grid.averaged_curve("mean quality")
        draw_curve(axes, anchor, curve, measured_style(grid.codec, len(curve.quality)))
    for codec in published:
        draw_curve(axes, anchor, published_curve(codec, "kodak"), published_style(codec))
    axes.set(xlabel="PSNR [dB], mean of 24", ylabel="Rate saved over BPG [%]")
    tidy(axes)


def draw_curve(axes: Axes, anchor: RDCurve, curve: RDCurve, style: dict[str, Any]) -> None:
    """Draw what one curve saves over another at equal quality, interpolated by PCHIP."""
    low, high = common_quality_range(anchor, curve)
    own = curve.quality[(curve.quality >= low) & (curve.quality <= high)]
    dense = np.unique(np.concatenate([np.linspace(low, high, 128), own]))
    saved = savings_percent(anchor, curve, dense, interpolation="pchip")
    axes.plot(dense, saved, markevery=np.searchsorted(dense, own).tolist(), **style)
