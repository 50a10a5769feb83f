"""Shortest curves of reconstructions between two latents, and how much longer the straight latent line is: zeta.

A geodesic minimizes the energy `E = INT ||d/dt g(gamma(t))||^2 dt`, which is at least the squared length, and equal to
it at constant speed. Here `gamma` is the straight line plus polynomials that vanish at both ends,

    gamma(t) = (1-t) z0 + t z1 + sum_k c_k phi_k(t),     phi_k(t) = INT_0^t sqrt(2k+1) P_k(2s-1) ds,

whose derivatives are orthonormal. The H1 norm of the deviation is then the Euclidean norm of the coefficients, which
is the preconditioner that discretized curves need; what is left, that latents have very different scales, is taken out
by the diagonal of the pullback metric, estimated by random products. The integral is a Gauss quadrature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from ..model import Latents
from .curve import VALUES_AT_ONCE, Decode, LatentCurve, batch_size, decoded_curve, line, points_and_velocities
from .length import CurveLength, curve_length, lengths_along
from .metric import PullbackMetric
from .quadrature import nodes_and_weights

_SCALE_PROBES = 16
_SMALLEST_SCALE = 1e-2
"""Of a coordinate, relative to the root mean square of all: what the decoder hardly shows may move far, not freely."""


@dataclass(frozen=True, kw_only=True)
class Geodesic:
    """The shortest decoded curve that was found between two latents.

    Attributes:
        curve: The curve of latents; the straight line itself where none shorter was found.
        measured: Its length and straightness; `measured.length` is an upper bound on the distance on the manifold, and
            `measured.chord` a lower bound.
        straight: The same for the straight latent line.
        energy: `INT ||d/dt g(gamma)||^2 dt` of the curve found.
        gradient_norm: Norm of the energy's gradient in the preconditioned coefficients over that at the straight line;
            1e-3 or so where it has converged.
        iterations: Of L-BFGS.
        converged: Whether L-BFGS stopped because the energy no longer fell, and neither at `max_iterations` nor because
            a kink of the decoder ended a line search; the length found is an upper bound in any case.
    """

    curve: LatentCurve
    measured: CurveLength
    straight: CurveLength
    energy: float
    gradient_norm: float
    iterations: int
    converged: bool

    @property
    def zeta_lower(self) -> float:
        """Straight over geodesic length, at least 1: a lower bound, up to `zeta_error`; a shorter curve may exist."""
        return float(self.straight.length / self.measured.length)

    @property
    def zeta_upper(self) -> float:
        """Straight length over chord, which is eta: no curve between the ends is shorter than the chord."""
        return float(self.straight.eta)

    @property
    def zeta_error(self) -> float:
        """Estimated error of `zeta_lower` by quadrature and rounding."""
        relative = self.straight.length_error / self.straight.length + self.measured.length_error / self.measured.length
        return self.zeta_lower * float(relative)


def geodesic(
    decode: Decode,
    start: Latents,
    end: Latents,
    *,
    generator: torch.Generator,
    degree: int = 6,
    num_nodes: int = 16,
    moving: Sequence[bool] | None = None,
    max_iterations: int = 200,
    tolerance: float = 1e-10,
    values_at_once: int = VALUES_AT_ONCE,
) -> Geodesic:
    """Find the shortest decoded curve between two latents by minimizing its energy, from the straight line on.

    Args:
        decode: The decoder `g`.
        start: Latents at t = 0, each (1, ...).
        end: Latents at t = 1, of the same shapes.
        generator: Draws the products that estimate the scales of the latents.
        degree: How many polynomials `phi_k` bend the curve.
        num_nodes: Gauss-Legendre nodes of the energy, at most 8 or a multiple of 8; clearly more than `degree`.
        moving: Which of the latents may leave the straight line; `(False, True)` holds the hyper latents of `(z, y)` to
            it. By default all.
        max_iterations: Of L-BFGS.
        tolerance: Relative decrease of the energy below which it has converged; at least the decoder's rounding.
        values_at_once: Bounds the memory, see `VALUES_AT_ONCE`.

    Raises:
        ValueError: If an argument is not as said, or the ends are, or decode to, the same.
        RuntimeError: If the decoder or a derivative is not finite.
    """
    if len(start[0]) != 1:
        raise ValueError(f"`start` must hold latents of one image, got a batch of {len(start[0])}.")
    if not 1 <= degree < num_nodes:
        raise ValueError(f"`degree` must be from 1 to less than `num_nodes` = {num_nodes}, got {degree}.")
    measure: dict[str, Any] = {"rule": "hermite", "num_points": 4 * num_nodes + 1, "values_at_once": values_at_once}
    straight = curve_length(decode, start, end, **measure)
    base = line(start, end)
    middle = tuple(z.detach() for z in base(torch.tensor([0.5]).double()))
    metric = PullbackMetric(decode, middle, moving=moving, values_at_once=values_at_once)
    scales = _scales(metric, generator)
    decoded = decoded_curve(decode, base, torch.zeros(1).double())
    batch = batch_size(decoded, values_at_once)
    tolerance = max(tolerance, 10 * torch.finfo(decoded.dtype).eps)
    nodes, weights = nodes_and_weights("gauss-legendre", num_nodes)
    unit = float(straight.length) ** 2

    def bent(coefficients: Tensor) -> LatentCurve:
        offsets = metric.unpack(coefficients / scales)  # each (degree, ...)

        def gamma(ts: Tensor) -> Latents:
            shapes = _shapes(ts, degree)
            return tuple(
                z + torch.tensordot(shapes.to(z), offset, dims=1) for z, offset in zip(base(ts), offsets, strict=True)
            )

        return gamma

    def energy_and_gradient(flat: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients = torch.from_numpy(flat).reshape(degree, -1).requires_grad_()
        total = 0.0
        for ts, shares in zip(nodes.split(batch), weights.split(batch), strict=True):
            with torch.enable_grad():
                _, velocities = points_and_velocities(decode, [bent(coefficients)], ts)
                energy = (velocities.flatten(1).double().square().sum(1).cpu() @ shares) / unit
                energy.backward()
            total += float(energy.detach())
        assert coefficients.grad is not None
        return total, coefficients.grad.flatten().numpy()

    zero = np.zeros(degree * metric.dim)
    first_slope = float(np.linalg.norm(energy_and_gradient(zero)[1]))
    found = optimize.minimize(
        energy_and_gradient,
        zero,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": max_iterations, "maxfun": 2 * max_iterations, "maxcor": 20, "ftol": tolerance, "gtol": 0.0},
    )
    curve = bent(torch.from_numpy(found.x).reshape(degree, -1))
    measured = lengths_along(decode, [curve], **measure)
    if measured.length > straight.length:  # between its nodes the energy does not see the kinks of a decoder
        curve, measured = base, straight
    return Geodesic(
        curve=curve,
        measured=measured,
        straight=straight,
        energy=float(measured.speed.square() @ measured.weights),
        gradient_norm=float(np.linalg.norm(found.jac)) / first_slope if first_slope > 0 else 0.0,
        iterations=int(found.nit),
        converged=bool(found.success),
    )


def _shapes(ts: Tensor, degree: int) -> Tensor:
    """Return `phi_k(t)`, (num_points, degree): `(P_{k+1} - P_{k-1}) / (2 sqrt(2k+1))` at `2t-1`."""
    x = 2 * ts - 1
    legendre = [torch.ones_like(x), x]
    for k in range(1, degree + 1):
        legendre.append(((2 * k + 1) * x * legendre[k] - k * legendre[k - 1]) / (k + 1))
    return torch.stack(
        [(legendre[k + 1] - legendre[k - 1]) / (2 * (2 * k + 1) ** 0.5) for k in range(1, degree + 1)], dim=1
    )


def _scales(metric: PullbackMetric, generator: torch.Generator) -> Tensor:
    """Return the lengths of the Jacobian's columns, (dim,), estimated by `E[(J^T u)^2]` over random signs `u`."""
    signs = 2.0 * torch.randint(2, (_SCALE_PROBES, metric.num_values), generator=generator).double() - 1.0
    squares = metric.pull_back(signs).square().mean(0)
    floor = _SMALLEST_SCALE**2 * float(squares.mean())
    return squares.clamp(min=floor or 1.0).sqrt()
