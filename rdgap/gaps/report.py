"""What the command shows of a table of gaps: text for the terminal and a picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

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
_NAME_WIDTH, _WIDTH = 18, 14
_COLOURS = {"floor": "#4c5b6b", "approximation": "#e0a458", "amortization": "#b5443c"}


def averages(table: pd.DataFrame) -> dict[str, float]:
    """Return the mean over images, equally weighted, of each cost and gap, with two errors kept apart.

    `*_estimator_stderr_bpp` is the Monte Carlo error of that mean; `*_image_stderr_bpp` how far the mean of these
    images may be from the mean of all images like them (NaN for one image).
    """
    number = len(table)
    mean: dict[str, float] = {"images": number}
    for name in (*COSTS, *GAPS, "rounded"):
        column = table[f"{name}_bpp"]
        mean[f"{name}_bpp"] = float(column.mean())
        if name != "rounded":  # is computed, not estimated
            mean[f"{name}_estimator_stderr_bpp"] = float((table[f"{name}_stderr_bpp"] ** 2).sum() ** 0.5 / number)
        mean[f"{name}_image_stderr_bpp"] = float(column.std() / number**0.5)
    return mean


def format_table(table: pd.DataFrame) -> str:
    """Return the table that the command prints: costs and gaps in bpp, their errors and their sides."""
    costs_then_gaps = (*COSTS, *GAPS)
    mean = averages(table)
    lines = [
        f"{table.model[0]}, lmbda {table.lmbda[0]:g}: cost bpp + lmbda * mse of the noise channel and its gaps, "
        "in bits per pixel, ± one standard error",
        "",
        f"{'':{_NAME_WIDTH}}" + "".join(f"{_HEADINGS[name][0]:>{_WIDTH}}" for name in costs_then_gaps) + "   | rounded",
        f"{'image':{_NAME_WIDTH}}"
        + "".join(f"{_HEADINGS[name][1]:>{_WIDTH}}" for name in costs_then_gaps)
        + "   | codec",
    ]
    for _, row in table.iterrows():
        cells = (_cell(row[f"{name}_bpp"], row[f"{name}_stderr_bpp"]) for name in costs_then_gaps)
        lines.append(_line(_short(row.image), cells) + f"   | {row.rounded_bpp:.4f}")
    if len(table) > 1:
        cells = (_cell(mean[f"{name}_bpp"], mean[f"{name}_estimator_stderr_bpp"]) for name in costs_then_gaps)
        lines += ["", _line(f"mean of {len(table)}", cells) + f"   | {mean['rounded_bpp']:.4f}"]
        cells = (f"±{mean[f'{name}_image_stderr_bpp']:.4f}" for name in costs_then_gaps)
        lines.append(_line("  over images", cells) + f"   | ±{mean['rounded_image_stderr_bpp']:.4f}")
    lines += [
        "",
        "inference gap = encoder q - (-log Gamma) = amortization gap + approximation gap.",
        "(upper), (lower): bound on the true value; (E): in expectation; (no side): difference of two upper bounds.",
        "rounded codec: the hard-rounded lattice is another model with a Gamma of its own; do not subtract it.",
        f"annealing: HMC acceptance {table.acceptance.mean():.2f}, effective chains "
        f"{table.effective_chains.min():.1f} (worst image) of {table.chains[0]}, {table.temperatures[0]} temperatures, "
        f"{table.seconds.mean():.1f} s per image.",
    ]
    if table.effective_chains.min() < 2:
        lines.append(
            "note: one chain carries nearly all the weight, so the error of -log Gamma is itself uncertain and the "
            "bound loose; raise --temperatures."
        )
    return "\n".join(lines)


def draw(table: pd.DataFrame) -> Figure:
    """Draw the costs of each image and their mean as stacked bars; the rounded codec is a marker of its own."""
    from matplotlib.figure import Figure

    mean = averages(table)
    rows = [(_short(row.image), row) for _, row in table.iterrows()]
    if len(table) > 1:
        renamed = {f"{name}_stderr_bpp": mean[f"{name}_estimator_stderr_bpp"] for name in (*COSTS, *GAPS)}
        rows.append((f"mean of {len(table)}", mean | renamed))

    figure = Figure(figsize=(6.5, 1.6 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for position, (_, row) in enumerate(rows):
        edges = [row[f"{name}_bpp"] for name in ("neg_log_gamma_upper", "fitted_box", "encoder")]
        errors = [row[f"{name}_stderr_bpp"] for name in ("neg_log_gamma_upper", "fitted_box", "encoder")]
        for left, right, colour in zip([0.0, *edges], edges, _COLOURS.values(), strict=False):
            axes.barh(position, right - left, left=left, height=0.7, color=colour, linewidth=0)
        axes.errorbar(edges, [position] * 3, xerr=errors, fmt="none", ecolor="black", elinewidth=1, capsize=2)
        axes.plot(row["rounded_bpp"], position, marker="D", markersize=5, color="white", markeredgecolor="black")
    labels = ("$-\\log\\,\\Gamma$ (upper bound)", "approximation gap", "amortization gap (lower bound)")
    for colour, label in zip(_COLOURS.values(), labels, strict=True):
        axes.bar(0, 0, color=colour, label=label)
    axes.plot([], [], "D", markersize=5, color="white", markeredgecolor="black", label="rounded codec (another model)")
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(f"Cost, rate + {table.lmbda[0]:g} MSE [bpp]")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    return figure


def _line(name: str, cells: Iterable[str]) -> str:
    return f"{name:{_NAME_WIDTH}}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells)


def _cell(amount: float, stderr: float) -> str:
    return f"{amount:.4f}±{stderr:.4f}"


def _short(image: str) -> str:
    name = Path(image).name
    return name if len(name) < _NAME_WIDTH else f"{name[: _NAME_WIDTH - 4]}..."
