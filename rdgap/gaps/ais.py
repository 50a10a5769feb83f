"""Annealed importance sampling of `log Gamma` (Neal 2001), forward and in reverse, with HMC transitions.

Forward, from a fitted Gaussian to the posterior: the average of the weights over chains is an unbiased estimate of
`Gamma`, so that `-log` of it bounds `-log Gamma` from *above* in expectation. In reverse, from an exact sample of the
posterior, the average of the inverse weights is an unbiased estimate of `1 / Gamma`, and its logarithm bounds
`-log Gamma` from *below* in expectation. More temperatures and more chains tighten both.

The same chains give thermodynamic integration: `-log Gamma` is the integral of `E_beta[B]` over the path, which falls
as beta rises. Its left Riemann sum lies above and its right sum below, where the chains are in equilibrium.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from .hmc import Move, transition
from .path import AnnealingPath, GaussianPath, State
from .posterior import Posterior
from .variational import Gaussian

_STEEPNESS = 2.0  # of the sigmoid schedule: small steps near both ends
_ADAPTATION_RATE = 0.3
LEAPFROG_STEPS = 5
TARGET_ACCEPTANCE = 0.7


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """How the chains move: tuned in a first round, frozen while weighing, because adapting then would spoil the bound.

    Attributes:
        betas: Places along the path, rising.
        step_sizes: Of the moves at `betas[1:]`, (number of betas - 1, images), in the coordinates of the path, whose
            fitted widths are the mass.
        leapfrog_steps: Per move.
    """

    betas: tuple[float, ...]
    step_sizes: Tensor
    leapfrog_steps: int


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What chains saw on their way along a path.

    Attributes:
        state: Where they ended.
        slopes_nats: `B` of each chain at each beta, betas rising, (betas, chains, images), double precision.
        acceptance: Mean acceptance probability of the moves, (images,).
        divergent_share: Share of proposals whose energy was not finite or jumped by 1000 nats, (images,). They are
            rejected, which keeps the bounds; many of them mean chains that do not move.
    """

    state: State
    slopes_nats: Tensor
    acceptance: Tensor
    divergent_share: Tensor


@dataclass(frozen=True, kw_only=True)
class AnnealedEstimate:
    """Estimates of `-log Gamma` of each image from chains that walked from the base to the posterior.

    Attributes:
        upper_sums_nats: Left Riemann sum of each chain, (chains, images), double precision. Its negative is the chain's
            log weight, `E[exp(-.)] = Gamma`.
        lower_sums_nats: Right Riemann sum of each chain, (chains, images).
        acceptance: Mean acceptance probability of the HMC moves while weighing, (images,).
        divergent_share: Share of divergent proposals, (images,); see `Walk`.
        kernel: How the chains moved.
        state: Where the chains ended.
    """

    upper_sums_nats: Tensor
    lower_sums_nats: Tensor
    acceptance: Tensor
    divergent_share: Tensor
    kernel: Kernel
    state: State

    @property
    def neg_log_gamma_upper_nats(self) -> Tensor:
        """`-log mean exp` over the chains' log weights, (images,): in expectation an upper bound of `-log Gamma`."""
        return -log_mean_exp(-self.upper_sums_nats)

    @property
    def stderr_nats(self) -> Tensor:
        """Jackknife standard error of the upper bound over the chains, (images,)."""
        return jackknife_stderr(-self.upper_sums_nats)

    @property
    def effective_chains(self) -> Tensor:
        """Effective sample size of the weights, (images,), from 1 to the number of chains."""
        return 1 / (-self.upper_sums_nats).softmax(0).square().sum(0)

    @property
    def thermodynamic_upper_nats(self) -> Tensor:
        """Thermodynamic integration by left sums, (images,): an upper bound even out of equilibrium, in expectation."""
        return self.upper_sums_nats.mean(0)

    @property
    def thermodynamic_lower_nats(self) -> Tensor:
        """Thermodynamic integration by right sums, (images,): a lower bound as far as the chains are in equilibrium."""
        return self.lower_sums_nats.mean(0)


