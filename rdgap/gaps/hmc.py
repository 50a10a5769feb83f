"""Hamiltonian Monte Carlo on the path between a standard normal and a target (Neal 2011)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_JITTER = 0.2  # relative; without it the trajectories of a Gaussian may close upon themselves


@dataclass(frozen=True, kw_only=True)
class State:
    """Points of several chains and the target's energy there; neither depends on the place along the path.

    Attributes:
        points: (chains, images, dim).
        energy: `-log target`, (chains, images), double precision.
        gradient: Its gradient, (chains, images, dim).
    """

    points: Tensor
    energy: Tensor
    gradient: Tensor


def half_square(points: Tensor) -> Tensor:
    """Return half the squared norm of each row in double precision: the energy of a standard normal, no constant."""
    return 0.5 * points.double().square().sum(-1)


def transition(
    state: State,
    target: Callable[[Tensor], State],
    *,
    beta: float,
    step_size: Tensor,
    leapfrog_steps: int,
    generator: torch.Generator,
) -> tuple[State, Tensor]:
    """Move each chain once, leaving `normal^(1 - beta) target^beta` invariant.

    Args:
        state: Where the chains are.
        target: Evaluates the target at points (chains, images, dim).
        beta: Place along the path, 0 to 1.
        step_size: Of the leapfrog integrator, (images,).
        leapfrog_steps: Number of its steps.
        generator: Source of momenta, jitter and acceptance.

    Returns:
        The new state and the probability with which each move was accepted, (chains, images). A proposal whose
        energy is not finite is never accepted.
    """

    def force(at: State) -> Tensor:
        return -((1 - beta) * at.points + beta * at.gradient)

    def hamiltonian(at: State, momentum: Tensor) -> Tensor:
        return (1 - beta) * half_square(at.points) + beta * at.energy + half_square(momentum)

    points = state.points
    draw = {"dtype": points.dtype, "device": points.device, "generator": generator}
    jitter = 1 + _JITTER * (2 * torch.rand(points.shape[:-1], **draw) - 1)
    step = (step_size.to(points.dtype) * jitter)[..., None]
    start = torch.randn(points.shape, **draw)

    proposal = state
    momentum = start + 0.5 * step * force(state)
    for remaining in range(leapfrog_steps, 0, -1):
        proposal = target(proposal.points + step * momentum)
        momentum = momentum + (step if remaining > 1 else 0.5 * step) * force(proposal)

    gain = hamiltonian(state, start) - hamiltonian(proposal, momentum)
    probability = torch.where(gain.isfinite(), gain.clamp(max=0).exp(), 0.0)
    accepted = torch.rand(points.shape[:-1], **draw) < probability
    moved = State(
        points=torch.where(accepted[..., None], proposal.points, points),
        energy=torch.where(accepted, proposal.energy, state.energy),
        gradient=torch.where(accepted[..., None], proposal.gradient, state.gradient),
    )
    return moved, probability
