"""Paths of densities from one that can be sampled to the posterior: `exp(-A(u) - beta B(u))`, beta rising.

Along such a path `d log Z / d beta = -E_beta[B]`, and this expectation falls as beta rises; annealed importance
sampling and thermodynamic integration need no more. Points `u` are those of the posterior in coordinates in which a
fitted Gaussian is standard normal, so that moves are scaled by the fitted widths and turned along its factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .posterior import Posterior
from .variational import Gaussian


@dataclass(frozen=True, kw_only=True)
class State:
    """Points of several chains with the two energies there, which do not depend on the place along the path.

    Attributes:
        points: (chains, images, dim).
        first: `A`, (chains, images), nats, double precision.
        second: `B`, (chains, images), nats, double precision.
        first_slope: Gradient of `A`, (chains, images, dim).
        second_slope: Gradient of `B`, (chains, images, dim).
    """

    points: Tensor
    first: Tensor
    second: Tensor
    first_slope: Tensor
    second_slope: Tensor

    def energy(self, beta: float) -> Tensor:
        """Return `A + beta B`, (chains, images)."""
        return self.first + beta * self.second

    def slope(self, beta: float) -> Tensor:
        """Return its gradient, (chains, images, dim)."""
        return self.first_slope + beta * self.second_slope

    def where(self, chosen: Tensor, other: State) -> State:
        """Return this state for the chosen chains (chains, images), the other one for the rest."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in self.__dataclass_fields__}
        return State(
            **{
                name: torch.where(chosen[..., None] if own.ndim > chosen.ndim else chosen, own, others)
                for name, (own, others) in pairs.items()
            }
        )


class AnnealingPath(Protocol):
    """What a sampler needs to know of a path."""

    def state(self, points: Tensor) -> State:
        """Evaluate both energies at points (chains, images, dim)."""
        ...

    def slope(self, points: Tensor, beta: float) -> Tensor:
        """Return the gradient of `A + beta B` alone, (chains, images, dim)."""
        ...


class GaussianPath:
    """From a fitted Gaussian at beta 0 to the posterior at beta 1: `base^(1 - beta) exp(-beta U)`."""

    def __init__(self, posterior: Posterior, base: Gaussian) -> None:
        self.posterior, self.base = posterior, base
        self._log_normalizer = 0.5 * base.mean.shape[-1] * math.log(2 * math.pi)

    def start(self, chains: int, generator: torch.Generator) -> State:
        """Draw from the Gaussian.

        Raises:
            RuntimeError: If the energy is not finite there.
        """
        mean = self.base.mean
        noise = torch.randn((chains, *mean.shape), dtype=mean.dtype, device=mean.device, generator=generator)
        state = self.state(noise)
        if not state.second.isfinite().all():
            raise RuntimeError("The energy of samples of the fitted Gaussian must be finite, to anneal from them.")
        return state

    def state(self, points: Tensor) -> State:
        """Evaluate both energies at points (chains, images, dim); the change of coordinates enters the posterior's."""
        there = self.posterior.evaluate(self.base.at(points))
        own = half_square(points) + self._log_normalizer
        slope = self.base.pulled_back(there.rate_slope + there.distortion_slope)
        return State(
            points=points,
            first=own,
            second=there.rate_nats + there.distortion_nats - self.base.log_volume - own,
            first_slope=points,
            second_slope=slope - points,
        )

    def slope(self, points: Tensor, beta: float) -> Tensor:
        """Return the gradient of the energy, (chains, images, dim)."""
        rate_slope, distortion_slope = self.posterior.slopes(self.base.at(points))
        return (1 - beta) * points + beta * self.base.pulled_back(rate_slope + distortion_slope)


class LmbdaPath:
    """Through the posteriors of smaller lmbdas, `p(z) exp(-beta kappa SSE)` at `beta lmbda` (Huang et al. 2020)."""

    def __init__(self, posterior: Posterior, base: Gaussian) -> None:
        self.posterior, self.base = posterior, base

    def state(self, points: Tensor) -> State:
        """Evaluate rate and distortion at points (chains, images, dim) of the Gaussian's coordinates."""
        there = self.posterior.evaluate(self.base.at(points))
        return State(
            points=points,
            first=there.rate_nats - self.base.log_volume,
            second=there.distortion_nats,
            first_slope=self.base.pulled_back(there.rate_slope),
            second_slope=self.base.pulled_back(there.distortion_slope),
        )

    def slope(self, points: Tensor, beta: float) -> Tensor:
        """Return the gradient of the energy, (chains, images, dim)."""
        rate_slope, distortion_slope = self.posterior.slopes(self.base.at(points))
        return self.base.pulled_back(rate_slope + beta * distortion_slope)


def half_square(points: Tensor) -> Tensor:
    """Return half the squared norm of each row in double precision: the energy of a standard normal, no constant."""
    return 0.5 * points.double().square().sum(-1)
