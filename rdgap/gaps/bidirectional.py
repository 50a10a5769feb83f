"""Bidirectional Monte Carlo (Grosse et al. 2015): how far annealing is from `log Gamma` where both sides are known.

Images are simulated from the model itself, latents from the prior and pixels from the Gaussian whose negative
log-density is `kappa SSE`. The latents that an image was made from are then an exact sample of its posterior, from
which chains walk back to the base: their weights bound `-log Gamma` from below, as forward weights do from above.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import Codec, GenerativeCodec, Latents
from ..objective import likelihood_sigma, reconstruct
from .ais import (
    LEAPFROG_STEPS,
    TARGET_ACCEPTANCE,
    AnnealedEstimate,
    anneal,
    jackknife_stderr,
    log_mean_exp,
    right_sum,
    walk_down,
)
from .path import GaussianPath
from .pilot import widen
from .posterior import Posterior, flatten
from .variational import Gaussian, fit_gaussian

REVERSE_MOVES = 5  # at each temperature, the last with a sixteenth of the step size that suits chains walking up


@dataclass(frozen=True, kw_only=True)
class BidirectionalEstimate:
    """Both sides of `-log Gamma` of simulated images.

    Attributes:
        forward: Chains from the base to the posterior.
        lower_sums_nats: Right Riemann sum of each reverse chain, (chains, images), double precision; its negative is
            the chain's log weight, read forward, and `E[exp(.)] = 1 / Gamma`.
        reverse_acceptance: Mean acceptance probability of the reverse moves, (images,).
    """

    forward: AnnealedEstimate
    lower_sums_nats: Tensor
    reverse_acceptance: Tensor

    @property
    def neg_log_gamma_upper_nats(self) -> Tensor:
        """Upper bound in expectation, (images,)."""
        return self.forward.neg_log_gamma_upper_nats

    @property
    def neg_log_gamma_lower_nats(self) -> Tensor:
        """Lower bound in expectation, (images,)."""
        return log_mean_exp(self.lower_sums_nats)

    @property
    def gap_nats(self) -> Tensor:
        """Upper less lower bound, (images,): in expectation at least the error of either."""
        return self.neg_log_gamma_upper_nats - self.neg_log_gamma_lower_nats

    @property
    def gap_stderr_nats(self) -> Tensor:
        """Jackknife standard error of the gap over the chains, (images,)."""
        return torch.hypot(self.forward.stderr_nats, jackknife_stderr(self.lower_sums_nats))


def both_sides(
    model: Codec,
    images: Tensor,
    lmbda: float,
    *,
    generator: torch.Generator,
    chains: int,
    temperatures: int,
    leapfrog_steps: int = LEAPFROG_STEPS,
    target_acceptance: float = TARGET_ACCEPTANCE,
    fit_steps: int,
    batch: int,
    bf16: bool = False,
) -> BidirectionalEstimate:
    """Bound `-log Gamma` from both sides, for images drawn from the model, in the very way of `decompose`.

    The gap between the bounds says what `decompose` may be wrong by with the same settings, as far as images drawn from
    the model are like the real ones.

    Args:
        model: A codec whose prior can be sampled.
        images: (images, channels, height, width); only their number and size matter.
        lmbda: Weight of the MSE (0..255 scale) in bits per pixel.
        generator: Source of all random numbers.
        chains: As in `decompose`, and so are the others.
        temperatures: Steps along the path.
        leapfrog_steps: Per HMC move.
        target_acceptance: Of HMC.
        fit_steps: Of the Gaussian.
        batch: Most latents that are decoded at a time.
        bf16: Let fits and HMC follow slopes in bfloat16.

    Raises:
        ValueError: If the codec has no `sample_prior`.
        RuntimeError: If an estimate is not finite.
    """
    simulated, latents = simulate(model, images, lmbda, generator)
    posterior = Posterior(model, simulated, lmbda, batch=batch, bf16=bf16)
    base = widen(posterior, fit_gaussian(posterior, steps=fit_steps, generator=generator), generator=generator)
    estimate = bidirectional(
        posterior,
        latents,
        base,
        chains=chains,
        temperatures=temperatures,
        generator=generator,
        leapfrog_steps=leapfrog_steps,
        target_acceptance=target_acceptance,
    )
    if not estimate.gap_nats.isfinite().all():
        raise RuntimeError("The bounds on both sides of `-log Gamma` are not finite for all simulated images.")
    return estimate


def simulate(model: Codec, images: Tensor, lmbda: float, generator: torch.Generator) -> tuple[Tensor, Latents]:
    """Draw images from the model, and the latents that they were made from.

    Args:
        model: A codec whose prior can be sampled.
        images: (images, channels, height, width); only their number and size matter.
        lmbda: Sets the variance of the pixels' noise, `1 / (2 kappa)` on the 0..255 scale.
        generator: Source of all random numbers.

    Raises:
        ValueError: If the codec has no `sample_prior`.
    """
    if not isinstance(model, GenerativeCodec):
        raise ValueError(
            "bidirectional Monte Carlo needs a codec with `sample_prior(latents, generator)`, "
            f"got {type(model).__name__}, which has none."
        )
    with torch.no_grad():
        latents = model.sample_prior(model.infer(images), generator)
        decoded = reconstruct(model, latents, (images.shape[-2], images.shape[-1]))
    noise = torch.randn(decoded.shape, dtype=decoded.dtype, device=decoded.device, generator=generator)
    return decoded + likelihood_sigma(lmbda, decoded.shape[1]) / 255 * noise, latents


def bidirectional(
    posterior: Posterior,
    latents: Latents,
    base: Gaussian,
    *,
    chains: int,
    temperatures: int,
    generator: torch.Generator,
    leapfrog_steps: int = LEAPFROG_STEPS,
    target_acceptance: float = TARGET_ACCEPTANCE,
    reverse_moves: int = REVERSE_MOVES,
) -> BidirectionalEstimate:
    """Bound `-log Gamma` of simulated images from both sides with one and the same frozen kernel.

    Args:
        posterior: Target, of images from `simulate`.
        latents: What they were made from.
        base: Gaussian fitted to the images; must not know `latents`.
        chains: Independent chains for each image and direction, at least 2.
        temperatures: Steps along the path.
        generator: Source of all random numbers.
        leapfrog_steps: Per HMC move.
        target_acceptance: Mean acceptance probability that the step sizes are tuned for.
        reverse_moves: HMC moves at each temperature on the way back, each of half the step size of the one before.

    Raises:
        ValueError: If there is not at least one reverse move.
    """
    if reverse_moves < 1:
        raise ValueError(f"`reverse_moves` must be at least 1, got {reverse_moves}.")
    estimate = anneal(
        posterior,
        base,
        chains=chains,
        temperatures=temperatures,
        generator=generator,
        leapfrog_steps=leapfrog_steps,
        target_acceptance=target_acceptance,
    )
    path, kernel = GaussianPath(posterior, base), estimate.kernel
    state = path.state(base.noise_of(flatten(latents)).expand_as(estimate.state.points))
    walk = walk_down(path, state, kernel, generator, moves=reverse_moves)
    return BidirectionalEstimate(
        forward=estimate, lower_sums_nats=right_sum(walk, kernel), reverse_acceptance=walk.acceptance
    )
