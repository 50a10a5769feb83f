"""Annealed importance sampling of `log Gamma` (Neal 2001) from a fitted Gaussian, with HMC transitions.

The average of the weights over chains is an unbiased estimate of `Gamma`; its logarithm is, in expectation, a *lower*
bound of `log Gamma`, and `-log Gamma` is bounded from above. More temperatures and more chains tighten it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from tqdm import tqdm

from .hmc import State, half_square, transition
from .posterior import Posterior
from .variational import Gaussian

_STEEPNESS = 2.0  # of the sigmoid schedule: small steps near both ends
_TARGET_ACCEPTANCE = 0.7
_ADAPTATION_RATE = 0.3


@dataclass(frozen=True, kw_only=True)
class AnnealedEstimate:
    """Estimate of `log Gamma` of each image from independent annealed chains.

    Attributes:
        log_weights_nats: Of each chain, (chains, images), double precision; `E[exp(.)] = Gamma`.
        acceptance: Mean acceptance probability of the HMC moves while weighing, (images,).
        temperatures: Number of steps along the path.
    """

    log_weights_nats: Tensor
    acceptance: Tensor
    temperatures: int

    @property
    def neg_log_gamma_upper_nats(self) -> Tensor:
        """`-log mean exp` over the chains, (images,): in expectation an upper bound of `-log Gamma`."""
        return -_log_mean_exp(self.log_weights_nats)

    @property
    def stderr_nats(self) -> Tensor:
        """Jackknife standard error over the chains, (images,).

        Unlike the delta method it does not saturate at one nat when a single chain carries all the weight.
        """
        log_weights = self.log_weights_nats
        chains, nothing = len(log_weights), torch.full_like(log_weights[:1], -math.inf)
        before = torch.cat([nothing, log_weights.logcumsumexp(0)[:-1]])
        after = torch.cat([log_weights.flip(0).logcumsumexp(0).flip(0)[1:], nothing])
        return ((chains - 1) * torch.logaddexp(before, after).var(0, correction=0)).sqrt()

    @property
    def effective_chains(self) -> Tensor:
        """Effective sample size of the weights, (images,), from 1 to the number of chains."""
        shares = self.log_weights_nats.softmax(0)
        return 1 / shares.square().sum(0)


def anneal(
    posterior: Posterior,
    base: Gaussian,
    *,
    chains: int,
    temperatures: int,
    generator: torch.Generator,
    leapfrog_steps: int = 5,
) -> AnnealedEstimate:
    """Estimate `log Gamma` by annealing from `base` to the posterior along `base^(1 - beta) exp(-beta U)`.

    Works in the coordinates in which `base` is standard normal, so that HMC moves are scaled by the fitted widths.
    Two rounds: in the first a few chains adapt the step size of each temperature and image; in the second all chains
    run with the frozen step sizes and are weighed. Adapting while weighing would spoil the bound.

    Args:
        posterior: Target.
        base: Fitted Gaussian of each image.
        chains: Independent chains for each image, at least 2.
        temperatures: Steps along the path, with a HMC move between any two.
        generator: Source of all random numbers.
        leapfrog_steps: Per HMC move.

    Raises:
        RuntimeError: If the energy is not finite where the base distribution puts its samples.
    """
    target = _whitened(posterior, base)
    betas = sigmoid_schedule(temperatures)
    size = (len(base.mean), base.mean.shape[-1])

    def start(number: int) -> State:
        return target(torch.randn((number, *size), dtype=base.mean.dtype, device=base.mean.device, generator=generator))

    def move(state: State, beta: float, step_size: Tensor) -> tuple[State, Tensor]:
        return transition(
            state, target, beta=beta, step_size=step_size, leapfrog_steps=leapfrog_steps, generator=generator
        )

    state = start(max(1, chains // 4))
    step_size = torch.full(size[:1], size[1] ** -0.25, dtype=torch.double, device=base.mean.device)
    step_sizes = []
    for beta in tqdm(betas[1:-1], desc="step sizes", leave=False, disable=None):
        state, probability = move(state, beta, step_size)
        step_size = step_size * (_ADAPTATION_RATE * (probability.mean(0) - _TARGET_ACCEPTANCE)).exp()
        step_sizes.append(step_size)

    state = start(chains)
    if not state.energy.isfinite().all():
        raise RuntimeError("The energy of samples of the fitted Gaussian must be finite, to anneal from them.")
    log_weights = torch.zeros_like(state.energy)
    acceptance = torch.zeros_like(step_size)
    for index, (beta, next_beta) in enumerate(pairwise(tqdm(betas, desc="annealing", leave=False, disable=None))):
        if index > 0:
            state, probability = move(state, beta, step_sizes[index - 1])
            acceptance += probability.mean(0) / len(step_sizes)
        log_base = -half_square(state.points) - 0.5 * size[1] * math.log(2 * math.pi)
        log_weights = log_weights + (next_beta - beta) * (-state.energy - log_base)
    return AnnealedEstimate(log_weights_nats=log_weights, acceptance=acceptance, temperatures=temperatures)


def sigmoid_schedule(temperatures: int) -> list[float]:
    """Return `temperatures + 1` numbers that rise from 0 to 1, closest to each other at both ends."""
    ramp = torch.linspace(-_STEEPNESS, _STEEPNESS, temperatures + 1, dtype=torch.double).sigmoid()
    return ((ramp - ramp[0]) / (ramp[-1] - ramp[0])).tolist()


def _whitened(posterior: Posterior, base: Gaussian) -> Callable[[Tensor], State]:
    """Return the target in the coordinates `(z - mean) / std`; the Jacobian enters the energy."""
    std, log_volume = base.log_std.exp(), base.log_std.double().sum(-1)

    def target(points: Tensor) -> State:
        energy, gradient = posterior.energy_and_gradient(base.at(points))
        return State(points=points, energy=energy - log_volume, gradient=std * gradient)

    return target


def _log_mean_exp(log_weights: Tensor) -> Tensor:
    return log_weights.logsumexp(0) - math.log(len(log_weights))
