"""Decoded curves and their velocities: what the decoder makes of a curve of latents.

A curve `gamma(t)` of latents, a straight line for one, decodes to `g(gamma(t))`, whose velocity is the Jacobian-vector
product `J_t gamma'(t)`. Forward-mode differentiation gives it for twice the price of one decode, exactly and without
ever forming the Jacobian.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..model import Codec, Latents
from ..objective import reconstruct

Decode = Callable[[Latents], Tensor]
"""A decoder `g`: a tuple of latents, each (batch, ...), to (batch, ...). `model.decode` of a codec is one."""

LatentCurve = Callable[[Tensor], Latents]
"""A curve `gamma` of latents: t in [0, 1], (num_points,) float64, to latents each (num_points, ...).

Its velocity comes from differentiating it, so it must be made of differentiable torch operations; `line` is one.
"""

VALUES_AT_ONCE = 2**19
"""Decoded values (pixels times channels) of one pass; bounds the memory whatever the size and number of images."""

_FORWARD_MODE = threading.Lock()  # torch has one level of forward-mode differentiation for the whole process


def image_decoder(model: Codec, size: tuple[int, int]) -> Decode:
    """Return the decoder of `model` that keeps only the image's own pixels, `size` = (height, width)."""
    return lambda latents: reconstruct(model, latents, size)


def line(start: Latents, end: Latents) -> LatentCurve:
    """Return the straight line `gamma(t) = (1-t) start + t end` of latents each (1, ...); exact at both ends."""

    def gamma(ts: Tensor) -> Latents:
        return tuple(
            (1 - t) * z0 + t * z1 for z0, z1, t in ((z0, z1, _along(ts, z0)) for z0, z1 in zip(start, end, strict=True))
        )

    return gamma


def lines(start: Latents, end: Latents) -> list[LatentCurve]:
    """Return the straight lines between the members of two batches of latents, each (pairs, ...).

    Raises:
        ValueError: If `start` and `end` are not tuples of tensors of equal shapes, or a member of both is the same.
    """
    shapes = [tuple(z.shape) for z in start]
    batches = {z.shape[0] if z.dim() else 0 for z in start}
    if shapes != [tuple(z.shape) for z in end] or len(batches) != 1 or 0 in batches:
        raise ValueError(
            "`start` and `end` must be tuples of tensors of equal shapes (pairs, ...), "
            f"got {shapes} and {[tuple(z.shape) for z in end]}."
        )
    singles = [(members(start, i), members(end, i)) for i in range(batches.pop())]
    for index, (first, last) in enumerate(singles):
        if all(torch.equal(z0, z1) for z0, z1 in zip(first, last, strict=True)):
            raise ValueError(
                "`start` and `end` must be different latents, because a line of length zero has no eta; "
                f"got equal ones for pair {index}."
            )
    return [line(first, last) for first, last in singles]


def members(latents: Latents, index: int) -> Latents:
    """Return one member of a batch of latents, each (1, ...)."""
    return tuple(z[index : index + 1] for z in latents)


def decoded_curve(decode: Decode, curve: LatentCurve, ts: Tensor, *, values_at_once: int = VALUES_AT_ONCE) -> Tensor:
    """Decode a curve of latents: `g(gamma(t))` for each t.

    Args:
        decode: The decoder `g`.
        curve: The curve `gamma`; `line(start, end)` for a straight one.
        ts: Positions, (num_points,).
        values_at_once: Bounds the memory, see `VALUES_AT_ONCE`.

    Returns:
        (num_points, ...), in the dtype and on the device of the decoder.

    Raises:
        RuntimeError: If the decoder returns a value that is not finite.
    """
    with torch.no_grad(), true_float32():
        first = finite(decode(curve(ts[:1])))
        rest = ts[1:].split(batch_size(first, values_at_once)) if len(ts) > 1 else ()
        return torch.cat([first, *(finite(decode(curve(chunk))) for chunk in rest)])


