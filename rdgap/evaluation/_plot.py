"""Rate-distortion curves of an evaluation table."""

from __future__ import annotations

from collections import Counter

import matplotlib as mpl
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from .._plots import COLUMN_WIDTH_INCHES, MARKERS, STYLE
from ..schemas import curve_name


def plot_curves(averages: pd.DataFrame) -> Figure:
    """Draw mean PSNR over mean rate from what `average` returns.

    One curve per codec with its encoder, kind of rate and data set.
    """
    averages = averages.assign(codec=[curve_name(row) for row in averages.to_dict("records")])
    datasets = sorted(set(averages["dataset"]))
    keys = sorted(set(zip(averages["dataset"], averages["codec"], averages["rate_kind"], strict=True)))
    times = Counter((dataset, codec) for dataset, codec, _ in keys)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 2.6), layout="constrained")
        axes = figure.subplots()
        colors = sns.color_palette("colorblind", len(keys))
        for index, (dataset, codec, rate_kind) in enumerate(keys):
            of_curve = (averages["dataset"] == dataset) & (averages["codec"] == codec)
            points = averages.loc[of_curve & (averages["rate_kind"] == rate_kind), :].sort_values("rate_bpp")
            name = f"{codec}, {rate_kind}" if times[dataset, codec] > 1 else codec
            axes.plot(
                points["rate_bpp"],
                points["psnr_db"],
                color=colors[index],
                marker=MARKERS[index % len(MARKERS)],
                label=name if len(datasets) == 1 else f"{name}, {dataset}",
            )
        images = " and ".join(
            f"{dataset}, n = {averages.loc[averages['dataset'] == dataset, 'images'].iloc[0]}" for dataset in datasets
        )
        axes.set(xlabel="Rate [bpp]", ylabel="PSNR [dB]", xlim=(0, None))
        axes.set_title(f"Means over images: {images}", fontsize=7)
        axes.grid(color="0.9", linewidth=0.5)
        axes.set_axisbelow(True)
        sns.despine(ax=axes)
        axes.legend(frameon=False, handlelength=1.6, labelspacing=0.3, loc="lower right")
    return figure
