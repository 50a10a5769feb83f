"""Pictures of many decoded lines, from their tables alone: Fig. 11 and Fig. 12 of Yang & Mandt (2023)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ._plots import COLUMN_WIDTH_INCHES, MARKERS, STYLE, is_known, look_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def colours_of(models: Sequence[str]) -> dict[str, Any]:
    """Return one colour for each model: its own, or by the order of their names for models of others' making."""
    names = sorted(set(models))
    palette = dict(zip(names, sns.color_palette("colorblind", len(names)), strict=True))
    return {name: look_of(name)["color"] if is_known(name) else palette[name] for name in names}


def draw_both(table: pd.DataFrame, paths: pd.DataFrame) -> Figure:
    """Draw distances to the straight paths (Fig. 11) beside eta over the straight path's length (Fig. 12)."""
    colours = colours_of(list(table["model"]))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(2 * COLUMN_WIDTH_INCHES, 2.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        draw_distances(left, paths, colours)
        draw_etas(right, table, colours)
    return figure


def draw_distances(axes: Axes, paths: pd.DataFrame, colours: Mapping[str, Any]) -> None:
    """Draw the mean MSE over pairs to both straight paths over t, of each model; several lmbdas fade."""
    shades = _shades(paths)
    for model, lmbda, rows in _curves(paths):
        means = pd.DataFrame(rows.groupby("t")[["mse_to_originals", "mse_to_reconstructions"]].mean()).reset_index()
        ts, to_originals, to_reconstructions = (means[name].to_numpy() for name in means)
        style: Any = {"color": colours[model], "alpha": shades[lmbda], "linewidth": 1.2}
        axes.plot(ts, to_originals, **style)
        axes.plot(ts, to_reconstructions, linestyle=(0, (3, 1.5)), **style)
    handles: list[Any] = [Line2D([], [], color="0.3", label="to the path between originals")]
    handles += [Line2D([], [], color="0.3", linestyle=(0, (3, 1.5)), label="between reconstructions")]
    above = {"loc": "lower left", "bbox_to_anchor": (-0.01, 0.98), "ncols": 2}  # where no curve can run through it
    axes.legend(handles=handles, frameon=False, borderaxespad=0, **above)
    axes.set(xlim=(0, 1), xlabel="Position $t$ on the latent line", ylabel="MSE to the straight path (0..255 scale)")
    axes.set_ylim(bottom=0)
    sns.despine(ax=axes)


def draw_etas(axes: Axes, table: pd.DataFrame, colours: Mapping[str, Any]) -> None:
    """Draw the ratio of curve to chord over the chord, a point per pair; several lmbdas fade."""
    shades = _shades(table)
    markers = {
        model: look_of(model)["marker"] if is_known(model) else MARKERS[index % len(MARKERS)]
        for index, model in enumerate(sorted(colours))
    }
    for model, lmbda, rows in _curves(table):
        axes.scatter(
            rows["chord"], rows["eta"], s=9, marker=markers[model], linewidths=0,
            color=colours[model], alpha=0.85 * shades[lmbda],
        )  # fmt: skip
    handles = [
        Line2D([], [], color=colour, marker=markers[model], linestyle="", label=model)
        for model, colour in colours.items()
        if model in set(table["model"])
    ]
    axes.axhline(1.0, color="0.4", linewidth=0.6)
    axes.legend(handles=handles, frameon=False, handletextpad=0.2, labelspacing=0.3)
    axes.set(xlabel="Length of the straight path", ylabel=r"Curve over straight path, $\eta$")
    axes.set_xlim(left=0)
    sns.despine(ax=axes)


def _curves(table: pd.DataFrame) -> list[tuple[str, float, pd.DataFrame]]:
    """Return the rows of each model and lmbda; -1 stands for the missing lmbda of a decoder."""
    marked = table.assign(lmbda=table["lmbda"].fillna(-1.0))
    keys = sorted(set(zip(marked["model"], marked["lmbda"], strict=True)))
    return [
        (model, lmbda, marked.loc[(marked["model"] == model) & (marked["lmbda"] == lmbda), :]) for model, lmbda in keys
    ]


def _shades(table: pd.DataFrame) -> dict[float, float]:
    """Return an opacity for each lmbda, rising."""
    lmbdas = sorted(set(table["lmbda"].fillna(-1.0)))
    return {lmbda: 1 - 0.65 * (len(lmbdas) - 1 - index) / max(len(lmbdas) - 1, 1) for index, lmbda in enumerate(lmbdas)}
