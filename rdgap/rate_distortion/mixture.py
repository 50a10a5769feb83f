"""Variational upper bound of `F` with a Gaussian mixture for the distribution of reproductions.

Every distribution `Q` of reproductions gives `F(lmbda) <= E[-log INT exp(-lmbda rho(X, y)) Q(dy)]`. Under squared
error the kernel is a Gaussian of variance `s2`, so that for a mixture `Q = sum_j pi_j N(m_j, S_j)` the integral is one
of normal densities,

    -log Gamma(x) = -log sum_j pi_j N(x; m_j, S_j + s2 I) - n/2 log(2 pi s2):

the ideal channel comes in closed form, nothing is lost to an encoder (a beta-VAE's bound, RD-sandwich by Yang & Mandt
2022, pays the encoder's gap on top), and minimising the bound is fitting a density whose covariances stay above `s2`.
Expectation maximisation does that exactly: the best covariance is that of its samples with eigenvalues raised to `s2`.
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

_CHUNK_NUMBERS = 20_000_000  # most numbers in a temporary; bounds the memory


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """A Gaussian mixture of samples plus kernel noise: covariances `C_j = S_j + s2 I`.

    Attributes:
        log_shares: Logarithms of the weights, (components,).
        means: (components, dim).
        eigenvalues: Of each `C_j`, at least `s2`, (components, dim).
        directions: Eigenvectors in columns, (components, dim, dim).
        noise_variance: `s2`.
    """

    log_shares: Tensor
    means: Tensor
    eigenvalues: Tensor
    directions: Tensor
    noise_variance: float

    def log_joint(self, x: Tensor) -> Tensor:
        """Return `log pi_j INT exp(-lmbda rho(x, y)) N(y; m_j, S_j) dy`, (n, components)."""
        parts = []
        for log_share, mean, values, vectors in zip(
            self.log_shares, self.means, self.eigenvalues, self.directions, strict=True
        ):
            squares = ((x - mean) @ vectors).square() @ (1 / values)
            parts.append(log_share - 0.5 * (squares + torch.log(values / self.noise_variance).sum()))
        return torch.stack(parts, 1)

    def neg_log_gamma(self, x: Tensor) -> Tensor:
        """Return `-log Gamma` in nats, (n,)."""
        return -torch.logsumexp(self.log_joint(x), 1)

    def mean_square(self, x: Tensor) -> Tensor:
        """Return the squared error of the ideal channel, `E |x - Y|^2` given x, (n,).

        Given `x` and component `j`, the reproduction is Gaussian: in each eigendirection it falls short of `x` by the
        share `s2 / c` of `x - m_j`, and has variance `s2 (1 - s2 / c)`.
        """
        shares = self.log_joint(x).softmax(1)
        errors = []
        for mean, values, vectors in zip(self.means, self.eigenvalues, self.directions, strict=True):
            short = self.noise_variance / values
            errors.append(((x - mean) @ vectors).square() @ short.square() + self.noise_variance * (1 - short).sum())
        return (shares * torch.stack(errors, 1)).sum(1)


def mixture_upper_bound(
    source: VectorSource,
    lmbda: float,
    *,
    generator: torch.Generator,
    components: int = 32,
    steps: int = 50,
    training_samples: int = 20_000,
    samples: int = 20_000,
) -> tuple[Estimate, Mixture]:
    """Fit a mixture to the source and return its cost on fresh samples, an upper bound of `F`.

    Args:
        source: Under squared error.
        lmbda: Nats per unit of distortion.
        generator: Source of all random numbers.
        components: Of the mixture.
        steps: Of expectation maximisation.
        training_samples: That the mixture is fitted to.
        samples: That the cost is measured on, at least 2.

    Raises:
        ValueError: If a count is too small.
    """
    began = time.perf_counter()
    check_counts(("components", components, 1), ("training_samples", training_samples, 2), ("samples", samples, 2))
    mixture = fit(
        source.sample(training_samples, generator), source.noise_variance(lmbda), components, steps, generator
    )
    costs, squares = [], []
    rows = max(1, min(samples, _CHUNK_NUMBERS // source.dim))
    for start in range(0, samples, rows):
        x = source.sample(min(rows, samples - start), generator)
        costs.append(mixture.neg_log_gamma(x))
        squares.append(mixture.mean_square(x))
    estimate = from_samples(
        torch.cat(costs),
        source.weight * torch.cat(squares),
        method="mixture",
        side="upper",
        lmbda=lmbda,
        began=began,
    )
    return estimate, mixture


def fit(x: Tensor, noise_variance: float, components: int, steps: int, generator: torch.Generator) -> Mixture:
    """Fit a mixture whose covariances have no eigenvalue below `noise_variance` to `x` (n, dim)."""
    chosen = _spread_out(x, components, generator)
    shares = torch.zeros(len(x), components, dtype=x.dtype)
    nearest = torch.cdist(x, x[chosen]).argmin(1)
    shares[torch.arange(len(x)), nearest] = 1.0
    mixture = _maximise(x, shares, noise_variance)
    previous = math.inf
    for _ in trange(steps, desc="mixture", leave=False, disable=None):
        log_joint = mixture.log_joint(x)
        cost = -float(torch.logsumexp(log_joint, 1).mean())
        if previous - cost < 1e-6 * abs(cost):
            break
        previous = cost
        mixture = _maximise(x, log_joint.softmax(1), noise_variance)
    return mixture


def _spread_out(x: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Choose rows far from each other: each with probability proportional to its squared distance (k-means++)."""
    subset = torch.randperm(len(x), generator=generator)[:5000]
    candidates = x[subset]
    chosen = [0]
    distances = (candidates - candidates[0]).square().sum(1)
    while len(chosen) < min(number, len(candidates)):
        chosen.append(int(torch.multinomial(distances + 1e-12, 1, generator=generator)))
        distances = torch.minimum(distances, (candidates - candidates[chosen[-1]]).square().sum(1))
    return subset[chosen]


def _maximise(x: Tensor, shares: Tensor, noise_variance: float) -> Mixture:
    """Return the most likely mixture given each sample's shares (n, components); empty components are dropped."""
    counts = shares.sum(0)
    shares, counts = shares[:, counts > 1e-6 * len(x)], counts[counts > 1e-6 * len(x)]
    means = shares.T @ x / counts[:, None]
    values, vectors = [], []
    for share, count, mean in zip(shares.T, counts, means, strict=True):
        centred = (x - mean) * share.sqrt()[:, None]
        eigenvalues, directions = torch.linalg.eigh(centred.T @ centred / count)
        values.append(eigenvalues.clamp(min=noise_variance))
        vectors.append(directions)
    return Mixture(
        log_shares=torch.log(counts / counts.sum()),
        means=means,
        eigenvalues=torch.stack(values),
        directions=torch.stack(vectors),
        noise_variance=noise_variance,
    )
