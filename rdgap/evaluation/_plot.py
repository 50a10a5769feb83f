"""Rate-distortion curves of an evaluation table."""

from __future__ import annotations

from collections import Counter
from typing import Any

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from .._plots import COLUMN_WIDTH_INCHES, MARKERS, STYLE, is_known, look_of
from ..schemas import curve_name

_FEW = 6  # curves whose legend has room beside them


def plot_curves(averages: pd.DataFrame) -> Figure:
    """Draw mean PSNR over mean rate from what `average` returns.

    One curve per codec with its encoder, kind of rate and data set; two points or fewer make no line.
    """
    averages = averages.assign(codec=[curve_name(row) for row in averages.to_dict("records")])
    datasets = sorted(set(averages["dataset"]))
    keys = sorted(set(zip(averages["dataset"], averages["codec"], averages["rate_kind"], strict=True)))
    times = Counter((dataset, codec) for dataset, codec, _ in keys)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 2.6 if len(keys) <= _FEW else 3.6), layout="constrained")
        axes = figure.subplots()
        colors = sns.color_palette("colorblind", len(keys))
        for index, (dataset, codec, rate_kind) in enumerate(keys):
            of_curve = (averages["dataset"] == dataset) & (averages["codec"] == codec)
            points = averages.loc[of_curve & (averages["rate_kind"] == rate_kind), :].sort_values("rate_bpp")
            name = f"{codec}, {rate_kind}" if times[dataset, codec] > 1 else codec
            has_look = len(datasets) == 1 and times[dataset, codec] == 1 and is_known(codec)
            look: Any = {"color": colors[index], "marker": MARKERS[index % len(MARKERS)]}
            if has_look:
                look = {"marker": "."} | {key: value for key, value in look_of(codec).items() if value}
            axes.plot(
                points["rate_bpp"],
                points["psnr_db"],
                label=name if len(datasets) == 1 else f"{name}, {dataset}",
                linestyle="-" if len(points) > 2 else "none",
                **look,
            )
        images = " and ".join(
            f"{dataset}, n = {averages.loc[averages['dataset'] == dataset, 'images'].iloc[0]}" for dataset in datasets
        )
        axes.set(xlabel="Rate [bpp]", ylabel="PSNR [dB]", xlim=(0, None))
        axes.set_title(f"Means over images: {images}", fontsize=7)
        axes.grid(color="0.9", linewidth=0.5)
        axes.set_axisbelow(True)
        sns.despine(ax=axes)
        legend: Any = {"frameon": False, "handlelength": 1.6, "labelspacing": 0.3}
        if len(keys) <= _FEW:
            axes.legend(loc="lower right", **legend)
        else:
            figure.legend(loc="outside lower center", ncols=2, **legend)
    return figure
