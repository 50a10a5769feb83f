"""How a decoded curve bends: its acceleration, split into three directions that are orthogonal to each other.

With the velocity `v` and the acceleration `a = d^2/dt^2 g(gamma(t))` of a decoded curve,

    a  =  along the curve        +  within the manifold, across the curve  +  normal to the manifold
          changes of speed          geodesic curvature * ||v||^2              normal curvature * ||v||^2

The last part is the second fundamental form `II(v, v)`: what any curve through this point in this direction has to
bend, because the manifold of reconstructions does. The middle part is the curve's own: zero along geodesics.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .curve import Decode, LatentCurve, as_rows, finite, true_float32
from .metric import PullbackMetric


@dataclass(frozen=True, kw_only=True)
class Bending:
    """Acceleration of a decoded curve at some t. Tensors are (num_points,), float64.

    Attributes:
        speed: `||v||`.
        acceleration: `||a||`.
        tangential: Part of the acceleration along the curve; negative where the curve slows down.
        curvature: `||a - (part along v)|| / ||v||^2`, the inverse of the radius of the circle that fits best; its
            square is the sum of squares of the two that follow.
        geodesic_curvature: Of it, what lies within the manifold.
        normal_curvature: Of it, what is normal to the manifold: `||II(v, v)|| / ||v||^2`.
        projection_residual: `||J^T r|| / (||J|| ||a||)` of what is left normal to the manifold, 0 for an exact
            projection; `||J||` as met during the iteration.
    """

    speed: Tensor
    acceleration: Tensor
    tangential: Tensor
    curvature: Tensor
    geodesic_curvature: Tensor
    normal_curvature: Tensor
    projection_residual: Tensor


def bending(
    decode: Decode, curve: LatentCurve, ts: Tensor, *, tolerance: float = 1e-10, max_steps: int = 300
) -> Bending:
    """Differentiate a decoded curve twice, by nested forward mode, and project the acceleration onto the manifold.

    The projection solves `min_u ||J u - a||` by conjugate gradients on the normal equations, with products only. Kinks
    of a decoder (ReLU, the absolute value in GDN) bend a curve in single points: no derivative between them shows it.

    Args:
        decode: The decoder `g`. Its custom autograd functions, if any, must support `torch.func`.
        curve: The curve `gamma` of latents.
        ts: Where, (num_points,).
        tolerance: Of `projection_residual`.
        max_steps: Most iterations of each projection.

    Raises:
        ValueError: If the curve stands still at one of `ts`, so that it has no direction there.
        RuntimeError: If the decoder or one of its derivatives is not finite, or cannot be differentiated so.
    """
    parts = [_at(decode, curve, t, tolerance, max_steps) for t in ts.double().reshape(-1, 1)]
    return Bending(**{name: torch.stack([part[name] for part in parts]) for name in parts[0]})


def velocity_and_acceleration(decode: Decode, curve: LatentCurve, ts: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and second derivative in t of `decode(curve(t))`, each (num_points, ...)."""
    ones = torch.ones_like(ts)

    def velocity(t: Tensor) -> Tensor:
        return torch.func.jvp(lambda s: decode(curve(s)), (t,), (ones,))[1]

    with torch.no_grad(), true_float32():
        first, second = torch.func.jvp(velocity, (ts,), (ones,))[:2]
    return finite(first), finite(second)


def _at(decode: Decode, curve: LatentCurve, t: Tensor, tolerance: float, max_steps: int) -> dict[str, Tensor]:
    velocity, acceleration = (as_rows(x)[0] for x in velocity_and_acceleration(decode, curve, t))
    speed = velocity.norm()
    if speed == 0:
        raise ValueError(
            f"A decoded curve must move wherever its bending is asked for, it stands still at t = {t.item():g}."
        )
    direction = velocity / speed
    tangential = acceleration @ direction
    across = acceleration - tangential * direction
    metric = PullbackMetric(decode, tuple(z.detach() for z in curve(t)))
    within, residual = _projection(metric, across, acceleration.norm(), tolerance, max_steps)
    return {
        "speed": speed,
        "acceleration": acceleration.norm(),
        "tangential": tangential,
        "curvature": across.norm() / speed**2,
        "geodesic_curvature": within.norm() / speed**2,
        "normal_curvature": (across - within).norm() / speed**2,
        "projection_residual": residual,
    }


def _projection(
    metric: PullbackMetric, target: Tensor, scale: Tensor, tolerance: float, max_steps: int
) -> tuple[Tensor, Tensor]:
    """Return the projection of `target` onto the range of `J` and its residual: CGLS (Bjorck 1996, section 7.4)."""
    projected, rest = torch.zeros_like(target), target
    slope = metric.pull_back(rest[None])[0]
    direction, stretch = slope, torch.zeros(()).double()
    for _ in range(min(max_steps, 2 * metric.dim)):
        if slope.norm() == 0:
            break
        image = metric.push_forward(direction[None])[0]
        stretch = torch.maximum(stretch, image.norm() / direction.norm())
        if slope.norm() <= tolerance * stretch * scale:
            break
        step = slope.square().sum() / image.square().sum()
        projected, rest = projected + step * image, rest - step * image
        before, slope = slope, metric.pull_back(rest[None])[0]
        direction = slope + slope.square().sum() / before.square().sum() * direction
    residual = slope.norm() / (stretch * scale) if stretch > 0 and scale > 0 else torch.zeros(()).double()
    return projected, residual
