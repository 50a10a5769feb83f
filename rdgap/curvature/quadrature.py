"""Rules by which the length of a curve is found from its points and velocities at some t."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Rule = Literal["midpoint", "left", "gauss-legendre", "hermite"]
"""How length is found.

The mean of the speed, "midpoint": in the middle of equal cells, second order; "left": at the left end of equal cells,
the paper's Riemann sum, of first order unless the speeds at both ends agree; "gauss-legendre": at the nodes of Gauss,
in equal panels of 8, exact for polynomials of degree 15 and the choice for smooth decoders.

"hermite": the length of the piecewise cubic curve with the same points and velocities at equally spaced t, of fourth
order. Where a decoder has kinks, as GDN and ReLU have, the speed jumps, and a mean of it errs in proportion to the
jumps; the cubics keep to the points, and err only in the small excess of an arc over its chord: the choice for nearly
straight curves.
"""

RULES: tuple[Rule, ...] = get_args(Rule)
PANEL = 8
CUBICS = 8
_OFFSETS = {"midpoint": 0.5, "left": 0.0}


def default_points(rule: Rule) -> int:
    """Return the paper's 100 for a Riemann sum, one panel of 8 for "gauss-legendre", 9 for "hermite": 8 cubics."""
    return {"gauss-legendre": PANEL, "hermite": CUBICS + 1}.get(rule, 100)


def check_rule(rule: Rule, num_points: int) -> None:
    """Raise `ValueError` unless there is such a rule with so many points."""
    if rule not in RULES:
        raise ValueError(f"`rule` must be one of {', '.join(RULES)}, got {rule!r}.")
    if num_points < 2:
        raise ValueError(f"`num_points` must be at least 2, got {num_points}.")
    if rule == "gauss-legendre" and num_points > PANEL and num_points % PANEL:
        raise ValueError(f"`num_points` of gauss-legendre must be at most 8 or a multiple of 8, got {num_points}.")
    if rule == "hermite" and num_points % 2 == 0:
        raise ValueError(f"`num_points` of hermite must be odd, both ends included, got {num_points}.")


def nodes_and_weights(rule: Rule, num_points: int) -> tuple[Tensor, Tensor]:
    """Return positions in [0, 1], rising, and weights that add up to 1, each (num_points,) in float64."""
    if rule == "hermite":
        nodes = torch.linspace(0, 1, num_points, dtype=torch.float64)
        weights = torch.full_like(nodes, 1 / (num_points - 1))
        weights[[0, -1]] /= 2
        return nodes, weights
    if rule != "gauss-legendre":
        nodes = (torch.arange(num_points, dtype=torch.float64) + _OFFSETS[rule]) / num_points
        return nodes, torch.full_like(nodes, 1 / num_points)
    panels = max(1, num_points // PANEL)
    roots, weights = (torch.from_numpy(x) for x in np.polynomial.legendre.leggauss(num_points // panels))
    starts = torch.arange(panels, dtype=torch.float64)[:, None]
    return ((starts + (roots + 1) / 2) / panels).flatten(), (weights / (2 * panels)).repeat(panels)


def halved(rule: Rule, num_points: int) -> int:
    """Return about half as many points, for an estimate of the error."""
    if rule == "gauss-legendre" and num_points > PANEL:
        return PANEL * (num_points // PANEL // 2) or PANEL // 2
    return num_points // 2


def cubic_lengths(chords: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Return the lengths of cubic curves, (...,), from the vectors between their ends and those of their velocities.

    Args:
        chords: `p(1) - p(0)`, (..., values).
        first: `p'(0)`, of the same shape.
        last: `p'(1)`, of the same shape.
    """
    # With a = p'(0) - chord and b = p'(1) - chord, the velocity at s is chord + a (1-s)(1-3s) + b s (3s-2).
    vectors = torch.stack([chords, first - chords, last - chords], -2)
    gram = vectors @ vectors.mT
    s, weights = nodes_and_weights("gauss-legendre", PANEL)
    parts = torch.stack([torch.ones_like(s), (1 - s) * (1 - 3 * s), s * (3 * s - 2)], 1)  # (nodes, 3)
    squared_speed = ((parts @ gram) * parts).sum(-1)
    return squared_speed.clamp(min=0).sqrt() @ weights
