"""Hamiltonian Monte Carlo at one place of a path of densities (Neal 2011)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .path import AnnealingPath, State, half_square

_JITTER = 0.2  # relative; without it the trajectories of a Gaussian may close upon themselves
_DIVERGENCE_NATS = 1000.0  # an integrator that gains so much energy has left the trajectory


@dataclass(frozen=True, kw_only=True)
class Move:
    """One move of every chain.

    Attributes:
        state: Where the chains are now.
        probability: With which each proposal was accepted, (chains, images).
        diverged: Whether the proposal's energy was not finite or higher by more than 1000 nats, (chains, images); such
            a proposal is never accepted.
    """

    state: State
    probability: Tensor
    diverged: Tensor


def transition(
    state: State,
    path: AnnealingPath,
    *,
    beta: float,
    step_size: Tensor,
    leapfrog_steps: int,
    generator: torch.Generator,
) -> Move:
    """Move each chain once, leaving `exp(-A - beta B)` invariant.

    Args:
        state: Where the chains are.
        path: Gives the energies; the slope that it gives may be rounded, as long as it depends on the point alone.
        beta: Place along the path.
        step_size: Of the leapfrog integrator, (images,).
        leapfrog_steps: Number of its steps.
        generator: Source of momenta, jitter and acceptance.
    """
    points = state.points
    draw = {"dtype": points.dtype, "device": points.device, "generator": generator}
    jitter = 1 + _JITTER * (2 * torch.rand(points.shape[:-1], **draw) - 1)
    step = (step_size.to(points.dtype) * jitter)[..., None]
    start = torch.randn(points.shape, **draw)

    lost = torch.zeros(points.shape[:-1], dtype=torch.bool, device=points.device)

    def advanced(points: Tensor) -> Tensor:
        """Move on, but back to where chains came from whose points are not finite: codecs may refuse such numbers."""
        nonlocal lost
        onward = points + step * momentum
        lost = lost | ~onward.isfinite().all(-1)
        return torch.where(lost[..., None], state.points, onward)

    momentum = start - 0.5 * step * state.slope(beta)
    for _ in range(leapfrog_steps - 1):
        points = advanced(points)
        momentum = momentum - step * path.slope(points, beta)
    proposal = path.state(advanced(points))
    momentum = momentum - 0.5 * step * proposal.slope(beta)

    gain = state.energy(beta) + half_square(start) - proposal.energy(beta) - half_square(momentum)
    diverged = lost | ~(gain > -_DIVERGENCE_NATS) | ~gain.isfinite()
    probability = torch.where(diverged, 0.0, gain.clamp(max=0).exp())
    accepted = torch.rand(probability.shape, **draw) < probability
    return Move(state=proposal.where(accepted, state), probability=probability, diverged=diverged)
