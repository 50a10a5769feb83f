"""Nonlinear transform coding of a source of vectors: what a trained codec really pays is an upper bound of `F`.

The codec is the one of `rdgap.ntc`, prior, imitation of quantization and all; only its transforms are perceptrons. A
vector is an image of one pixel and `dim` channels (1 / 255 per unit, about 0.5), so that every analysis of this library
takes codec and samples as they are.
"""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor, nn
from tqdm import trange

from ..ntc.codec import NTCCodec
from ..ntc.priors import FactorizedPrior
from ..objective import cost, kappa
from .estimate import Estimate, from_samples
from .source import VectorSource

_GRAY_LEVELS = 255.0
_LEARNING_RATE, _LEARNING_RATE_OF_PRIOR = 2e-3, 2e-2


def as_images(x: Tensor) -> Tensor:
    """Return vectors (n, dim) as images (n, dim, 1, 1)."""
    return (0.5 + x / _GRAY_LEVELS)[:, :, None, None]


def image_lmbda(source: VectorSource, lmbda: float) -> float:
    """Return the weight of the MSE (0..255 scale) in bits per pixel at which those images cost the same in nats."""
    return lmbda * source.weight / kappa(1.0, source.dim)


class _Perceptron(nn.Module):
    """A linear map plus a network of two hidden layers, which begins at zero; `(n, channels, 1, 1)` in and out."""

    def __init__(self, linear: Tensor, before: float, after: float, width: int) -> None:
        super().__init__()
        fan_out, fan_in = linear.shape
        self.linear = nn.Parameter(linear.clone())
        self.network = nn.Sequential(
            nn.Linear(fan_in, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, fan_out)
        )
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        vectors = x.flatten(1) * self.before
        return (self.after * (vectors @ self.linear.T + self.network(vectors)))[:, :, None, None]


def train_codec(
    source: VectorSource,
    lmbda: float,
    *,
    generator: torch.Generator,
    latents: int = 0,
    steps: int = 2000,
    batch: int = 256,
    width: int = 64,
) -> NTCCodec:
    """Train a codec with a factorized prior for the source, under uniform noise.

    It begins as a linear transform codec: principal components whose quantization step has the variance of the kernel
    `exp(-lmbda rho)`.

    Args:
        source: Under squared error.
        lmbda: Nats per unit of distortion.
        generator: Source of all random numbers.
        latents: By default one for each intrinsic dimension.
        steps: Of Adam.
        batch: Fresh samples of each step.
        width: Of the hidden layers.

    Returns:
        The codec, double precision; its own `lmbda` is that of `image_lmbda`.

    Raises:
        ValueError: If a count is too small.
        RuntimeError: If the cost is no longer finite.
    """
    latents = latents or source.intrinsic_dim
    if min(latents, steps, batch, width) < 1:
        raise ValueError(f"latents, steps, batch and width must be at least 1, got {latents, steps, batch, width}.")
    weight = image_lmbda(source, lmbda)
    codec = _initial(source, lmbda, latents, width, generator)
    transforms = [*codec.analysis.parameters(), *codec.synthesis.parameters()]
    optimizer = torch.optim.Adam(
        [
            {"params": transforms, "lr": _LEARNING_RATE},
            {"params": codec.prior.parameters(), "lr": _LEARNING_RATE_OF_PRIOR},  # which starts far too wide
        ]
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in trange(steps, desc="ntc", leave=False, disable=None):
        rate_nats, sse = codec(as_images(source.sample(batch, generator)), generator)
        objective = (rate_nats + kappa(weight, source.dim) * sse).mean()
        if not torch.isfinite(objective):
            raise RuntimeError(f"ntc: the training cost must be finite, got {objective.item()} at step {step}.")
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
        schedule.step()
    return codec.eval().requires_grad_(False)


def _initial(source: VectorSource, lmbda: float, latents: int, width: int, generator: torch.Generator) -> NTCCodec:
    example = source.sample(max(2000, 4 * source.dim), generator)
    values, vectors = torch.linalg.eigh(example.T.cov().reshape(source.dim, source.dim))
    chosen = values.topk(min(latents, source.dim)).indices
    spread = float(values[chosen].clamp(min=1e-12).mean().sqrt())
    step = math.sqrt(12 * source.noise_variance(lmbda))
    principal = torch.zeros(latents, source.dim, dtype=torch.double)
    principal[: len(chosen)] = vectors[:, chosen].T
    with torch.random.fork_rng(devices=[]):
        seed = int(torch.randint(2**31, (), generator=generator))
        torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        # Inside, the networks see vectors and latents of about unit size.
        analysis = _Perceptron(principal, _GRAY_LEVELS / spread, spread / step, width)
        synthesis = _Perceptron(principal.T, step / spread, spread / _GRAY_LEVELS, width)
        prior = FactorizedPrior(latents)
    return NTCCodec(
        analysis=analysis,
        synthesis=synthesis,
        prior=prior,
        quantization="noise",
        factor=1,
        name=f"ntc-{source.name}",
        lmbda=image_lmbda(source, lmbda),
    ).double()


@torch.no_grad()
def operational_cost(
    codec: NTCCodec, source: VectorSource, lmbda: float, *, generator: torch.Generator, samples: int = 20_000
) -> Estimate:
    """Return what the hard-rounded codec costs on fresh samples; an entropy coder pays next to nothing more.

    Its rate is a cross-entropy, its reproductions are functions of what is sent: an upper bound of `F`.
    """
    began = time.perf_counter()
    images = as_images(source.sample(samples, generator))
    costs = cost(codec, codec.quantize(codec.infer(images)), images, image_lmbda(source, lmbda))
    return from_samples(
        costs.lagrangian_nats,
        source.weight * costs.sse,
        method="ntc",
        side="upper",
        lmbda=lmbda,
        began=began,
    )
