"""BD-rate over BPG on Kodak against what decoding costs, with the convex hulls of what was measured and published.

python figures/bd_rate_macs.py      # reads analysis/tables, writes figures/out/bd_rate_macs.png and .pdf
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from _figure import main, measured_style, published_style, tidy
from _points import Point, bd_points
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES

DECODER = ("synthesis", "hyper_synthesis", "context")


def draw() -> Figure:
    """Draw a point per codec; those of two sizes are hulls of their own, because only one of them is fully trained."""
    figure = Figure(figsize=(1.6 * COLUMN_WIDTH_INCHES, 3.0), layout="constrained")
    axes = figure.subplots()
    points = bd_points(DECODER)
    for point in points:
        style = published_style(point.published) if point.published else measured_style(point.model)
        axes.errorbar(
            point.macs_per_pixel / 1e3, point.bd_rate_percent, yerr=point.errors, capsize=2,
            **{**style, "linestyle": "none"},
        )  # fmt: skip
    _hull(axes, [point for point in points if point.published], "0.4", "hull, published")
    _hull(axes, [point for point in points if not point.published], "0.7", "hull, measured here")
    axes.axhline(0.0, color="0.35", linewidth=0.8)
    axes.set(xscale="log", xlabel="Decoding [thousand MAC per pixel]", ylabel="BD-rate over BPG [%]")
    tidy(axes)
    figure.legend(loc="outside right upper", frameon=False, labelspacing=0.4)
    return figure


def _hull(axes: Axes, points: Sequence[Point], colour: str, label: str) -> None:
    """Draw the lower left part of the convex hull of (log MAC, BD-rate): what no mixture of others beats."""
    at = sorted({(float(np.log10(point.macs_per_pixel / 1e3)), point.bd_rate_percent) for point in points})
    hull: list[tuple[float, float]] = []
    for point in at:
        if hull and point[1] >= hull[-1][1]:
            continue  # costs more and is no better
        while len(hull) > 1 and _turns_up(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    if len(hull) > 1:
        axes.plot([10**x for x, _ in hull], [y for _, y in hull], color=colour, linewidth=1, label=label, zorder=1)


def _turns_up(first: tuple[float, float], second: tuple[float, float], third: tuple[float, float]) -> bool:
    """Whether the second point lies above the line from the first to the third."""
    return (second[1] - first[1]) * (third[0] - first[0]) >= (third[1] - first[1]) * (second[0] - first[0])


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
