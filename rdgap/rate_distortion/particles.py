"""Wasserstein gradient descent: reproductions as particles that flow towards the optimal distribution.

For particles `y_j` of weights `nu_j` the cost is `E[-log Gamma]` with `Gamma(x) = sum_j nu_j exp(-lmbda rho(x, y_j))`.
Its first variation is `psi(y) = -w(y)`, `w(y) = E[exp(-lmbda rho(X, y)) / Gamma(X)]`, and particles move along `-grad
psi` (Yang, Eckstein, Nutz, Mandt 2023). Under squared error that is `2 lmbda weight w(y_j) (xbar_j - y_j)`, with
`xbar_j` the mean of the samples that the channel sends to `y_j`, so that a step size of 1 in the natural unit `1 / (2
lmbda weight)` never overshoots. Weights follow Blahut's and Arimoto's step, `nu_j <- nu_j w(y_j)`.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import trange

from .estimate import Estimate, check_counts, from_samples
from .source import VectorSource

_ROWS = 2048
_HEADROOM_NATS = 2.3  # log 10: some ten particles share the description of a sample


@dataclass(frozen=True, kw_only=True)
class Particles:
    """A discrete distribution of reproductions.

    Attributes:
        points: (particles, dim).
        log_shares: Logarithms of their probabilities, (particles,).
        lmbda: That they are made for.
    """

    points: Tensor
    log_shares: Tensor
    lmbda: float

    def log_joint(self, source: VectorSource, x: Tensor) -> Tensor:
        """Return `log nu_j - lmbda rho(x, y_j)`, (n, particles)."""
        return self.log_shares - self.lmbda * source.distortions(x, self.points)

    def neg_log_gamma(self, source: VectorSource, x: Tensor) -> Tensor:
        """Return `-log Gamma` in nats, (n,)."""
        return torch.cat([-torch.logsumexp(self.log_joint(source, rows), 1) for rows in x.split(_ROWS)])


def particle_upper_bound(
    source: VectorSource,
    lmbda: float,
    *,
    generator: torch.Generator,
    particles: int = 512,
    steps: int = 300,
    batch: int = 1024,
    samples: int = 20_000,
) -> tuple[Estimate, Particles]:
    """Move particles by stochastic Wasserstein gradient descent and return their cost on fresh samples.

    Args:
        source: Under squared error.
        lmbda: Nats per unit of distortion.
        generator: Source of all random numbers.
        particles: Reproductions, at least 2.
        steps: Of the descent; the step size falls to a tenth in the second half.
        batch: Fresh samples of each step.
        samples: That the cost is measured on, at least 2.

    Raises:
        ValueError: If a count is too small.
        RuntimeError: If the rate comes close to the most that so many particles can carry: the cost then says more
            about their number than about the source.
    """
    began = time.perf_counter()
    check_counts(("particles", particles, 2), ("steps", steps, 1), ("batch", batch, 2), ("samples", samples, 2))
    points = source.sample(particles, generator)
    log_shares = torch.full((particles,), -math.log(particles), dtype=points.dtype)
    for step in trange(steps, desc="particles", leave=False, disable=None):
        size = min(1.0, 0.2 ** (4 * step / steps - 2))
        x = source.sample(batch, generator)
        channel = Particles(points=points, log_shares=log_shares, lmbda=lmbda).log_joint(source, x).softmax(1)
        mass = channel.mean(0)  # nu_j w(y_j)
        wanted = mass / log_shares.exp().clamp(min=1e-300)
        towards = channel.T @ x / channel.sum(0).clamp(min=1e-300)[:, None] - points
        points = points + size * wanted.clamp(max=1.0)[:, None] * towards
        if step >= steps // 4:  # first places, then weights too
            log_shares = torch.log((1 - 0.5 * size) * log_shares.exp() + 0.5 * size * mass + 1e-12)
            log_shares = log_shares - torch.logsumexp(log_shares, 0)
    result = Particles(points=points, log_shares=log_shares, lmbda=lmbda)
    costs, distortions = [], []
    for start in range(0, samples, _ROWS):
        x = source.sample(min(_ROWS, samples - start), generator)
        joint = result.log_joint(source, x)
        costs.append(-torch.logsumexp(joint, 1))
        distortions.append((joint.softmax(1) * (log_shares - joint) / lmbda).sum(1))
    estimate = from_samples(
        torch.cat(costs), torch.cat(distortions), method="wgd", side="upper", lmbda=lmbda, began=began
    )
    most = math.log(particles)
    if estimate.rate_nats > most - _HEADROOM_NATS:
        raise RuntimeError(
            f"wgd: the rate must stay {_HEADROOM_NATS} nats below log {particles} = {most:.1f}, "
            f"got {estimate.rate_nats:.1f} at lmbda {lmbda:g}: give it more particles."
        )
    return estimate, result
