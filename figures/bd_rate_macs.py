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
    """Draw a point per codec; hulls are over the logarithm of MACs, apart for ours, which are less trained."""
    figure = Figure(figsize=(1.6 * COLUMN_WIDTH_INCHES, 3.9), layout="constrained")
    axes = figure.subplots()
    points = bd_points(DECODER)
    for point in points:
        style = published_style(point.published) if point.published else measured_style(point.model)
        axes.errorbar(
            point.macs_per_pixel / 1e3, point.bd_rate_percent, yerr=point.errors, capsize=2,
            **{**style, "linestyle": "none"},
        )  # fmt: skip
    _draw_hull(axes, [point for point in points if point.published], "0.4", "hull, published")
    _draw_hull(axes, [point for point in points if not point.published], "0.7", "hull, measured here")
    axes.axhline(0.0, color="0.35", linewidth=0.8)
    axes.set(xscale="log", xlabel="Decoding [thousand MAC per pixel]", ylabel="BD-rate over BPG [%]")
    tidy(axes)
    figure.legend(loc="outside right upper", frameon=False, labelspacing=0.4)
    return figure


def _draw_hull(axes: Axes, points: Sequence[Point], colour: str, label: str) -> None:
    corners = hull([(float(np.log10(point.macs_per_pixel / 1e3)), point.bd_rate_percent) for point in points])
    if len(corners) > 1:
        axes.plot([10**x for x, _ in corners], [y for _, y in corners], color=colour, lw=1, label=label, zorder=1)


def hull(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the lower left corners of the convex hull, from left to right: what no mixture of others beats."""
    corners: list[tuple[float, float]] = []
    for point in sorted(points):
        if corners and point[1] >= corners[-1][1]:
            continue  # costs more and is no better
        while len(corners) > 1 and _turns_up(corners[-2], corners[-1], point):
            corners.pop()
        if corners and point[0] == corners[-1][0]:
            corners.pop()
        corners.append(point)
    return corners


def _turns_up(first: tuple[float, float], second: tuple[float, float], third: tuple[float, float]) -> bool:
    """Whether the second point lies above the line from the first to the third."""
    return (second[1] - first[1]) * (third[0] - first[0]) >= (third[1] - first[1]) * (second[0] - first[0])


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
