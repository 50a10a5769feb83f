"""Lower bound of `F` by Csiszar's dual, from samples (RD-sandwich: Yang & Mandt 2022).

For every positive function `u`

    F(lmbda) >= E[-log u(X)] - log sup_y E[exp(-lmbda rho(X, y)) / u(X)].

With k samples in place of the second expectation the supremum `C_k` is too large on average, so that `E[-log u] - log
E C_k` is a lower bound too, and `log E C_k <= E C_k / alpha + log alpha - 1` makes it one that means of batches
estimate without bias, for any `alpha` that does not depend on the batch. The best `u` is `Gamma` of the optimal
reproductions; the tails of a nearly optimal one are raised to a floor, because few samples there make a large `C_k`.

The bound needs the *global* maximum over `y`: the search starts at every sample of the batch and wherever else it
is told to. It is of use up to about twenty intrinsic dimensions: `C_k` cannot be less than its largest term, which
holds the bound below about `log k`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import trange

from .estimate import Estimate
from .source import VectorSource

_FLOORS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)  # shares of the samples that are raised
_ASCENT = ((3, 64), (20, 8), (100, 1))  # steps, and how many of the best go on
PILOTS = 2
"""Batches that serve for the floor and the first `alpha` alone."""


@dataclass(kw_only=True)
class Linearized:
    """Running estimate of `E[-log u] - log E C_k` from independent batches.

    `log` is linearized at `alpha`, the mean of `C_k` over earlier batches, so that no batch sees an `alpha` made of
    itself.

    Attributes:
        earlier: `log C_k` of batches that only serve for `alpha`.
        bounds_nats: Of the batches counted so far.
    """

    earlier: list[float]
    bounds_nats: list[float] = field(default_factory=list)

    def add(self, mean_neg_log_u: float, log_largest: float) -> None:
        """Count a batch with its mean of `-log u` and its `log C_k`."""
        log_alpha = float(torch.logsumexp(torch.tensor(self.earlier, dtype=torch.double), 0)) - math.log(
            len(self.earlier)
        )
        self.bounds_nats.append(mean_neg_log_u - (math.exp(log_largest - log_alpha) + log_alpha - 1))
        self.earlier.append(log_largest)

    def estimate(self, method: str, lmbda: float, began: float) -> Estimate:
        """Return the lower bound; below 0, which always holds, it is 0."""
        bounds = torch.tensor(self.bounds_nats, dtype=torch.double)
        return Estimate(
            method=method,
            side="lower",
            lmbda=lmbda,
            f_nats=max(0.0, float(bounds.mean())),
            stderr_nats=float(bounds.std()) / len(bounds) ** 0.5,
            seconds=time.perf_counter() - began,
        )


def dual_lower_bound(
    source: VectorSource,
    lmbda: float,
    neg_log_gamma: Callable[[Tensor], Tensor],
    *,
    generator: torch.Generator,
    starts: Tensor | None = None,
    batch: int = 2048,
    batches: int = 20,
) -> Estimate:
    """Return a lower bound of `F`; `u` is `Gamma` of an upper bound, with a floor chosen on batches of its own.

    Args:
        source: Under squared error.
        lmbda: Nats per unit of distortion.
        neg_log_gamma: `-log Gamma` of samples (n, dim) in nats, (n,), as good as it can be had: it decides how tight
            the bound is, not on which side.
        generator: Source of all random numbers.
        starts: Reproductions (starts, dim) at which the search for the supremum starts, besides the samples.
        batch: Samples in `C_k`.
        batches: Number of independent values of it, at least 2.

    Raises:
        ValueError: If a count is too small.
    """
    began = time.perf_counter()
    if batch < 2 or batches < 2:
        raise ValueError(f"`batch` and `batches` must be at least 2, got {batch} and {batches}.")
    precision = 0.5 / source.noise_variance(lmbda)

    def largest(x: Tensor, neg_log_u: Tensor) -> float:
        return log_supremum(x, neg_log_u - math.log(len(x)), precision, starts)

    pilots = [(x, neg_log_gamma(x)) for x in (source.sample(batch, generator) for _ in range(PILOTS))]
    ceiling, running = start_running(pilots, largest)
    for _ in trange(batches, desc="dual", leave=False, disable=None):
        x = source.sample(batch, generator)
        neg_log_u = neg_log_gamma(x).clamp(max=ceiling)
        running.add(float(neg_log_u.mean()), largest(x, neg_log_u))
    return running.estimate("dual", lmbda, began)


def start_running(
    pilots: Sequence[tuple[Tensor, Tensor]], largest: Callable[[Tensor, Tensor], float]
) -> tuple[float, Linearized]:
    """Choose the ceiling of `-log u` that gives pilot batches the highest bound, and start the estimate with theirs.

    Args:
        pilots: Samples of a batch and their `-log Gamma`.
        largest: `log C_k` of samples and their `-log u`.
    """
    shares = 1 - torch.tensor(_FLOORS, dtype=torch.double)
    ceilings = torch.quantile(torch.cat([cost for _, cost in pilots]).double(), shares)
    best, chosen, logs = -math.inf, math.inf, [0.0]
    for ceiling in ceilings.tolist():
        clamped = [(x, cost.clamp(max=ceiling)) for x, cost in pilots]
        trial = [largest(x, cost) for x, cost in clamped]
        bound = sum(float(cost.mean()) - log for (_, cost), log in zip(clamped, trial, strict=True))
        if bound > best:
            best, chosen, logs = bound, ceiling, trial
    return chosen, Linearized(earlier=logs)


def log_supremum(x: Tensor, log_weights: Tensor, precision: float, starts: Tensor | None = None) -> float:
    """Return `sup_y log sum_i exp(log_weights_i - precision |x_i - y|^2)`.

    Mean-shift steps, each to the weighted mean of the samples, never go down. They start at all samples; the best go
    on.

    Args:
        x: (n, dim).
        log_weights: (n,).
        precision: Positive.
        starts: (starts, dim), more places to start at.
    """
    y = x if starts is None else torch.cat([x, starts])
    squares = x.square().sum(1)
    value = torch.empty(0)
    for steps, kept in _ASCENT:
        for step in range(steps + 1):
            terms = log_weights - precision * (squares + y.square().sum(1)[:, None] - 2 * y @ x.T)
            value = torch.logsumexp(terms, 1)
            if step < steps:
                y = terms.softmax(1) @ x
        y = y[value.topk(min(kept, len(value))).indices]
    return float(value.max())
