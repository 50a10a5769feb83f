"""`blahut_arimoto` beside the textbook iteration in numpy, both until upper and lower bound differ by `TOLERANCE` nats.

The other side is the iteration as one writes it: matrix products per lmbda, the kernel computed once, the same stop
rule, checked in every step from the very product that the step needs anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch

from rdgap.rate_distortion import blahut_arimoto
from rdgap.rate_distortion.named import named_source
from rdgap.rate_distortion.source import VectorSource

TOLERANCE = 1e-6
PROBLEMS = (("gaussian-1", 100, (0.3, 1.0, 3.0)), ("laplace", 60, (0.3, 1.0)), ("sphere-2", 24, (5.0, 10.0)))


def textbook(p: np.ndarray, distortions: np.ndarray, lmbdas: tuple[float, ...]) -> np.ndarray:
    """Return the upper bounds in nats, (lmbdas,)."""
    found = []
    for lmbda in lmbdas:
        kernel = np.exp(-lmbda * distortions)
        q = np.full(distortions.shape[1], 1 / distortions.shape[1])
        while True:
            gamma = kernel @ q
            wanted = (p / gamma) @ kernel
            if math.log(wanted.max()) <= TOLERANCE:
                break
            q *= wanted
        found.append(-float(p @ np.log(gamma)))
    return np.array(found)


def comparisons() -> Iterator[tuple[str, Callable[[], object], Callable[[], object], Callable[..., float]]]:
    """Yield name, this library, the other, and the largest difference of `F` in nats."""
    for name, size, lmbdas in PROBLEMS:
        source = named_source(name)
        assert isinstance(source, VectorSource)
        found = source.quadrature(size)
        assert found is not None
        nodes, shares = found
        table = source.distortions(nodes, nodes)
        p, distortions = shares.numpy(), table.numpy()

        def here(shares: torch.Tensor = shares, table: torch.Tensor = table, lmbdas: tuple = lmbdas) -> np.ndarray:
            solved = blahut_arimoto(shares, table, lmbdas, tolerance_nats=TOLERANCE)
            return np.array([each.upper.f_nats for each in solved])

        def other(p: np.ndarray = p, distortions: np.ndarray = distortions, lmbdas: tuple = lmbdas) -> np.ndarray:
            return textbook(p, distortions, lmbdas)

        yield f"Blahut-Arimoto, {name}, {len(p)} symbols", here, other, lambda a, b: float(np.abs(a - b).max())
