"""The length of a decoded curve and its ratio eta to the chord (Yang & Mandt 2023, Eqs. 28 and 29).

`L = INT ||J_t (z1 - z0)|| dt` over [0, 1] and `eta = L / ||g(z1) - g(z0)|| >= 1`, with 1 for a straight segment.
Norms are Euclidean over all pixels and channels, on pixel values in [0, 1]; sums are formed in float64 whatever the
precision of the decoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..model import Latents
from .curve import Decode, as_rows, check_ends, decoded_curve, points_and_velocities

Rule = Literal["midpoint", "left"]

_OFFSETS: Mapping[Rule, float] = {"midpoint": 0.5, "left": 0.0}
_ROUNDING_UNITS = 16
"""Rounding error granted to the decoder, in epsilons of its precision times the norm of an end; shallow ones show 1."""


@dataclass(frozen=True, kw_only=True)
class CurveLength:
    """Length of the curve that a straight line between two latents decodes to.

    Attributes:
        length: `L`, Euclidean norm over pixels and channels, pixel values in [0, 1].
        length_error: Estimated error of `length`: the difference to the same rule with half the points, or what the
            polyline exceeds `length` by where that is more, plus the rounding of the decoder's precision. For a smooth
            curve the difference is about three times the error of "midpoint", and about the error of "left".
        chord: Distance between the two end points, same units.
        polyline_length: Length of the polygon through the ends and the sampled points; never longer than the curve.
        max_deviation: Largest distance of a sampled point from the straight line through the ends, same units.
        ts: Where the speed was sampled, (num_points,), float64.
        speed: `||J_t (z1 - z0)||` there, (num_points,), float64.
        rule: "midpoint" or "left".
    """

    length: float
    length_error: float
    chord: float
    polyline_length: float
    max_deviation: float
    ts: Tensor
    speed: Tensor
    rule: Rule

    @property
    def eta(self) -> float:
        """`length / chord`: at least 1 up to `eta_error`, and 1 for a straight segment."""
        return self.length / self.chord

    @property
    def eta_error(self) -> float:
        """`length_error / chord`."""
        return self.length_error / self.chord

    @property
    def speed_variation(self) -> float:
        """Standard deviation of the speed over its mean; 0 for a curve of constant speed."""
        return float(self.speed.std(correction=0) / self.speed.mean())

    @property
    def max_deviation_over_chord(self) -> float:
        """`max_deviation / chord`; 0 for a straight curve."""
        return self.max_deviation / self.chord


def curve_length(
    decode: Decode,
    start: Latents,
    end: Latents,
    *,
    num_points: int = 100,
    rule: Rule = "midpoint",
    chunk_size: int = 8,
) -> CurveLength:
    """Measure the decoded curve between two latents: `L = INT ||J_t (end - start)|| dt` and eta.

    A Riemann sum of `num_points` equal cells. "midpoint", the default, is of second order; "left" takes the left end
    of each cell, as the paper does (T = 100), and is of first order unless the speeds at both ends agree. Another
    `num_points // 2` products serve the error estimate.

    Args:
        decode: The decoder `g`; `image_decoder(model, size)` for a codec.
        start: Latents at t = 0, each (1, ...), for instance `model.infer(image)`: no quantization.
        end: Latents at t = 1, of the same shapes.
        num_points: Terms of the sum, at least 2.
        rule: "midpoint" or "left".
        chunk_size: How many points are differentiated at once; changes memory and speed, not the result.

    Raises:
        ValueError: If an argument is not as said, or both ends decode to the same image.
        RuntimeError: If the decoder or its derivative is not finite.

    Example:
        >>> import torch
        >>> from rdgap.curvature import curve_length
        >>> circle = lambda latents: torch.cat([latents[0].cos(), latents[0].sin()], dim=1)
        >>> start, end = torch.zeros(1, 1).double(), torch.full((1, 1), torch.pi).double()
        >>> round(curve_length(circle, (start,), (end,)).eta, 6)  # half a turn: pi / 2
        1.570796
    """
    check_ends(start, end)
    if num_points < 2:
        raise ValueError(f"`num_points` must be at least 2, got {num_points}.")
    if rule not in _OFFSETS:
        raise ValueError(f'`rule` must be "midpoint" or "left", got {rule!r}.')

    decoded_ends = decoded_curve(decode, start, end, torch.tensor([0.0, 1.0]))
    first, last = as_rows(decoded_ends)
    chord = float((last - first).norm())
    rounding = _ROUNDING_UNITS * torch.finfo(decoded_ends.dtype).eps * float(torch.maximum(first.norm(), last.norm()))
    if chord <= rounding:
        raise ValueError(
            "`start` and `end` must decode to different images, because eta divides by their distance; "
            f"got {chord:.3g}, which is zero to rounding."
        )

    ts = _positions(num_points, rule)
    towards_last = (last - first) / chord
    speed, polyline_length, max_deviation, previous = [], 0.0, 0.0, first
    for points, velocities in points_and_velocities(decode, start, end, ts, chunk_size):
        speed.append(velocities.norm(dim=1))
        polyline_length += float(torch.diff(torch.cat([previous[None], points]), dim=0).norm(dim=1).sum())
        offsets = points - first
        across = offsets - (offsets @ towards_last)[:, None] * towards_last
        max_deviation = max(max_deviation, float(across.norm(dim=1).max()))
        previous = points[-1]
    polyline_length += float((last - previous).norm())

    coarse = points_and_velocities(decode, start, end, _positions(num_points // 2, rule), chunk_size)
    coarse_length = float(torch.cat([velocities.norm(dim=1) for _, velocities in coarse]).mean())
    speeds = torch.cat(speed)
    length = float(speeds.mean())
    return CurveLength(
        length=length,
        length_error=max(abs(length - coarse_length), polyline_length - length) + rounding,
        chord=chord,
        polyline_length=polyline_length,
        max_deviation=max_deviation,
        ts=ts,
        speed=speeds,
        rule=rule,
    )


def _positions(num_points: int, rule: Rule) -> Tensor:
    return (torch.arange(num_points, dtype=torch.float64) + _OFFSETS[rule]) / num_points
