"""Points of a rate-distortion function as a table on the terminal and as a picture with the sandwich shaded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl

from .._plots import COLUMN_WIDTH_INCHES, MARKERS, STYLE
from .estimate import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDES = {"exact": "=", "upper": "<=", "lower": ">=", "estimate": "~"}
_COLOURS = ("#2f6d8c", "#b5443c", "#e0a458", "#4c5b6b", "#7a9a4d", "#8c5a9e", "#333333")
_SIGMAS = 3.0


def format_table(estimates: Sequence[Estimate], distortion_unit: str) -> str:
    """Return the estimates as text; the side says how F stands to the number."""
    lines = [
        f"F = rate + lmbda * distortion in nats per sample; distortion: {distortion_unit}",
        f"{'lmbda':>10}  {'method':22} {'F':>15} {'+-':>9} {'rate':>10} {'distortion':>11} {'seconds':>8}",
    ]
    for each in sorted(estimates, key=lambda each: each.lmbda):
        lines.append(
            f"{each.lmbda:10.5g}  {each.method:22} {_SIDES[each.side]:>4} {each.f_nats:10.5f} "
            f"{_or_dash(each.stderr_nats, '9.5f')} {_or_dash(each.rate_nats, '10.5f')} "
            f"{_or_dash(each.distortion, '11.5g')} {each.seconds:8.2f}"
        )
    return "\n".join(lines)


def _or_dash(number: float, form: str) -> str:
    width = form.split(".")[0]
    return f"{'-':>{width}}" if math.isnan(number) or (form.startswith("9") and number == 0) else format(number, form)


def draw(estimates: Sequence[Estimate], title: str, distortion_unit: str) -> Figure:
    """Draw F over lmbda and rate over distortion, shaded between the best upper and the best lower bound.

    A bound of F at one lmbda is a line of slope `-lmbda` in the R-D plane: the function lies above the lines of all
    lower bounds, and points of upper bounds are achievable. Sampled bounds are widened by three standard errors.
    """
    import numpy as np
    from matplotlib.figure import Figure

    methods = list(dict.fromkeys((each.method, each.side) for each in estimates))
    lmbdas = sorted({each.lmbda for each in estimates})
    lower = [_best(estimates, lmbda, "lower") for lmbda in lmbdas]
    upper = [_best(estimates, lmbda, "upper") for lmbda in lmbdas]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2 * COLUMN_WIDTH_INCHES, 2.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        if all(map(math.isfinite, upper)):
            shade: Any = {"color": "0.85", "linewidth": 0, "label": "between the bounds"}
            left.fill_between(lmbdas, lower, upper, **shade)
            points = sorted(
                (each.distortion, each.rate_nats)
                for each in estimates
                if each.side in ("exact", "upper") and not math.isnan(each.rate_nats)
            )
            if len(points) > 1:
                distortions, rates = np.array(points).T
                grid = np.linspace(distortions[0], distortions[-1], 200)
                above = np.interp(grid, distortions, rates)
                lines = [bound - lmbda * grid for bound, lmbda in zip(lower, lmbdas, strict=True)]
                below = np.max([np.zeros_like(grid), *lines], axis=0)
                right.fill_between(grid, np.minimum(below, above), above, **shade)
        for index, (method, side) in enumerate(methods):
            mine = sorted(
                (each for each in estimates if (each.method, each.side) == (method, side)), key=lambda each: each.lmbda
            )
            look: Any = {
                "color": _COLOURS[index % len(_COLOURS)],
                "marker": MARKERS[index % len(MARKERS)],
                "linestyle": "-" if side in ("exact", "estimate") else "--",
            }
            left.errorbar(
                [each.lmbda for each in mine],
                [each.f_nats for each in mine],
                yerr=[_SIGMAS * each.stderr_nats for each in mine],
                label=f"{method} ({side})",
                **look,
            )
            placed = [each for each in mine if not math.isnan(each.rate_nats)]
            right.plot([each.distortion for each in placed], [each.rate_nats for each in placed], **look)
        left.set(xlabel="$\\lambda$ [nats per unit of distortion]", ylabel="F($\\lambda$) [nats]", xscale="log")
        right.set(xlabel=f"Distortion [{distortion_unit}]", ylabel="Rate [nats]", ylim=(0, None))
        left.set_xticks(lmbdas, [f"{each:g}" for each in lmbdas])
        left.minorticks_off()
        left.set_title(title, fontsize="small")
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _best(estimates: Sequence[Estimate], lmbda: float, side: str) -> float:
    """Return the tightest bound at one lmbda, three standard errors wide; a closed form is both."""
    sign = 1 if side == "upper" else -1
    mine = [
        sign * (each.f_nats + sign * _SIGMAS * each.stderr_nats)
        for each in estimates
        if each.lmbda == lmbda and each.side in (side, "exact")
    ]
    return sign * min(mine, default=math.inf) if side == "upper" or mine else 0.0
