"""Figure 10: the two-layer synthesis with residual connection, drawn from its recipe.

python figures/fig10_two_layer.py      # reads models/two-layer.toml, writes figures/out/fig10_two_layer.png and .pdf
"""

from __future__ import annotations

import math
import sys
import tomllib

from _figure import ROOT, main
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from rdgap._plots import look_of

RECIPE = ROOT / "models" / "two-layer.toml"
COLOUR = look_of("two-layer")["color"]
UPPER, LOWER = 1.15, 0.0


def draw() -> Figure:
    """Draw the data flow from left to right; numbers are those of the recipe, shapes are for an H x W image."""
    with RECIPE.open("rb") as file:
        recipe = tomllib.load(file)
    synthesis, latents = recipe["synthesis"], recipe["latent_channels"]
    (first, second), (stride, last) = synthesis["kernels"], synthesis["strides"]
    hidden, factor = synthesis["channels"], math.prod(synthesis["strides"])
    figure = Figure(figsize=(6.8, 1.9), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(-0.55, 10.65), ylim=(-0.75, 2.0), aspect="equal")
    axes.axis("off")
    convolution = f"$k_1$ = {first}, $s_1$ = {stride}\n{latents} $\\to$ {hidden}"
    shape = rf"{hidden} $\times$ H/{factor // stride} $\times$ W/{factor // stride}"
    middle = (UPPER + LOWER) / 2 if synthesis["residual"] else UPPER
    _tensor(axes, 0.0, middle, "$\\mathbf{z}$", rf"{latents} $\times$ H/{factor} $\times$ W/{factor}")
    _box(axes, 2.2, UPPER, "conv$_1^\\top$", convolution)
    _tensor(axes, 3.9, UPPER, "$\\mathbf{a}$", "")
    _box(axes, 5.2, UPPER, "inverse GDN, $\\xi$" if synthesis.get("activation", "gdn") == "gdn" else "activation", "")
    _tensor(axes, 7.0, middle, "+" if synthesis["residual"] else "", shape)
    _box(axes, 8.5, middle, "conv$_2^\\top$", f"$k_2$ = {second}, $s_2$ = {last}\n{hidden} $\\to$ 3")
    _tensor(axes, 10.2, middle, "$\\hat{\\mathbf{x}}$", r"3 $\times$ H $\times$ W")
    _arrow(axes, (0.25, middle), (1.4, UPPER))
    _arrow(axes, (3.0, UPPER), (3.65, UPPER))
    _arrow(axes, (4.15, UPPER), (4.4, UPPER))
    _arrow(axes, (6.0, UPPER), (6.8, middle + 0.1))
    if synthesis["residual"]:
        _box(axes, 2.2, LOWER, "conv$_\\mathrm{res}^\\top$", convolution)
        _tensor(axes, 3.9, LOWER, "$\\mathbf{r}$", "")
        _arrow(axes, (0.25, middle), (1.4, LOWER))
        _arrow(axes, (3.0, LOWER), (3.65, LOWER))
        _arrow(axes, (4.15, LOWER), (6.8, middle - 0.1))
    _arrow(axes, (7.25, middle), (7.7, middle))
    _arrow(axes, (9.3, middle), (9.95, middle))
    return figure


def _box(axes: Axes, x: float, y: float, name: str, numbers: str) -> None:
    axes.add_patch(
        FancyBboxPatch((x - 0.75, y - 0.42), 1.5, 0.84, boxstyle="round,pad=0.05", facecolor="white", edgecolor=COLOUR)
    )
    axes.annotate(f"{name}\n{numbers}" if numbers else name, (x, y), ha="center", va="center", fontsize=7)


def _tensor(axes: Axes, x: float, y: float, name: str, shape: str) -> None:
    axes.annotate(name, (x, y), ha="center", va="center", fontsize=10)
    axes.annotate(shape, (x, y - 0.42), ha="center", va="center", fontsize=6, color="0.35")


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": "0.25", "linewidth": 0.8})


if __name__ == "__main__":
    sys.exit(main(draw, __file__))
