"""Convolution kernels in few bits: rounded to powers of two of their own in each channel, then compressed."""

from __future__ import annotations

import lzma
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

_LEAST_SHARE = 1e-4  # of a kernel's mean sensitivity: what no image needed is not thrown away for that


class Steps(NamedTuple):
    """Steps of a kernel, whose binary exponents are sums of one part for each row and one for each column.

    Rows and columns are the first two dimensions, the parts are in quarters, and the sums are rounded.
    """

    rows: list[int]
    columns: list[int]

    @classmethod
    def stored(cls, exponents: Sequence[Any], shape: Sequence[int]) -> Steps:
        """Return the steps of a file: two lists, or in older files the one exponent of all."""
        if len(exponents) == 1:
            return cls([4 * exponents[0]] * shape[0], [0] * shape[1])
        return cls(*exponents)

    def sizes(self) -> np.ndarray:
        """Return the steps, (rows, columns)."""
        quarters = np.add.outer(np.asarray(self.rows, np.int64), np.asarray(self.columns, np.int64))
        return 2.0 ** ((quarters + 2) // 4)


def steps_for(sensitivity: Tensor, coarseness: float) -> Steps:
    """Return steps that spread an error where it does the least harm: inverse to the root of the sensitivity.

    Args:
        sensitivity: Mean squared gradient of a cost in each row and column, (rows, columns).
        coarseness: Binary logarithm of step times gradient.
    """
    least = max(_LEAST_SHARE * float(sensitivity.mean()), 1e-24)
    needed = -2 * sensitivity.double().clamp(min=least).log2()  # quarters of the exponent of the inverse root
    rows = needed.mean(1) + 4 * coarseness
    columns = needed.mean(0) - needed.mean()
    return Steps([round(value) for value in rows.tolist()], [round(value) for value in columns.tolist()])


def pack(kernel: Tensor, steps: Steps) -> Tensor:
    """Return the uint8 bytes of a kernel in steps: the four bytes of its integers apart, as LZMA."""
    sizes = steps.sizes()[..., None, None]
    integers = np.rint(kernel.detach().double().cpu().numpy() / sizes).astype("<i4")
    planes = integers.reshape(-1, 1).view(np.uint8).T
    return torch.frombuffer(bytearray(lzma.compress(planes.tobytes(), preset=9)), dtype=torch.uint8)


def unpack(packed: Tensor, steps: Steps, shape: Sequence[int]) -> Tensor:
    """Return the kernel that `pack` was given, rounded to its steps.

    Raises:
        ValueError: If the bytes are not those of a kernel of this shape.
    """
    try:
        planes = np.frombuffer(lzma.decompress(packed.numpy().tobytes()), np.uint8).reshape(4, math.prod(shape))
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"packed kernels must be LZMA, got {error}") from error
    integers = np.ascontiguousarray(planes.T).view("<i4").reshape(tuple(shape))
    return torch.from_numpy(integers * steps.sizes()[..., None, None]).float()
