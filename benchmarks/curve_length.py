"""Jacobian-vector products along a decoded curve against the way that autograd offers without forward mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rdgap.curvature import jacobian_vector
from rdgap.ntc import NTCCodec
from rdgap.zoo import DEFAULT_LMBDA, DEFAULT_MODEL, load_codec

Comparison = tuple[str, Callable[[], float], Callable[[], float], Callable[[float, float], float]]
POINTS = 8


def comparisons() -> Iterator[Comparison]:
    """Yield the mean speed `||J v||` at eight points of one latent line against double backward.

    Only the Jacobian-vector products: `curve_length` also decodes a polyline and estimates its error.
    """
    codec = load_codec(DEFAULT_MODEL, DEFAULT_LMBDA)
    for size in (128, 256):
        images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            start, end = (codec.infer(image[None])[-1] for image in images)
        points = torch.cat(_midpoints(start, end))
        yield (
            f"J v along a curve, {size} x {size}; double backward",
            lambda points=points, v=end - start: _by_forward_mode(codec, points, v),
            lambda start=start, end=end: _by_double_backward(codec, start, end),
            lambda here, there: abs(here / there - 1),
        )


def _by_forward_mode(codec: NTCCodec, points: Tensor, direction: Tensor) -> float:
    velocities = jacobian_vector(lambda latents: codec.synthesis(latents[0]), (points,), (direction,))
    return velocities.flatten(1).norm(dim=1).mean().item()


def _midpoints(start: Tensor, end: Tensor) -> list[Tensor]:
    return [start + (index + 0.5) / POINTS * (end - start) for index in range(POINTS)]


def _by_double_backward(codec: NTCCodec, start: Tensor, end: Tensor) -> float:
    """`J v` as the derivative of `u -> J^T u`, one point after the other (`torch.autograd.functional.jvp`)."""
    speeds = []
    for point in _midpoints(start, end):
        _, velocity = torch.autograd.functional.jvp(codec.synthesis, point, end - start)
        assert isinstance(velocity, Tensor)
        speeds.append(velocity.norm().item())
    return sum(speeds) / POINTS