def jacobian_vector(
    decode: Decode, latents: Latents, direction: Latents, *, values_at_once: int = VALUES_AT_ONCE
) -> Tensor:
    """Differentiate the decoder along a direction: `J(latents) direction`, by forward-mode differentiation.

    Args:
        decode: The decoder `g`.
        latents: Where to differentiate, each (batch, ...).
        direction: Of the same shapes, or each (1, ...): one direction for the whole batch.
        values_at_once: Bounds the memory, see `VALUES_AT_ONCE`.

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
            f"got {[tuple(v.shape) for v in direction]} for {[tuple(z.shape) for z in latents]}."
        )
    directions = tuple(v.expand_as(z) for z, v in zip(latents, direction, strict=True))
    _, first = push_forward(decode, members(latents, 0), members(directions, 0))
    chunks = (
        zip(*(t[1:].split(batch_size(first, values_at_once)) for t in ts), strict=True) for ts in (latents, directions)
    )
    return torch.cat([first, *(push_forward(decode, z, v)[1] for z, v in zip(*chunks, strict=True) if len(z[0]))])


def push_forward(decode: Decode, latents: Latents, direction: Latents) -> tuple[Tensor, Tensor]:
    """Return `g(latents)` and `J(latents) direction` in one pass."""
    with torch.no_grad(), forward_mode():
        duals = tuple(forward_ad.make_dual(z, v) for z, v in zip(latents, direction, strict=True))
        return _value_and_derivative(decode(duals))


def points_and_velocities(decode: Decode, curves: Sequence[LatentCurve], ts: Tensor) -> tuple[Tensor, Tensor]:
    """Return points and velocities of decoded curves in one pass, each (curves * num_points, ...).

    Differentiable in whatever the curves depend on, where gradients are enabled.
    """
    with forward_mode():
        moving = forward_ad.make_dual(ts, torch.ones_like(ts))
        latents = zip(*(curve(moving) for curve in curves), strict=True)
        return _value_and_derivative(decode(tuple(torch.cat(z) for z in latents)))


def walk(
    decode: Decode, curves: Sequence[LatentCurve], ts: Tensor, batch: int
) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Yield points and velocities of decoded curves, at most `batch` at a time, as float64 on the CPU.

    Each comes as (curves, positions, points, velocities), the first two slices that say which, the others
    (curves, positions, values).
    """
    together, at_once = max(1, batch // len(ts)), min(batch, len(ts))
    for first in range(0, len(curves), together):
        group = slice(first, min(first + together, len(curves)))
        for start in range(0, len(ts), at_once):
            positions = slice(start, min(start + at_once, len(ts)))
            with torch.no_grad():
                passed = points_and_velocities(decode, curves[group], ts[positions])
            points, velocities = (as_rows(x).unflatten(0, (group.stop - first, -1)) for x in passed)
            yield group, positions, points, velocities


def batch_size(decoded: Tensor, values_at_once: int) -> int:
    """Return how many members like the first of `decoded` may be decoded at once."""
    return max(1, values_at_once // decoded[0].numel())


def as_rows(images: Tensor) -> Tensor:
    """Flatten each member of a batch to one row of float64 on the CPU, where every sum here is formed."""
    return images.flatten(1).cpu().double()


def finite(images: Tensor) -> Tensor:
    """Return `images`, or raise `RuntimeError` if one of its values is not finite."""
    if not torch.isfinite(images).all():
        raise RuntimeError("The decoder returned a value that is not finite.")
    return images


@contextmanager
def forward_mode() -> Iterator[None]:
    """Open torch's level of forward-mode differentiation, in true float32 and with cheap convolutions."""
    # Dual tensors rather than torch.func.jvp: the latter refuses every autograd.Function without `setup_context`,
    # even one that only touches parameters, as the lower bounds in the GDN layers of many published codecs do.
    with true_float32(), _FORWARD_MODE, forward_ad.dual_level(), _FixedKernels():
        with warnings.catch_warnings():  # torch's own first use of `torch.jit.script`
            warnings.simplefilter("ignore", DeprecationWarning)
            forward_ad.make_dual(torch.zeros(()), torch.zeros(()))
        yield


def true_float32() -> AbstractContextManager[None]:
    """Switch off TF32, by which GPUs convolve float32 with 10-bit mantissas: a length would carry errors of 1e-3."""
    cudnn = torch.backends.cudnn
    return cudnn.flags(
        enabled=cudnn.enabled, benchmark=cudnn.benchmark, deterministic=cudnn.deterministic, allow_tf32=False
    )


_LINEAR = {
    functional.linear,
    *(functional.conv1d, functional.conv2d, functional.conv3d),
    *(functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d),
}


class _FixedKernels(TorchFunctionMode):
    """Differentiate convolutions whose kernels do not move by one more convolution.

    torch's own rule convolves a third time, with the zero tangent of the kernel.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func not in _LINEAR or len(args) < 2:
            return func(*args, **kwargs)
        inputs, kernel, bias, rest = args[0], args[1], (*args, None)[2], args[3:]
        bias = kwargs.pop("bias", bias)
        value, tangent = forward_ad.unpack_dual(inputs)
        if tangent is None or any(_moves(parameter) for parameter in (kernel, bias)):
            return func(inputs, kernel, bias, *rest, **kwargs)
        return forward_ad.make_dual(
            func(value, kernel, bias, *rest, **kwargs), func(tangent, kernel, None, *rest, **kwargs)
        )


def _moves(parameter: Tensor | None) -> bool:
    return parameter is not None and forward_ad.unpack_dual(parameter).tangent is not None


def _value_and_derivative(decoded: Tensor) -> tuple[Tensor, Tensor]:
    points, velocities = forward_ad.unpack_dual(decoded)
    if velocities is None:  # how torch says that the output does not depend on the latents
        velocities = torch.zeros_like(points)
    return finite(points), finite(velocities)


def _along(ts: Tensor, latent: Tensor) -> Tensor:
    """Return `ts` in the precision and on the device of a latent, to be multiplied with it."""
    return ts.to(latent).reshape(-1, *[1] * (latent.dim() - 1))
