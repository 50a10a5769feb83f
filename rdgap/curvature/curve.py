"""Decoded curves and their velocities: what the decoder makes of a straight line between latents.

`gamma(t) = (1-t) z0 + t z1` is straight, its image `g(gamma(t))` need not be. The velocity of the image is the
Jacobian-vector product `J_t (z1 - z0)`, which forward-mode differentiation gives for about twice the price of one
decode, exactly and without ever forming the Jacobian.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..model import Codec, Latents
from ..objective import reconstruct

Decode = Callable[[Latents], Tensor]
"""A decoder `g`: a tuple of latents, each (batch, ...), to (batch, ...). `model.decode` of a codec is one."""

_FORWARD_MODE = threading.Lock()  # torch has one level of forward-mode differentiation for the whole process


def image_decoder(model: Codec, size: tuple[int, int]) -> Decode:
    """Return the decoder of `model` that keeps only the image's own pixels, `size` = (height, width)."""
    return lambda latents: reconstruct(model, latents, size)


def decoded_curve(decode: Decode, start: Latents, end: Latents, ts: Tensor, *, chunk_size: int = 8) -> Tensor:
    """Decode the straight line between two latents: `g((1-t) start + t end)` for each t.

    Args:
        decode: The decoder `g`.
        start: Latents at t = 0, each (1, ...); all of the tuple's members move along straight lines.
        end: Latents at t = 1, of the same shapes.
        ts: Positions on the line, (num_points,).
        chunk_size: How many points are decoded at once.

    Returns:
        (num_points, ...), in the dtype and on the device of the decoder.

    Raises:
        ValueError: If `start` and `end` are not pairs of tensors of equal shape (1, ...).
        RuntimeError: If the decoder returns a value that is not finite.
    """
    check_ends(start, end)
    with torch.no_grad(), _true_float32():
        return torch.cat([_finite(decode(interpolate(start, end, chunk))) for chunk in ts.split(chunk_size)])


def jacobian_vector(decode: Decode, latents: Latents, direction: Latents, *, chunk_size: int = 8) -> Tensor:
    """Differentiate the decoder along a direction: `J(latents) direction`, by forward-mode differentiation.

    Args:
        decode: The decoder `g`.
        latents: Where to differentiate, each (batch, ...).
        direction: Of the same shapes, or each (1, ...): one direction for the whole batch.
        chunk_size: How many members of the batch are differentiated at once.

    Returns:
        (batch, ...): the derivative of `decode(latents + s * direction)` in s at 0.

    Raises:
        ValueError: If the shapes of `latents` and `direction` do not fit.
        RuntimeError: If the decoder or its derivative is not finite.
    """
    if len(latents) != len(direction) or any(
        z.shape[1:] != v.shape[1:] or v.shape[0] not in (1, z.shape[0])
        for z, v in zip(latents, direction, strict=False)
    ):
        raise ValueError(
            "`direction` must have the shapes of `latents` (or batch size 1), "
            f"got {_shapes(direction)} for {_shapes(latents)}."
        )
    directions = tuple(v.expand_as(z) for z, v in zip(latents, direction, strict=True))
    chunks = zip(*(t.split(chunk_size) for t in latents), strict=True)
    direction_chunks = zip(*(t.split(chunk_size) for t in directions), strict=True)
    return torch.cat([push_forward(decode, z, v)[1] for z, v in zip(chunks, direction_chunks, strict=True)])


def points_and_velocities(
    decode: Decode, start: Latents, end: Latents, ts: Tensor, chunk_size: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the points of the decoded curve and their velocities, chunk by chunk, as float64 on the CPU."""
    direction = tuple(z1 - z0 for z0, z1 in zip(start, end, strict=True))
    for chunk in ts.split(chunk_size):
        latents = interpolate(start, end, chunk)
        directions = tuple(v.expand_as(z) for z, v in zip(latents, direction, strict=True))
        points, velocities = push_forward(decode, latents, directions)
        yield as_rows(points), as_rows(velocities)


def push_forward(decode: Decode, latents: Latents, direction: Latents) -> tuple[Tensor, Tensor]:
    """Return `g(latents)` and `J(latents) direction` in one pass."""
    # Dual tensors rather than torch.func.jvp: the latter refuses every autograd.Function without `setup_context`,
    # even one that only touches parameters, as the lower bounds in the GDN layers of many published codecs do.
    with torch.no_grad(), _true_float32(), _FORWARD_MODE, forward_ad.dual_level():
        with warnings.catch_warnings():  # torch's own first use of `torch.jit.script`
            warnings.simplefilter("ignore", DeprecationWarning)
            duals = tuple(forward_ad.make_dual(z, v) for z, v in zip(latents, direction, strict=True))
        points, velocities = forward_ad.unpack_dual(decode(duals))
        if velocities is None:  # how torch says that the output does not depend on the latents
            velocities = torch.zeros_like(points)
        return _finite(points), _finite(velocities)


def interpolate(start: Latents, end: Latents, ts: Tensor) -> Latents:
    """Return `(1-t) start + t end`, each (num_points, ...); exact at both ends."""

    def line(z0: Tensor, z1: Tensor) -> Tensor:
        t = ts.to(z0).reshape(-1, *[1] * (z0.dim() - 1))
        return (1 - t) * z0 + t * z1

    return tuple(line(z0, z1) for z0, z1 in zip(start, end, strict=True))


def as_rows(images: Tensor) -> Tensor:
    """Flatten each member of a batch to one row of float64 on the CPU, where every sum here is formed."""
    return images.flatten(1).cpu().double()


def check_ends(start: Latents, end: Latents) -> None:
    """Raise `ValueError` unless `start` and `end` are tuples of equal shapes (1, ...)."""
    if _shapes(start) != _shapes(end) or not start or any(z.dim() < 1 or z.shape[0] != 1 for z in start):
        raise ValueError(
            "`start` and `end` must be tuples of tensors of equal shapes (1, ...), "
            f"got {_shapes(start)} and {_shapes(end)}."
        )


def _shapes(latents: Latents) -> list[tuple[int, ...]]:
    return [tuple(z.shape) for z in latents]


def _finite(images: Tensor) -> Tensor:
    if not torch.isfinite(images).all():
        raise RuntimeError("The decoder returned a value that is not finite.")
    return images


def _true_float32() -> AbstractContextManager[None]:
    """Switch off TF32, by which GPUs convolve float32 with 10-bit mantissas: a length would carry errors of 1e-3."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )
