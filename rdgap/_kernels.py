"""Convolution kernels in few bits: rounded to a power of two below their size, then compressed without loss."""

from __future__ import annotations

import lzma
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# What keeps the loss of L below .1 %: errors of the synthesis are seen at once, the prior's hardly ever.
_FRACTION_BITS = {"analysis": 6, "synthesis": 8, "prior": 4}


def step_exponent(name: str, kernel: Tensor) -> int:
    """Return the exponent of the step that `kernel`, called `name` in its codec, is rounded to.

    The step is the power of two nearest to its root mean square, less the bits that its part of the codec needs.
    """
    size = float(kernel.double().square().mean().sqrt())
    return round(math.log2(size)) - _FRACTION_BITS[name.partition(".")[0]] if size else 0


def pack(kernel: Tensor, exponent: int) -> Tensor:
    """Return the uint8 bytes of a kernel in steps of `2 ** exponent`: the four bytes of its integers apart, as LZMA."""
    steps = torch.round(kernel.double() * 2.0**-exponent).to(torch.int32).cpu().numpy().astype("<i4")
    planes = steps.reshape(-1, 1).view(np.uint8).T
    return torch.frombuffer(bytearray(lzma.compress(planes.tobytes(), preset=9)), dtype=torch.uint8)


def unpack(packed: Tensor, exponent: int, shape: Sequence[int]) -> Tensor:
    """Return the kernel that `pack` was given, rounded to its steps.

    Raises:
        ValueError: If the bytes are not those of a kernel of this shape.
    """
    try:
        planes = np.frombuffer(lzma.decompress(packed.numpy().tobytes()), np.uint8).reshape(4, math.prod(shape))
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"packed kernels must be LZMA, got {error}") from error
    steps = np.ascontiguousarray(planes.T).view("<i4").reshape(tuple(shape))
    return torch.from_numpy(steps.astype(np.float64) * 2.0**exponent).float()
