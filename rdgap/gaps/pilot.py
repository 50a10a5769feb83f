"""A base that reaches as far as the posterior does: pilot chains find the latents that vary together.

A Gaussian with independent latents, fitted to a posterior in which some move together, is as narrow as each is when the
others stand still. Chains that start from it, or have to come back to it, then have many of its widths to walk. A few
long trajectories at the posterior itself show which latents these are: hyper latents, as a rule, that a small image
says little about. What they find is the base of an annealing, never an estimate: any base leaves the bounds bounds.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from .ais import TARGET_ACCEPTANCE, first_step_size, next_step_size
from .hmc import transition
from .path import GaussianPath
from .posterior import Posterior
from .variational import Gaussian

_ROUNDS = 3
_CHAINS = 8
_MOVES = 6
_LEAPFROG_STEPS = 20  # long trajectories go straight ahead; short ones take as many again for each time the distance
_SETTLING_MOVES = 1
_WIDE = 3.0  # times the fitted variance: out of reach for the noise of a pilot over thousands of latents


def widen(posterior: Posterior, base: Gaussian, *, generator: torch.Generator) -> Gaussian:
    """Return the base with a factor for the latents that wander further than its widths.

    Those are given the mean and the covariance that the pilot chains had, in the directions in which it exceeds the
    fitted one; no more of them for each image than half as many as the pilot has points. All others stay as fitted.

    Args:
        posterior: Target.
        base: Diagonal Gaussian fitted to each image.
        generator: Source of all random numbers.

    Raises:
        ValueError: If the base has a factor already.
    """
    if base.factor.shape[-1]:
        raise ValueError(f"`base` must be a diagonal Gaussian, got one with a factor of rank {base.factor.shape[-1]}.")
    wider = base
    for _ in range(_ROUNDS):  # each walks faster, in the coordinates that the one before has found
        points = base.noise_of(wider.at(_pilot(GaussianPath(posterior, wider), generator)))
        means, factors = zip(*(_covariance(of_image) for of_image in points.unbind(1)), strict=True)
        rank = max(factor.shape[1] for factor in factors)
        padded = [torch.nn.functional.pad(factor, (0, rank - factor.shape[1])) for factor in factors]
        wider = replace(base, mean=base.at(torch.stack(means)), factor=torch.stack(padded))
    return wider


def _pilot(path: GaussianPath, generator: torch.Generator) -> Tensor:
    """Return where chains at the posterior came by, (points, images, dim), in widths of the base."""
    state = path.start(_CHAINS, generator)
    step_size = first_step_size(state)
    seen = []
    for _ in range(_MOVES):
        move = transition(
            state, path, beta=1.0, step_size=step_size, leapfrog_steps=_LEAPFROG_STEPS, generator=generator
        )
        state = move.state
        step_size = next_step_size(step_size, move, TARGET_ACCEPTANCE)
        seen.append(state.points)
    return torch.cat(seen[_SETTLING_MOVES:])


def _covariance(points: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean (dim,) and factor (dim, rank) of one image from points (points, dim), in widths of the base."""
    mean, variance = points.mean(0), points.var(0)
    widest = variance.argsort(descending=True)[: len(points) // 2]
    wide = widest[variance[widest] > _WIDE]
    values, vectors = torch.linalg.eigh(points[:, wide].T.cov().reshape(len(wide), len(wide)))
    longer = values > 1
    factor = points.new_zeros(points.shape[1], int(longer.sum()))
    factor[wide] = vectors[:, longer] * (values[longer] - 1).sqrt()
    centre = torch.zeros_like(mean)
    centre[wide] = mean[wide]
    return centre, factor
