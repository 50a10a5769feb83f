"""What a source is: samples, what their reproductions cost, and what is known of its rate-distortion function.

Rates are in nats and distortions per sample, in a unit that each source names. `F(lmbda) = inf I(X;Y) + lmbda E rho` is
what every estimator aims at; `R(D)` is its transform `sup F(lmbda) - lmbda D`.

For `rho = w |x - y|^2` in n dimensions `exp(-lmbda rho)` is a Gaussian of variance `s2 = 1 / (2 lmbda w)`, and

    h(X) - n/2 log(2 pi s2)  <=  F(lmbda)  <=  F of the Gaussian with the covariance of X

(Shannon's lower bound, and the Gaussian's being the hardest source of its covariance).
"""

from __future__ import annotations

import csv
import math
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from scipy import optimize
from torch import Tensor

from ..objective import check_lmbda
from .estimate import Estimate
from .water_filling import water_filling


class Source(ABC):
    """A random variable, what a reproduction of it costs, and what is known of the two.

    Attributes:
        name: As the command knows it.
        distortion_unit: What a distortion of 1 is.
        entropy_nats: Entropy of a discrete source, differential entropy of others; NaN where unknown.
    """

    name: str
    distortion_unit: str
    entropy_nats: float = math.nan

    def point(self, lmbda: float) -> Estimate | None:
        """Return the exact point of the R-D function, or None where it is not known."""
        return None

    @abstractmethod
    def bounds(self, lmbda: float) -> tuple[float, float]:
        """Return known bounds of `F(lmbda)` in nats, equal where it is known; 0 and infinity hold always."""

    def rate_nats(self, distortion: float) -> float:
        """Return `R(D) = sup_lmbda F(lmbda) - lmbda D` in nats, a lower bound of it where only bounds of `F` are known.

        Raises:
            ValueError: If the distortion is not positive.
        """
        if not distortion > 0:
            raise ValueError(f"`distortion` must be positive, got {distortion}.")

        def negative(log_lmbda: float) -> float:
            lmbda = math.exp(log_lmbda)
            return lmbda * distortion - self.bounds(lmbda)[0]

        grid = np.linspace(-30, 30, 121) - math.log(distortion)
        best = grid[int(np.argmin([negative(each) for each in grid]))]
        found = optimize.minimize_scalar(negative, bounds=(best - 0.5, best + 0.5), method="bounded")
        return max(0.0, -float(found.fun))

    def _exact(self, lmbda: float, rate_nats: float, distortion: float) -> Estimate:
        return Estimate(
            method="closed form",
            side="exact",
            lmbda=lmbda,
            f_nats=rate_nats + lmbda * distortion,
            rate_nats=rate_nats,
            distortion=distortion,
        )


class DiscreteSource(Source):
    """A finite alphabet with a table of distortions.

    Args:
        probabilities: (symbols,), not negative, of sum 1.
        distortions: (symbols, reproductions), not negative.
        name: Of the source.
        unit: Of the distortion.

    Raises:
        ValueError: If the tables are no probabilities and distortions of the same symbols.
    """

    def __init__(
        self, probabilities: Tensor, distortions: Tensor, *, name: str = "discrete", unit: str = "table"
    ) -> None:
        if probabilities.ndim != 1 or distortions.ndim != 2 or len(distortions) != len(probabilities):
            raise ValueError(
                "`distortions` must be (symbols, reproductions) for `probabilities` of (symbols,), "
                f"got {tuple(distortions.shape)} for {tuple(probabilities.shape)}."
            )
        total = float(probabilities.sum())
        if not (bool((probabilities >= 0).all()) and abs(total - 1) < 1e-9):
            raise ValueError(f"`probabilities` must be at least 0 and sum to 1, got a sum of {total}.")
        if not bool((distortions.isfinite() & (distortions >= 0)).all()):
            raise ValueError("`distortions` must be finite and at least 0, got others.")
        self.probabilities, self.table = probabilities.double(), distortions.double()
        self.name, self.distortion_unit = name, unit
        self.entropy_nats = float(torch.special.entr(self.probabilities).sum())

    @staticmethod
    def read(path: Path) -> DiscreteSource:
        """Read a CSV file without header: a row per symbol, its probability, then the distortion of each reproduction.

        Raises:
            ValueError: If it is no such table.
        """
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows = [[float(entry) for entry in row] for row in csv.reader(file) if row]
            table = torch.tensor(rows, dtype=torch.double)
        except ValueError as error:
            raise ValueError(f"{path}: must hold rows of numbers, as many in each: {error}") from None
        if table.ndim != 2 or table.shape[1] < 2:
            raise ValueError(f"{path}: each row must hold a probability and distortions, got {tuple(table.shape)}.")
        try:
            return DiscreteSource(table[:, 0], table[:, 1:], name=path.stem)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Draw symbols, (number,)."""
        return torch.multinomial(self.probabilities, number, replacement=True, generator=generator)

    def bounds(self, lmbda: float) -> tuple[float, float]:
        """Return `F` between 0 and what the best single reproduction or a lossless description costs."""
        single = lmbda * float((self.probabilities @ self.table).min())
        exact = self.entropy_nats + lmbda * float(self.probabilities @ self.table.min(1).values)
        return 0.0, min(single, exact)


class VectorSource(Source):
    """A source of vectors under `rho(x, y) = weight * |x - y|^2`; reproductions are any vectors.

    Attributes:
        dim: Numbers in a sample.
        weight: Of the squared error.
        variances: Eigenvalues of the covariance, (rank,) where the others are 0; None where unknown.
    """

    dim: int
    weight: float = 1.0
    distortion_unit = "SSE"
    variances: Tensor | None = None

    @abstractmethod
    def sample(self, number: int, generator: torch.Generator) -> Tensor:
        """Draw (number, dim), double precision."""

    def distortions(self, x: Tensor, y: Tensor) -> Tensor:
        """Return `rho` of each x (n, dim) and y (m, dim), (n, m)."""
        squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
        return self.weight * squares.clamp(min=0)

    def noise_variance(self, lmbda: float) -> float:
        """Return `s2` of the Gaussian `exp(-lmbda rho)`."""
        check_lmbda(lmbda)
        return 0.5 / (lmbda * self.weight)

    def quadrature(self, size: int) -> tuple[Tensor, Tensor] | None:
        """Return nodes (n, dim) and probabilities (n,) that stand for the source, or None beyond two dimensions.

        Args:
            size: Nodes along each of its one or two coordinates.
        """
        return None

    @property
    def intrinsic_dim(self) -> int:
        """Dimension of the subspace that samples fill, in which `entropy_nats` counts."""
        return self.dim if self.variances is None else len(self.variances)

    def bounds(self, lmbda: float) -> tuple[float, float]:
        """Return Shannon's lower bound and the Gaussian upper bound, in nats."""
        lower, upper = 0.0, math.inf
        if math.isfinite(self.entropy_nats):
            volume = 0.5 * self.intrinsic_dim * math.log(2 * math.pi * self.noise_variance(lmbda))
            lower = max(0.0, self.entropy_nats - volume)
        if self.variances is not None:
            rate, distortion = water_filling(self.variances, self.noise_variance(lmbda))
            upper = rate + lmbda * self.weight * distortion
        exact = self.point(lmbda)
        return (lower, upper) if exact is None else (exact.f_nats, exact.f_nats)
