"""Length of a decoded curve against the ways that a user of autograd would take."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from rdgap.curvature import curve_length, image_decoder
from rdgap.ntc import NTCCodec
from rdgap.zoo import DEFAULT_LMBDA, DEFAULT_MODEL, load_codec

Comparison = tuple[str, Callable[[], float], Callable[[], float], Callable[[float, float], float]]
POINTS = 8


def comparisons() -> Iterator[Comparison]:
    """Yield the length of one curve between crops, T = 8, against double backward and against full Jacobians."""
    codec = load_codec(DEFAULT_MODEL, DEFAULT_LMBDA)
    for size, name, other in (
        (128, "double backward", _length_by_double_backward),
        (32, "full Jacobian by reverse mode", _length_by_jacobian),
    ):
        images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            starts = [codec.infer(image[None]) for image in images]
        decode = image_decoder(codec, (size, size))
        yield (
            f"curve length, {size} x {size}; {name}",
            lambda decode=decode, starts=starts: curve_length(decode, *starts, num_points=POINTS).length,
            lambda codec=codec, starts=starts, other=other: other(codec, starts[0][-1], starts[1][-1]),
            lambda here, there: abs(here / there - 1),
        )


def _midpoints(start: Tensor, end: Tensor) -> list[Tensor]:
    return [start + (index + 0.5) / POINTS * (end - start) for index in range(POINTS)]


def _length_by_double_backward(codec: NTCCodec, start: Tensor, end: Tensor) -> float:
    """`J v` as the derivative of `u -> J^T u`, one point after the other (`torch.autograd.functional.jvp`)."""
    speeds = []
    for point in _midpoints(start, end):
        _, velocity = torch.autograd.functional.jvp(codec.synthesis, point, end - start)
        assert isinstance(velocity, Tensor)
        speeds.append(velocity.norm().item())
    return sum(speeds) / POINTS


def _length_by_jacobian(codec: NTCCodec, start: Tensor, end: Tensor) -> float:
    """The whole Jacobian, times `v`."""
    direction = (end - start).flatten()
    speeds = [
        (
            torch.autograd.functional.jacobian(codec.synthesis, point, vectorize=True).flatten(4).flatten(0, 3)
            @ direction
        )
        .norm()
        .item()
        for point in _midpoints(start, end)
    ]
    return sum(speeds) / POINTS
