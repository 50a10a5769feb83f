"""The pullback metric `J^T J` of a decoder at one latent, by products only: the Jacobian is never formed.

The metric says how much images change per step of the latents: its eigenvalues are the squared stretches along its
eigenvectors, its trace their sum, and the square root of its determinant the factor by which volume changes.
Vectors and sums are float64; a product is as precise as the decoder, so that eigenvalues below its rounding (about 1e-7
of the largest in float32) mean nothing. `codec.double()` makes a codec exact to 1e-15.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import Latents
from .curve import VALUES_AT_ONCE, Decode, as_rows, batch_size, finite, push_forward, true_float32

Product = Callable[[Tensor], Tensor]
"""A symmetric positive semi-definite matrix as the map (vectors, dim) to (vectors, dim)."""


class PullbackMetric:
    """`A = J^T J` of a decoder at one latent.

    Args:
        decode: The decoder `g`.
        latents: Where, each (1, ...).
        moving: Which of the latents move; by default all. `(False, True)` holds the hyper latents of `(z, y)` fixed.
        values_at_once: Bounds the memory, see `VALUES_AT_ONCE`.

    Attributes:
        dim: Number of coordinates that move.

    Raises:
        ValueError: If a latent is not (1, ...), or none moves.
        RuntimeError: If the decoder is not finite there.
    """

    def __init__(
        self,
        decode: Decode,
        latents: Latents,
        *,
        moving: Sequence[bool] | None = None,
        values_at_once: int = VALUES_AT_ONCE,
    ) -> None:
        self.moving = tuple(moving) if moving is not None else (True,) * len(latents)
        if any(z.dim() < 1 or z.shape[0] != 1 for z in latents) or len(self.moving) != len(latents):
            raise ValueError(
                "`latents` must each be (1, ...), with an entry of `moving` for each, "
                f"got {[tuple(z.shape) for z in latents]} and {self.moving}."
            )
        if not any(self.moving):
            raise ValueError(f"At least one of the latents must move, got `moving` {self.moving}.")
        self.latents = tuple(z.detach() for z in latents)
        self.dim = sum(z.numel() for z, moves in zip(latents, self.moving, strict=True) if moves)
        self._decode = decode
        with torch.no_grad(), true_float32():
            decoded = finite(decode(self.latents))
        self.num_values, self._shape = decoded[0].numel(), decoded.shape[1:]
        self._batch = batch_size(decoded, values_at_once)

    def push_forward(self, vectors: Tensor) -> Tensor:
        """Return `J v`, (vectors, num_values), of (vectors, dim)."""
        return torch.cat([self._push(chunk) for chunk in vectors.split(self._batch)])

    def pull_back(self, covectors: Tensor) -> Tensor:
        """Return `J^T u`, (covectors, dim), of (covectors, num_values)."""
        return torch.cat([self._pull(chunk) for chunk in covectors.split(self._batch)])

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return `J^T J v`, (vectors, dim), of (vectors, dim)."""
        return torch.cat([self._pull(self._push(chunk)) for chunk in vectors.split(self._batch)])

    def _push(self, vectors: Tensor) -> Tensor:
        at, moving = self._repeated(len(vectors)), self.unpack(vectors)
        return as_rows(push_forward(self._decode, at, moving)[1])

    def _pull(self, covectors: Tensor) -> Tensor:
        at = self._repeated(len(covectors))
        moving = [z.requires_grad_() for z, moves in zip(at, self.moving, strict=True) if moves]
        with torch.enable_grad(), true_float32():
            decoded = self._decode(at)
            if not decoded.requires_grad:  # the decoder sees nothing of what moves
                return torch.zeros(len(covectors), self.dim, dtype=torch.float64)
            cotangents = covectors.to(decoded).reshape(-1, *self._shape)
            slopes = torch.autograd.grad(decoded, moving, cotangents, materialize_grads=True)
        return torch.cat([as_rows(finite(slope)) for slope in slopes], 1)

    def _repeated(self, number: int) -> Latents:
        return tuple(z.expand(number, *z.shape[1:]).clone() for z in self.latents)

    def unpack(self, vectors: Tensor) -> Latents:
        """Return (vectors, dim) in the shapes of the latents, zero for those that do not move."""
        sizes = [z.numel() if moves else 0 for z, moves in zip(self.latents, self.moving, strict=True)]
        return tuple(
            part.to(z).reshape(-1, *z.shape[1:]) if moves else torch.zeros_like(z).expand(len(vectors), *z.shape[1:])
            for part, z, moves in zip(vectors.split(sizes, 1), self.latents, self.moving, strict=True)
        )


