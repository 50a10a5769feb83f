"""Pictures of many decoded lines, from their tables alone: Fig. 11 and Fig. 12 of Yang & Mandt (2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure

from ._plots import COLUMN_WIDTH_INCHES, MARKERS, STYLE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def colours_of(models: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Return one colour for each model, by the order of their names."""
    names = sorted(set(models))
    return dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))


def draw_both(table: pd.DataFrame, paths: pd.DataFrame) -> Figure:
    """Draw distances to the straight paths (Fig. 11) beside eta over the straight path's length (Fig. 12)."""
    colours = colours_of(list(table["model"]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2 * COLUMN_WIDTH_INCHES, 2.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_distances(left, paths, colours)
        draw_etas(right, table, colours)
    return figure


def draw_distances(axes: Axes, paths: pd.DataFrame, colours: Mapping[str, tuple[float, float, float]]) -> None:
    """Draw the mean MSE over pairs to both straight paths over t, of each model; several lmbdas fade."""
    shades = _shades(paths)
    for (model, lmbda), rows in paths.groupby(["model", "lmbda"], dropna=False):
        means = rows.groupby("t")[["mse_to_originals", "mse_to_reconstructions"]].mean()
        style = {"color": colours[model], "alpha": shades[_key(lmbda)], "linewidth": 1.2}
        axes.plot(means.index, means["mse_to_originals"], **style)
        axes.plot(means.index, means["mse_to_reconstructions"], linestyle=(0, (3, 1.5)), **style)
    handles = [mpl.lines.Line2D([], [], color="0.3", label="between originals")]
    handles += [mpl.lines.Line2D([], [], color="0.3", linestyle=(0, (3, 1.5)), label="between reconstructions")]
    axes.legend(handles=handles, frameon=False, title="Straight path", title_fontsize=7, loc="center")
    axes.set(xlim=(0, 1), xlabel="Position $t$ on the latent line", ylabel="MSE to the straight path (0..255 scale)")
    axes.set_ylim(bottom=0)
    sns.despine(ax=axes)


def draw_etas(axes: Axes, table: pd.DataFrame, colours: Mapping[str, tuple[float, float, float]]) -> None:
    """Draw the ratio of curve to chord over the chord, a point per pair; several lmbdas fade."""
    shades = _shades(table)
    markers = {model: MARKERS[index % len(MARKERS)] for index, model in enumerate(sorted(colours))}
    for (model, lmbda), rows in table.groupby(["model", "lmbda"], dropna=False):
        axes.scatter(
            rows["chord"], rows["eta"], s=9, marker=markers[model], linewidths=0,
            color=colours[model], alpha=0.85 * shades[_key(lmbda)],
        )  # fmt: skip
    handles = [
        mpl.lines.Line2D([], [], color=colour, marker=markers[model], linestyle="", label=model)
        for model, colour in colours.items()
        if model in set(table["model"])
    ]
    axes.axhline(1.0, color="0.4", linewidth=0.6)
    axes.legend(handles=handles, frameon=False, handletextpad=0.2, labelspacing=0.3)
    axes.set(xlabel="Length of the straight path", ylabel=r"Curve over straight path, $\eta$")
    axes.set_xlim(left=0)
    sns.despine(ax=axes)


def _shades(table: pd.DataFrame) -> dict[float, float]:
    """Return an opacity for each lmbda, rising."""
    lmbdas = sorted({_key(lmbda) for lmbda in table["lmbda"]})
    return {lmbda: 1 - 0.65 * (len(lmbdas) - 1 - index) / max(len(lmbdas) - 1, 1) for index, lmbda in enumerate(lmbdas)}


def _key(lmbda: float) -> float:
    return lmbda if lmbda == lmbda else -1.0  # not-a-number, of a decoder, is no key