def anneal(
    posterior: Posterior,
    base: Gaussian,
    *,
    chains: int,
    temperatures: int,
    generator: torch.Generator,
    leapfrog_steps: int = LEAPFROG_STEPS,
    target_acceptance: float = TARGET_ACCEPTANCE,
) -> AnnealedEstimate:
    """Estimate `log Gamma` by annealing from `base` to the posterior along `base^(1 - beta) exp(-beta U)`.

    Two rounds: in the first a few chains tune the step size of each temperature and image; in the second all chains
    run with the frozen kernel and are weighed.

    Args:
        posterior: Target.
        base: Fitted Gaussian of each image.
        chains: Independent chains for each image, at least 2.
        temperatures: Steps along the path, with a HMC move after each.
        generator: Source of all random numbers.
        leapfrog_steps: Per HMC move.
        target_acceptance: Mean acceptance probability that the step sizes are tuned for.

    Raises:
        RuntimeError: If the energy is not finite where the base distribution puts its samples.
    """
    path = GaussianPath(posterior, base)
    kernel = tune(
        path,
        path.start(max(2, chains // 4), generator),
        sigmoid_schedule(temperatures),
        leapfrog_steps=leapfrog_steps,
        target_acceptance=target_acceptance,
        generator=generator,
    )
    walk = walk_up(path, path.start(chains, generator), kernel, generator)
    return AnnealedEstimate(
        upper_sums_nats=left_sums(walk, kernel)[-1],
        lower_sums_nats=right_sum(walk, kernel),
        acceptance=walk.acceptance,
        divergent_share=walk.divergent_share,
        kernel=kernel,
        state=walk.state,
    )


def anneal_from_each(
    posterior: Posterior,
    bases: Sequence[Gaussian],
    *,
    chains: int,
    temperatures: int,
    generator: torch.Generator,
    leapfrog_steps: int = LEAPFROG_STEPS,
    target_acceptance: float = TARGET_ACCEPTANCE,
) -> AnnealedEstimate:
    """Estimate `log Gamma` as `anneal`, with equal shares of the chains from each of several bases.

    Every weight is an unbiased estimate of `Gamma`, wherever its chain began, and so is their mean: a base that suits
    an image badly costs no more than its share of the chains, log 2 nats if it is one of two.

    Args:
        posterior: Target.
        bases: Fitted Gaussians of each image; of a number of chains that is no multiple, the first have one more.
        chains: Of all bases together.
        temperatures: As for `anneal`, like the rest.
        generator: Source of all random numbers.
        leapfrog_steps: Per HMC move.
        target_acceptance: Mean acceptance probability that the step sizes are tuned for.

    Returns:
        Estimate with `chains` sums for each image, bases in turn; `kernel` and `state` are those of all images from
        the first base, then all from the next.

    Raises:
        RuntimeError: If the energy is not finite where a base puts its samples.
    """
    number, rank = len(bases), max(base.factor.shape[-1] for base in bases)
    factors = [torch.nn.functional.pad(base.factor, (0, rank - base.factor.shape[-1])) for base in bases]
    stacked = Gaussian(
        mean=torch.cat([base.mean for base in bases]),
        log_std=torch.cat([base.log_std for base in bases]),
        factor=torch.cat(factors),
    )
    estimate = anneal(
        posterior.repeated(number),
        stacked,
        chains=-(-chains // number),
        temperatures=temperatures,
        generator=generator,
        leapfrog_steps=leapfrog_steps,
        target_acceptance=target_acceptance,
    )

    def by_image(sums: Tensor) -> Tensor:
        return sums.unflatten(1, (number, -1)).flatten(0, 1)[:chains]

    return replace(
        estimate,
        upper_sums_nats=by_image(estimate.upper_sums_nats),
        lower_sums_nats=by_image(estimate.lower_sums_nats),
        acceptance=estimate.acceptance.unflatten(0, (number, -1)).mean(0),
        divergent_share=estimate.divergent_share.unflatten(0, (number, -1)).mean(0),
    )


def tune(
    path: AnnealingPath,
    state: State,
    betas: Sequence[float],
    *,
    leapfrog_steps: int,
    target_acceptance: float,
    generator: torch.Generator,
) -> Kernel:
    """Walk along the path once and find step sizes that are accepted as often as asked."""
    step_size, step_sizes = first_step_size(state), []
    for beta in tqdm(betas[1:], desc="step sizes", leave=False, disable=None):
        move = transition(
            state, path, beta=beta, step_size=step_size, leapfrog_steps=leapfrog_steps, generator=generator
        )
        state = move.state
        step_size = next_step_size(step_size, move, target_acceptance)
        step_sizes.append(step_size)
    return Kernel(betas=tuple(betas), step_sizes=torch.stack(step_sizes), leapfrog_steps=leapfrog_steps)


def first_step_size(state: State) -> Tensor:
    """Return where tuning starts, (images,): what suits a standard normal of as many latents."""
    _, images, dim = state.points.shape
    return torch.full((images,), dim**-0.25, dtype=torch.double, device=state.points.device)


def next_step_size(step_size: Tensor, move: Move, target_acceptance: float) -> Tensor:
    """Return the step size, (images,), to try after a move: longer if it was accepted more often than asked."""
    return step_size * (_ADAPTATION_RATE * (move.probability.mean(0) - target_acceptance)).exp()


def walk_up(path: AnnealingPath, state: State, kernel: Kernel, generator: torch.Generator) -> Walk:
    """Let chains in equilibrium at the first beta walk to the last, with a move at each but the first."""
    walk = _walk(path, state, kernel, range(1, len(kernel.betas)), generator)
    return replace(walk, slopes_nats=torch.cat([state.second[None], walk.slopes_nats]))


def walk_down(path: AnnealingPath, state: State, kernel: Kernel, generator: torch.Generator, *, moves: int) -> Walk:
    """Let chains in equilibrium at the last beta walk to the first.

    There are `moves` at each beta but the first, those at the last before its slope is taken: they part chains that
    begin at one point. Each is of half the step size of the one before. Step sizes are those of chains that walked up;
    where an exact sample lies the density may be so narrow that all of these are refused, and finding out which would
    be accepted there is no way: a kernel that depends on the sample spoils the bound.
    """
    walk = _walk(path, state, kernel, range(len(kernel.betas) - 1, 0, -1), generator, moves=moves)
    return replace(walk, slopes_nats=walk.slopes_nats.flip(0))


def _walk(
    path: AnnealingPath, state: State, kernel: Kernel, stations: range, generator: torch.Generator, *, moves: int = 1
) -> Walk:
    slopes, probabilities, divergences = [], [], []
    for station in tqdm(stations, desc="annealing", leave=False, disable=None):
        for halvings in range(moves):
            move = transition(
                state,
                path,
                beta=kernel.betas[station],
                step_size=kernel.step_sizes[station - 1] / 2**halvings,
                leapfrog_steps=kernel.leapfrog_steps,
                generator=generator,
            )
            state = move.state
            probabilities.append(move.probability.mean(0))
            divergences.append(move.diverged.double().mean(0))
        slopes.append(state.second)
    return Walk(
        state=state,
        slopes_nats=torch.stack(slopes),
        acceptance=torch.stack(probabilities).mean(0),
        divergent_share=torch.stack(divergences).mean(0),
    )


def left_sums(walk: Walk, kernel: Kernel) -> Tensor:
    """Return `INT E_beta[B] d beta` up to each beta but the first by left sums, (betas - 1, chains, images).

    For chains that walked up the last one is minus their log weights, and in expectation an upper bound of
    `-log Z_1 / Z_0`.
    """
    return torch.cumsum(_widths(kernel, walk) * walk.slopes_nats[:-1], 0)


def right_sum(walk: Walk, kernel: Kernel) -> Tensor:
    """Return `INT E_beta[B] d beta` by the right sum, (chains, images).

    For chains that walked down it is minus their log weights (read from the base to the posterior), and in
    expectation a lower bound of `-log Z_1 / Z_0`.
    """
    return (_widths(kernel, walk) * walk.slopes_nats[-len(kernel.betas) + 1 :]).sum(0)


def _widths(kernel: Kernel, walk: Walk) -> Tensor:
    return torch.tensor(kernel.betas, dtype=torch.double, device=walk.slopes_nats.device).diff()[:, None, None]


def sigmoid_schedule(temperatures: int) -> list[float]:
    """Return `temperatures + 1` numbers that rise from 0 to 1, closest to each other at both ends."""
    ramp = torch.linspace(-_STEEPNESS, _STEEPNESS, temperatures + 1, dtype=torch.double).sigmoid()
    return ((ramp - ramp[0]) / (ramp[-1] - ramp[0])).tolist()


def log_mean_exp(log_weights: Tensor) -> Tensor:
    """Return `log mean exp` over the first dimension."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def jackknife_stderr(log_weights: Tensor) -> Tensor:
    """Return the jackknife standard error of `log mean exp` over the first dimension.

    Unlike the delta method it does not saturate at one nat when a single chain carries all the weight.
    """
    number, nothing = len(log_weights), torch.full_like(log_weights[:1], -math.inf)
    before = torch.cat([nothing, log_weights.logcumsumexp(0)[:-1]])
    after = torch.cat([log_weights.flip(0).logcumsumexp(0).flip(0)[1:], nothing])
    return ((number - 1) * torch.logaddexp(before, after).var(0, correction=0)).sqrt()
