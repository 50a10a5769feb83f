"""What the command shows of a table of gaps: text for the terminal and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .decomposition import COSTS, GAPS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_HEADINGS = {  # name of a column: what it is, and its side
    "encoder": ("encoder q", ""),
    "fitted_box": ("fitted box", "(upper)"),
    "fitted_gaussian": ("fitted Gauss", "(upper)"),
    "neg_log_gamma_upper": ("-log Gamma", "(upper, E)"),
    "amortization_gap_lower": ("amortization", "(lower)"),
    "approximation_gap": ("approximation", "(no side)"),
    "inference_gap_lower": ("inference", "(lower, E)"),
}
_DIAMOND: dict[str, Any] = {
    "marker": "D",
    "markersize": 5,
    "color": "white",
    "markeredgecolor": "black",
    "linestyle": "none",
}
_NAME_WIDTH, _WIDTH = 18, 15
_FEW_CHAINS = 2.0
_COLOURS = {"floor": "#4c5b6b", "approximation": "#e0a458", "amortization": "#b5443c"}


def averages(table: pd.DataFrame) -> dict[str, float]:
    """Return the mean over images, equally weighted, of each cost and gap, with two errors kept apart.

    `*_estimator_stderr_bpp` is the Monte Carlo error of that mean; `*_image_stderr_bpp` how far the mean of these
    images may be from the mean of all images like them (NaN for one image).
    """
    number = len(table)
    mean: dict[str, float] = {"images": number}
    for name in (*COSTS, *GAPS, "rounded"):
        column = np.asarray(table[f"{name}_bpp"], dtype=float)
        mean[f"{name}_bpp"] = float(column.mean())
        mean[f"{name}_image_stderr_bpp"] = float(column.std(ddof=1)) / number**0.5 if number > 1 else math.nan
        if name != "rounded":  # which is computed, not estimated
            mean[f"{name}_estimator_stderr_bpp"] = float(np.linalg.norm(table[f"{name}_stderr_bpp"])) / number
    return mean


def format_table(table: pd.DataFrame) -> str:
    """Return the table that the command prints: costs, then gaps, in bpp with their errors and sides."""
    diagnostics = (
        f"annealing: HMC acceptance {table.acceptance.mean():.2f}; effective chains {table.effective_chains.min():.1f} "
        f"(worst image) of {table.chains[0]}; {table.temperatures[0]} temperatures; "
        f"{table.seconds.mean():.1f} s per image"
    )
    lines = [
        f"{table.model[0]}, lmbda {table.lmbda[0]:g}: bits per pixel, ± one standard error of the estimate",
        "",
        "cost (bpp + lmbda * mse) of the noise channel, and apart from it of the hard-rounded codec",
        *_block(table, COSTS, with_rounded=True),
        "",
        "gaps: inference = encoder q - (-log Gamma) = amortization + approximation",
        *_block(table, GAPS, with_rounded=False),
        "",
        "(upper), (lower): a bound on the true value, (E): in expectation; (no side): upper minus upper bound",
        "rounded codec: another model, the lattice, with a Gamma of its own; do not mix it with the gaps",
        diagnostics,
    ]
    if table.effective_chains.min() < _FEW_CHAINS:
        lines.append(
            "note: hardly more than one chain carries all the weight of an image: there -log Gamma is a loose bound\n"
            "and its error itself uncertain; more --temperatures tighten it"
        )
    return "\n".join(lines)


def _block(table: pd.DataFrame, names: Sequence[str], *, with_rounded: bool) -> list[str]:
    def line(label: str, cells: Sequence[str], rounded: str) -> str:
        row = f"{label:{_NAME_WIDTH}}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells)
        return f"{row}  | {rounded}" if with_rounded else row

    def estimates(row: Mapping[Any, Any], stderr: str) -> list[str]:
        return [f"{row[f'{name}_bpp']:.4f}±{row[f'{name}_{stderr}']:.4f}" for name in names]

    headings, sides = zip(*(_HEADINGS[name] for name in names), strict=True)
    lines = [line("image", headings, "rounded"), line("", sides, "codec")]
    for row in table.to_dict(orient="records"):
        lines.append(line(_short(row["image"]), estimates(row, "stderr_bpp"), f"{row['rounded_bpp']:.4f}"))
    if len(table) > 1:
        mean = averages(table)
        spread = [f"±{mean[f'{name}_image_stderr_bpp']:.4f}" for name in names]
        lines += [
            line(f"mean of {len(table)}", estimates(mean, "estimator_stderr_bpp"), f"{mean['rounded_bpp']:.4f}"),
            line("  over images", spread, f"±{mean['rounded_image_stderr_bpp']:.4f}"),
        ]
    return lines


def draw(table: pd.DataFrame) -> Figure:
    """Draw the costs of each image and their mean as stacked bars; the rounded codec is a marker of its own."""
    from matplotlib.figure import Figure

    mean = averages(table)
    rows = [(_short(row["image"]), row) for row in table.to_dict(orient="records")]
    if len(table) > 1:
        stderrs = {f"{name}_stderr_bpp": mean[f"{name}_estimator_stderr_bpp"] for name in (*COSTS, *GAPS)}
        rows.append((f"mean of {len(table)}", {**mean, **stderrs}))

    figure = Figure(figsize=(6.5, 1.6 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for position, (_, row) in enumerate(rows):
        edges = [row[f"{name}_bpp"] for name in ("neg_log_gamma_upper", "fitted_box", "encoder")]
        errors = [row[f"{name}_stderr_bpp"] for name in ("neg_log_gamma_upper", "fitted_box", "encoder")]
        for left, right, colour in zip([0.0, *edges], edges, _COLOURS.values(), strict=False):
            axes.barh(position, right - left, left=left, height=0.7, color=colour, linewidth=0)
        axes.errorbar(edges, [position] * 3, xerr=errors, fmt="none", ecolor="black", elinewidth=1, capsize=2)
        axes.plot(row["rounded_bpp"], position, **_DIAMOND)
    labels = ("$-\\log\\,\\Gamma$ (upper bound)", "approximation gap", "amortization gap (lower bound)")
    bars = [axes.bar(0, 0, color=colour, label=label) for colour, label in zip(_COLOURS.values(), labels, strict=True)]
    markers = axes.plot([], [], **_DIAMOND, label="rounded codec (another model)")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(f"Cost, rate + {table.lmbda[0]:g} MSE [bpp]")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(handles=[*bars, *markers], loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    return figure


def _short(image: str) -> str:
    name = Path(image).name
    return name if len(name) < _NAME_WIDTH else f"{name[: _NAME_WIDTH - 4]}..."
