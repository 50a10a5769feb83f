"""The rate-distortion curve of a fixed decoder and prior under the ideal channel, from one annealing run.

On its way to the posterior of the largest lmbda a chain passes those of all smaller ones, so that one run gives
`-log Gamma` at each of them, and with the weighted distortion of the chains the rate as well (Huang et al. 2020).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..model import Codec
from ..objective import check_lmbda, nats_to_bpp
from .ais import (
    LEAPFROG_STEPS,
    TARGET_ACCEPTANCE,
    Kernel,
    anneal,
    jackknife_stderr,
    left_sums,
    log_mean_exp,
    tune,
    walk_up,
)
from .path import LmbdaPath
from .pilot import widen
from .posterior import Posterior
from .variational import fit_gaussian

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class IdealCurve:
    """Points of the curve for each image, all tensors (lmbdas, images), double precision, on the CPU.

    Attributes:
        lmbdas: Rising.
        neg_log_gamma_upper_bpp: `rate + lmbda mse` of the ideal channel; in expectation an upper bound.
        neg_log_gamma_upper_stderr_bpp: Its Monte Carlo error.
        mse: Weighted mean over the chains, 0..255 scale; consistent, without a side.
        mse_stderr: Its Monte Carlo error.
        num_pixels: Of one image.
    """

    lmbdas: tuple[float, ...]
    neg_log_gamma_upper_bpp: Tensor
    neg_log_gamma_upper_stderr_bpp: Tensor
    mse: Tensor
    mse_stderr: Tensor
    num_pixels: int

    @property
    def rate_bpp(self) -> Tensor:
        """`KL(P(z|x) || P(z))` in bits per pixel: what the ideal channel transmits; without a side."""
        return self.neg_log_gamma_upper_bpp - torch.tensor(self.lmbdas, dtype=torch.double)[:, None] * self.mse

    def to_frame(self) -> pd.DataFrame:
        """Return one row per lmbda and image."""
        import pandas as pd

        columns = ("neg_log_gamma_upper_bpp", "neg_log_gamma_upper_stderr_bpp", "rate_bpp", "mse", "mse_stderr")
        return pd.DataFrame(
            [
                {"lmbda": lmbda, "image": image, "num_pixels": self.num_pixels}
                | {name: float(getattr(self, name)[index, image]) for name in columns}
                for index, lmbda in enumerate(self.lmbdas)
                for image in range(self.mse.shape[1])
            ]
        )


def ideal_curve(
    model: Codec,
    images: Tensor,
    lmbdas: Sequence[float],
    *,
    generator: torch.Generator,
    chains: int = 8,
    temperatures: int = 50,
    fit_steps: int = 300,
    batch: int = 16,
    bf16: bool = False,
) -> IdealCurve:
    """Anneal from a Gaussian fitted at the smallest lmbda to its posterior, and from there to the largest lmbda.

    Args:
        model: Any codec of the protocol in `rdgap.model`.
        images: (images, channels, height, width), in [0, 1].
        lmbdas: At which the curve is wanted; at least two different ones.
        generator: Source of all random numbers, on the device of the images.
        chains: Annealed chains for each image, at least 2.
        temperatures: Steps to the smallest lmbda, and from there for each doubling of lmbda.
        fit_steps: Optimization steps of the Gaussian.
        batch: Most latents that are decoded at a time; bounds the memory.
        bf16: Let HMC follow slopes in bfloat16.

    Raises:
        ValueError: If an lmbda is not positive or there are fewer than two.
        RuntimeError: If an estimate is not finite.
    """
    rising = sorted(set(lmbdas))
    for lmbda in rising:
        check_lmbda(lmbda)
    if len(rising) < 2:
        raise ValueError(f"`lmbdas` must be at least two different numbers, got {list(lmbdas)}.")
    smallest, largest = rising[0], rising[-1]
    lowest = Posterior(model, images, smallest, batch=batch, bf16=bf16)
    highest = Posterior(model, images, largest, batch=batch, bf16=bf16)
    base = widen(lowest, fit_gaussian(lowest, steps=fit_steps, generator=generator), generator=generator)
    settings = {"leapfrog_steps": LEAPFROG_STEPS, "target_acceptance": TARGET_ACCEPTANCE}

    estimate = anneal(lowest, base, chains=chains, temperatures=temperatures, generator=generator)
    path = LmbdaPath(highest, base)
    betas, stops = _geometric([lmbda / largest for lmbda in rising], temperatures)
    start = path.state(estimate.state.points)
    kernel: Kernel = tune(path, start, betas, generator=generator, **settings)
    walk = walk_up(path, start, kernel, generator)

    sums = torch.cat([torch.zeros_like(estimate.upper_sums_nats)[None], left_sums(walk, kernel)])
    log_weights = -(estimate.upper_sums_nats + sums[stops])  # (lmbdas, chains, images)
    kappa_sse = walk.slopes_nats[stops]  # at the largest lmbda
    mse = nats_to_bpp(kappa_sse, lowest.num_pixels) / largest
    mean = (log_weights.softmax(1) * mse).sum(1)
    chains_first = log_weights.transpose(0, 1)
    upper = -log_mean_exp(chains_first)
    if not (upper.isfinite().all() and mean.isfinite().all()):
        raise RuntimeError("The annealed weights are not finite: a chain left the region where the cost is finite.")
    return IdealCurve(
        lmbdas=tuple(rising),
        neg_log_gamma_upper_bpp=nats_to_bpp(upper, lowest.num_pixels).cpu(),
        neg_log_gamma_upper_stderr_bpp=nats_to_bpp(jackknife_stderr(chains_first), lowest.num_pixels).cpu(),
        mse=mean.cpu(),
        mse_stderr=_jackknife(log_weights, mse).cpu(),
        num_pixels=lowest.num_pixels,
    )


def _jackknife(log_weights: Tensor, values: Tensor) -> Tensor:
    """Return the standard error (lmbdas, images) of weighted means over chains, all (lmbdas, chains, images).

    Where one chain has all the weight, the mean has no spread to be seen but for what it would be without that chain.
    """
    number = log_weights.shape[1]
    others = log_weights[:, None].expand(-1, number, -1, -1).clone()
    others.diagonal(dim1=1, dim2=2).fill_(-math.inf)
    without = (others.softmax(2) * values[:, None]).sum(2)
    return ((number - 1) * without.var(1, correction=0)).sqrt()


def _geometric(stations: Sequence[float], per_doubling: int) -> tuple[list[float], list[int]]:
    """Return betas through all stations, equal ratios in between, and where the stations are among them."""
    betas, stops = [stations[0]], [0]
    for low, high in pairwise(stations):
        steps = max(2, math.ceil(per_doubling * math.log2(high / low)))
        betas += [low * (high / low) ** (step / steps) for step in range(1, steps)] + [high]
        stops.append(len(betas) - 1)
    return betas, stops