@dataclass(frozen=True, kw_only=True)
class Spectrum:
    """Eigenvalues at both ends of a metric's spectrum, by Lanczos iteration.

    Attributes:
        largest: Falling, (k,); never above the true ones but by rounding.
        largest_residuals: `||A v - theta v||`, (k,): some eigenvalue lies within this of the one given.
        smallest: Rising, (k,); never below the true ones but by rounding.
        smallest_residuals: The same for these.
        steps: Iterations, one product each.
        converged: Whether every residual is at most `tolerance` times the largest eigenvalue.
    """

    largest: Tensor
    largest_residuals: Tensor
    smallest: Tensor
    smallest_residuals: Tensor
    steps: int
    converged: bool


def extreme_eigenvalues(
    metric: Product,
    dim: int,
    *,
    number: int = 5,
    tolerance: float = 1e-8,
    max_steps: int = 300,
    generator: torch.Generator,
) -> Spectrum:
    """Return the largest and smallest eigenvalues of `J^T J` by Lanczos iteration with full reorthogonalization.

    The large ones settle after a few dozen steps. The small ones of an ill-conditioned metric settle late, or only with
    `max_steps` = `dim`, which makes everything exact to rounding: look at `converged` and the residuals.

    Args:
        metric: A `PullbackMetric`, or any other product.
        dim: Its size.
        number: Eigenvalues at each end; at most `dim`.
        tolerance: Of the residuals, relative to the largest eigenvalue.
        max_steps: Most iterations; also bounds the memory, one vector each.
        generator: Draws the first vector.

    Raises:
        ValueError: If there are not so many eigenvalues, or steps for them.
    """
    if not 1 <= number <= min(dim, max_steps):
        raise ValueError(f"`number` must be from 1 to {min(dim, max_steps)}, got {number}.")
    limit = min(dim, max_steps)
    start = torch.randn(1, dim, generator=generator, dtype=torch.float64)
    lanczos = _Lanczos(metric, start, limit, generator)
    while True:
        lanczos.step()
        if lanczos.steps < limit and (lanczos.steps < number or lanczos.steps % 5):
            continue
        values, vectors = torch.linalg.eigh(lanczos.tridiagonal()[0])
        residuals = (lanczos.betas[-1] * vectors[-1]).abs()
        scale = values.abs().amax()
        ends = torch.cat([residuals[:number], residuals[-number:]])
        converged = bool((ends <= tolerance * scale).all())
        if converged or lanczos.steps == limit:
            return Spectrum(
                largest=values.flip(0)[:number],
                largest_residuals=residuals.flip(0)[:number],
                smallest=values[:number],
                smallest_residuals=residuals[:number],
                steps=lanczos.steps,
                converged=converged,
            )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A Monte Carlo estimate: `value` and its standard error."""

    value: float
    stderr: float


def trace(metric: PullbackMetric, *, deflated: int = 8, probes: int = 16, generator: torch.Generator) -> Estimate:
    """Estimate the trace of `J^T J`, unbiased, by Hutch++ (Meyer et al. 2021).

    What the metric does within the span of `A S`, S a random sign matrix, is summed exactly; the rest by random probes
    (Hutchinson): `sum ||J q_i||^2 + mean ||J (1 - Q Q^T) v||^2`. Only the span needs products with `J^T`.

    Args:
        metric: The metric.
        deflated: Dimension of the span; 0 for Hutchinson's estimator.
        probes: Random sign vectors for the rest, at least 2.
        generator: Draws both.

    Raises:
        ValueError: If there are too few probes.
    """
    _check_probes(probes)
    deflated = min(deflated, metric.dim)
    span = torch.linalg.qr(metric(_signs(deflated, metric.dim, generator)).T).Q if deflated else None
    exact = 0.0 if span is None else float(metric.push_forward(span.T).square().sum())
    draws = _signs(probes, metric.dim, generator)
    if span is not None:
        draws = draws - (draws @ span) @ span.T
    samples = metric.push_forward(draws).square().sum(1)
    return Estimate(value=exact + float(samples.mean()), stderr=float(samples.std() / math.sqrt(probes)))


@dataclass(frozen=True, kw_only=True)
class LogDeterminant:
    """`log det(J^T J + damping)` in nats.

    Attributes:
        upper: Estimate; in expectation an upper bound, which falls to the truth as `steps` grows to `dim`.
        stderr: Its standard error over probes.
        steps: Lanczos iterations of each probe.
    """

    upper: float
    stderr: float
    steps: int


def log_determinant(
    metric: Product,
    dim: int,
    *,
    damping: float = 0.0,
    steps: int = 50,
    probes: int = 8,
    generator: torch.Generator,
) -> LogDeterminant:
    """Estimate `log det(J^T J + damping)` by stochastic Lanczos quadrature (Ubaru, Chen & Saad 2017).

    Each random sign vector's `v^T log(A + damping) v` is a Gauss quadrature whose nodes are the Ritz values. All even
    derivatives of the logarithm are negative, so the quadrature errs upwards.

    Args:
        metric: A `PullbackMetric`, or any other product.
        dim: Its size.
        damping: Added to all eigenvalues; needed where the metric is singular, as for latents that do nothing.
        steps: Lanczos iterations per probe, at most `dim` are made.
        probes: Random sign vectors, at least 2.
        generator: Draws them.

    Raises:
        ValueError: If there are too few probes, or `damping` is negative.
        RuntimeError: If the metric is singular to rounding and nothing is added.
    """
    _check_probes(probes)
    if damping < 0:
        raise ValueError(f"`damping` must not be negative, got {damping}.")
    lanczos = _Lanczos(metric, _signs(probes, dim, generator), min(steps, dim), generator)
    for _ in range(min(steps, dim)):
        lanczos.step()
    values, vectors = torch.linalg.eigh(lanczos.tridiagonal())  # (probes, steps), (probes, steps, steps)
    weights = vectors[:, 0].square()
    damped = values + damping
    if (damped[weights > 0] <= torch.finfo(damped.dtype).eps * values.amax()).any():
        raise RuntimeError(
            "The metric is singular to rounding, so its log-determinant is minus infinity; add `damping`."
        )
    samples = dim * (weights * damped.clamp(min=torch.finfo(damped.dtype).tiny).log()).sum(1)
    return LogDeterminant(
        upper=float(samples.mean()), stderr=float(samples.std() / math.sqrt(probes)), steps=lanczos.steps
    )


class _Lanczos:
    """Lanczos iterations of several starting vectors at once, in float64, each reorthogonalized twice.

    An invariant subspace ends in an off-diagonal of exactly 0, and a random vector orthogonal to it goes on, so that
    multiple eigenvalues are found as often as they are there.
    """

    def __init__(self, product: Product, start: Tensor, most_steps: int, generator: torch.Generator) -> None:
        self._product, self._generator = product, generator
        self._current = start / start.norm(dim=1, keepdim=True)
        self._basis = start.new_empty(len(start), most_steps, start.shape[1])
        self.alphas: list[Tensor] = []
        self.betas: list[Tensor] = []

    @property
    def steps(self) -> int:
        return len(self.alphas)

    def step(self) -> None:
        """Make one more product with each vector."""
        self._basis[:, self.steps] = self._current
        image = self._product(self._current)
        self.alphas.append((self._current * image).sum(1))
        scale = image.norm(dim=1)
        rest = self._orthogonal(image)
        beta = rest.norm(dim=1)
        ended = beta <= 1e-13 * torch.stack([*self.alphas, scale]).abs().amax(0)
        if ended.any() and self.steps < rest.shape[1]:
            draws = torch.randn(rest.shape, generator=self._generator, dtype=rest.dtype)
            rest = torch.where(ended[:, None], self._orthogonal(draws), rest)
        self.betas.append(torch.where(ended, torch.zeros_like(beta), beta))
        self._current = rest / rest.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rest.dtype).tiny)

    def tridiagonal(self) -> Tensor:
        """Return the projected matrices, (vectors, steps, steps)."""
        matrix = torch.diag_embed(torch.stack(self.alphas, 1))
        if self.steps > 1:
            beside = torch.stack(self.betas[:-1], 1)
            matrix = matrix + torch.diag_embed(beside, 1) + torch.diag_embed(beside, -1)
        return matrix

    def _orthogonal(self, vectors: Tensor) -> Tensor:
        basis = self._basis[:, : self.steps]
        for _ in range(2):
            vectors = vectors - (basis.mT @ (basis @ vectors[:, :, None]))[:, :, 0]
        return vectors


def _signs(number: int, dim: int, generator: torch.Generator) -> Tensor:
    return 2.0 * torch.randint(2, (number, dim), generator=generator).double() - 1.0


def _check_probes(probes: int) -> None:
    if probes < 2:
        raise ValueError(f"`probes` must be at least 2, got {probes}.")
