"""Does a deep decoder have the larger inference gap? Gaps of each model, and differences to the deep baseline.

python figures/shallow_against_deep.py      # reads analysis/tables, writes figures/out/shallow_against_deep.png, .pdf
"""

from __future__ import annotations

import sys

from _figure import main, measured_style, read, tidy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES

BASELINE = "mean-scale-lite"


def draw() -> Figure:
    """Draw the mean gaps with standard errors over images, and paired differences with 95 % intervals."""
    means, pairs = read("kodak_gaps_means.csv"), read("kodak_gaps_differences.csv")
    figure = Figure(figsize=(2 * COLUMN_WIDTH_INCHES, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    models = sorted(set(means["model"]))
    for index, model in enumerate(models):
        rows = means.loc[means["model"] == model, :].sort_values("lmbda")
        left.errorbar(
            rows["lmbda"] * _shift(index, len(models)), rows["inference_gap_lower_bpp"],
            yerr=rows["inference_gap_lower_image_stderr_bpp"], capsize=2, **measured_style(model),
        )  # fmt: skip
    left.set(ylabel="Inference gap, lower bound [bpp]", ylim=(0, None))
    left.legend(frameon=False, loc="lower right")
    signs = {"model": 1.0, "other": -1.0}  # a difference is that of `model` less that of `other`
    for index, model in enumerate(model for model in models if model != BASELINE):
        for side, sign in signs.items():
            other = "other" if side == "model" else "model"
            rows = pairs.loc[(pairs[side] == BASELINE) & (pairs[other] == model), :].sort_values("lmbda")
            if rows.empty:
                continue
            half = (rows["upper_95_bpp"] - rows["lower_95_bpp"]) / 2
            style = {**measured_style(model), "label": f"{BASELINE} less {model}"}
            places = rows["lmbda"] * _shift(index, 2)
            right.errorbar(places, sign * rows["difference_bpp"], yerr=half, capsize=2, **style)
    right.axhline(0.0, color="0.35", linewidth=0.8)
    right.set(ylabel="Difference of inference gaps [bpp]")
    right.legend(frameon=False)
    lmbdas = sorted(set(means["lmbda"]))
    for axes in (left, right):
        _tick(axes, lmbdas)
        tidy(axes)
    return figure


def _shift(index: int, number: int) -> float:
    """Return a factor that puts points of equal lmbda side by side."""
    return 1.08 ** (index - (number - 1) / 2)


def _tick(axes: Axes, lmbdas: list[float]) -> None:
    axes.set(xscale="log", xlabel="$\\lambda$")
    axes.set_xticks(lmbdas, [f"{lmbda:g}" for lmbda in lmbdas])
    axes.minorticks_off()


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
