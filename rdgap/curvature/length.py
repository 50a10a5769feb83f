"""The length of a decoded curve and its ratio eta to the chord (Yang & Mandt 2023, Eqs. 28 and 29).

`L = INT ||d/dt g(gamma(t))|| dt` over [0, 1] and `eta = L / ||g(z1) - g(z0)|| >= 1`, with 1 for a straight segment.
Norms are Euclidean over all pixels and channels, on pixel values in [0, 1]; sums are formed in float64 whatever the
precision of the decoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import Latents
from .curve import VALUES_AT_ONCE, Decode, LatentCurve, as_rows, batch_size, decoded_curve, lines, walk
from .quadrature import Rule, check_rule, cubic_lengths, default_points, halved, nodes_and_weights

_ROUNDING_UNITS = 16
"""Rounding error granted to the decoder, in epsilons of its precision times the norm of an end; shallow ones show 1."""


@dataclass(frozen=True, kw_only=True)
class CurveLength:
    """Lengths of decoded curves, and how far these are from straight. Tensors are float64, on the CPU.

    Attributes:
        length: `L`, (curves,), Euclidean norm over pixels and channels, pixel values in [0, 1].
        length_error: Estimated error of `length`, (curves,): the difference to the same rule with half the points, or
            what the polyline exceeds `length` by where that is more, plus the rounding of the decoder's precision. For
            a smooth curve the difference is about three times the error of "midpoint", about the error of "left", and
            far more than that of the others. Where a decoder has kinks it is of the size of the error, not a bound.
        chord: Distance between the two end points, (curves,), same units.
        polyline_length: Length of the polygon through the ends and the sampled points, (curves,); never longer than the
            curve.
        max_deviation: Largest distance of a sampled point from the straight line through the ends, (curves,).
        ts: Where the curves were sampled, (num_points,).
        weights: Of the samples in a mean over t, (num_points,); they add up to 1.
        speed: `||d/dt g(gamma(t))||` there, (curves, num_points).
        mse_to_reconstructions: MSE (per pixel and channel, 0..255 scale) to `(1-t) x_hat0 + t x_hat1`, the straight
            path between the ends, (curves, num_points); zero for an affine decoder.
        mse_to_originals: The same to `(1-t) x0 + t x1`; a quadratic function of t for an affine decoder. None if no
            originals were given.
        rule: How the speed was integrated.
    """

    length: Tensor
    length_error: Tensor
    chord: Tensor
    polyline_length: Tensor
    max_deviation: Tensor
    ts: Tensor
    weights: Tensor
    speed: Tensor
    mse_to_reconstructions: Tensor
    mse_to_originals: Tensor | None
    rule: Rule

    @property
    def eta(self) -> Tensor:
        """`length / chord`, (curves,): at least 1 up to `eta_error`, and 1 for a straight segment."""
        return self.length / self.chord

    @property
    def eta_error(self) -> Tensor:
        """`length_error / chord`, (curves,)."""
        return self.length_error / self.chord

    @property
    def speed_variation(self) -> Tensor:
        """Standard deviation of the speed over t, divided by its mean, (curves,); 0 for constant speed."""
        return ((self.speed - self.length[:, None]).square() @ self.weights).sqrt() / self.length

    @property
    def max_deviation_over_chord(self) -> Tensor:
        """`max_deviation / chord`, (curves,); 0 for a straight curve."""
        return self.max_deviation / self.chord


def curve_length(
    decode: Decode,
    start: Latents,
    end: Latents,
    *,
    num_points: int | None = None,
    rule: Rule = "midpoint",
    originals: tuple[Tensor, Tensor] | None = None,
    values_at_once: int = VALUES_AT_ONCE,
) -> CurveLength:
    """Measure the decoded lines between pairs of latents: `L = INT ||J_t (end - start)|| dt` and eta.

    Half as many products again serve the error estimate; of "hermite", every second point does.

    Args:
        decode: The decoder `g`; `image_decoder(model, size)` for a codec.
        start: Latents at t = 0, each (pairs, ...), for instance `model.infer(images)`: no quantization.
        end: Latents at t = 1, of the same shapes.
        num_points: Where the speed is taken, at least 2; by default the paper's T = 100, 8 for "gauss-legendre", 9
            for "hermite".
        rule: "midpoint", "left" (the paper's Riemann sum), "gauss-legendre" or "hermite"; see `Rule`.
        originals: The images that `start` and `end` belong to, each (pairs, channels, height, width), in [0, 1], for
            `mse_to_originals`.
        values_at_once: Bounds the memory, see `VALUES_AT_ONCE`; changes speed, not the result.

    Raises:
        ValueError: If an argument is not as said, or both ends are, or decode to, the same.
        RuntimeError: If the decoder or its derivative is not finite.

    Example:
        >>> import torch
        >>> from rdgap.curvature import curve_length
        >>> circle = lambda latents: torch.cat([latents[0].cos(), latents[0].sin()], dim=1)
        >>> start, end = torch.zeros(1, 1).double(), torch.full((1, 1), torch.pi).double()
        >>> round(curve_length(circle, (start,), (end,)).eta.item(), 6)  # half a turn: pi / 2
        1.570796
    """
    return lengths_along(
        decode,
        lines(start, end),
        num_points=num_points,
        rule=rule,
        originals=originals,
        values_at_once=values_at_once,
    )


def lengths_along(
    decode: Decode,
    curves: Sequence[LatentCurve],
    *,
    num_points: int | None = None,
    rule: Rule = "midpoint",
    originals: tuple[Tensor, Tensor] | None = None,
    values_at_once: int = VALUES_AT_ONCE,
) -> CurveLength:
    """Measure the decoded images of any curves of latents, as `curve_length` does those of straight lines.

    Args:
        decode: The decoder `g`.
        curves: From t = 0 to 1, each of its own; all decode to the same shape.
        num_points: As for `curve_length`.
        rule: As for `curve_length`.
        originals: As for `curve_length`.
        values_at_once: As for `curve_length`.

    Raises:
        ValueError: If an argument is not as said, or the ends of a curve decode to the same image.
        RuntimeError: If the decoder or its derivative is not finite.
    """
    num_points = default_points(rule) if num_points is None else num_points
    check_rule(rule, num_points)
    ends = [decoded_curve(decode, curve, torch.tensor([0.0, 1.0]).double(), values_at_once=1) for curve in curves]
    if originals is not None and any(x.shape != (len(ends), *ends[0].shape[1:]) for x in originals):
        raise ValueError(
            f"`originals` must have the shape of the decoded images {(len(ends), *ends[0].shape[1:])}, "
            f"got {[tuple(x.shape) for x in originals]}."
        )
    batch = batch_size(ends[0], values_at_once)
    first, last = torch.stack([as_rows(pair) for pair in ends]).unbind(1)  # each (curves, values)
    chord = (last - first).norm(dim=1)
    epsilon = torch.finfo(ends[0].dtype).eps
    rounding = _ROUNDING_UNITS * epsilon * torch.maximum(first.norm(dim=1), last.norm(dim=1))
    for index in (chord <= rounding).nonzero().flatten().tolist():
        raise ValueError(
            "`start` and `end` must decode to different images, because eta divides by their distance; "
            f"got {chord[index]:.3g} for pair {index}, which is zero to rounding."
        )

    ts, weights = nodes_and_weights(rule, num_points)
    shape = (len(curves), num_points)
    speed, to_reconstructions, to_originals = (torch.empty(shape, dtype=torch.float64) for _ in range(3))
    polyline, cubics, coarse_cubics = _Polyline(first), _Cubics(chord), _Cubics(chord, every=2)
    max_deviation = torch.zeros_like(chord)
    towards_last = (last - first) / chord[:, None]
    original_rows = None if originals is None else (as_rows(originals[0]), as_rows(originals[1]))
    for group, positions, points, velocities in walk(decode, curves, ts, batch):
        t = ts[positions, None]
        speed[group, positions] = velocities.norm(dim=2)
        to_reconstructions[group, positions] = _mse(points, _between(first[group], last[group], t))
        if original_rows is not None:
            to_originals[group, positions] = _mse(points, _between(original_rows[0][group], original_rows[1][group], t))
        offsets = points - first[group, None]
        along = (offsets @ towards_last[group, :, None]) * towards_last[group, None]
        max_deviation[group] = torch.maximum(max_deviation[group], (offsets - along).norm(dim=2).amax(1))
        polyline.add(group, points)
        if rule == "hermite":
            for pieces in (cubics, coarse_cubics):
                pieces.add(group, ts, positions, points, velocities)
    polyline_length = polyline.finished(last)

    if rule == "hermite":
        length, coarse_length = cubics.length, coarse_cubics.length
    else:
        length = speed @ weights
        coarse_length = _mean_speed(decode, curves, rule, halved(rule, num_points), batch)
    return CurveLength(
        length=length,
        length_error=torch.maximum((length - coarse_length).abs(), polyline_length - length) + rounding,
        chord=chord,
        polyline_length=polyline_length,
        max_deviation=max_deviation,
        ts=ts,
        weights=weights,
        speed=speed,
        mse_to_reconstructions=to_reconstructions,
        mse_to_originals=None if originals is None else to_originals,
        rule=rule,
    )


def _mean_speed(decode: Decode, curves: Sequence[LatentCurve], rule: Rule, num_points: int, batch: int) -> Tensor:
    ts, weights = nodes_and_weights(rule, num_points)
    mean = torch.zeros(len(curves), dtype=torch.float64)
    for group, positions, _, velocities in walk(decode, curves, ts, batch):
        mean[group] += velocities.norm(dim=2) @ weights[positions]
    return mean


class _Polyline:
    """Adds up the lengths of polygons while `walk` brings their points, of each curve in order."""

    def __init__(self, first: Tensor) -> None:
        self._length, self._previous = first.new_zeros(len(first)), first.clone()

    def add(self, group: slice, points: Tensor) -> None:
        corners = torch.cat([self._previous[group, None], points], 1)
        self._length[group] += corners.diff(dim=1).norm(dim=2).sum(1)
        self._previous[group] = points[:, -1]

    def finished(self, last: Tensor) -> Tensor:
        return self._length + (last - self._previous).norm(dim=1)


class _Cubics:
    """Adds up the lengths of the cubics between every or every second point while `walk` brings them."""

    def __init__(self, like: Tensor, every: int = 1) -> None:
        self.length, self._every = torch.zeros_like(like), every
        self._t, self._point, self._velocity = Tensor(), Tensor(), Tensor()

    def add(self, group: slice, ts: Tensor, positions: slice, points: Tensor, velocities: Tensor) -> None:
        for index in range(positions.start, positions.stop):
            if index % self._every:
                continue
            t, point, velocity = ts[index], points[:, index - positions.start], velocities[:, index - positions.start]
            if index:
                step = t - self._t
                self.length[group] += cubic_lengths(point - self._point, step * self._velocity, step * velocity)
            self._t, self._point, self._velocity = t, point, velocity


def _between(first: Tensor, last: Tensor, t: Tensor) -> Tensor:
    """Return the straight path between two images: (curves, values) each, t (num_points, 1)."""
    return (1 - t) * first[:, None] + t * last[:, None]


def _mse(images: Tensor, others: Tensor) -> Tensor:
    return ((images - others) * 255.0).square().mean(dim=2)
