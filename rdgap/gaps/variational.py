"""The best `q` of a family for each image: unit boxes and diagonal Gaussians, fitted by stochastic gradients.

The cost of any `q` is `E_q[U(z) + log q(z)] >= -log Gamma`, an upper bound that a better `q` lowers. A fit is an upper
bound on the best of its family. What it costs is measured with fresh noise, never with the noise that it was fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import trange

from ..objective import uniform_noise
from .posterior import Posterior

_LEARNING_RATE = 0.05  # in the latents' own unit, the width of a quantization bin; decays to 0
_BETAS = (0.9, 0.98)  # the first gradients may be large: their squares must be forgotten within a fit
_NOISE_PAIRS = 2


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """A diagonal Gaussian for each image.

    Attributes:
        mean: (images, dim).
        log_std: (images, dim).
    """

    mean: Tensor
    log_std: Tensor

    def at(self, noise: Tensor) -> Tensor:
        """Return the points (..., images, dim) of standard normal `noise` of that shape."""
        return self.mean + self.log_std.exp() * noise

    def sample_cost(self, posterior: Posterior, samples: int, generator: torch.Generator) -> Tensor:
        """Draw `U(z) + log q(z)` in nats, (samples, images), whose mean is the cost of this `q`.

        `log q` is sampled together with `U`, though its mean is known: the two cancel where `q` is close to the
        posterior, so that the estimate of a perfect fit has no variance at all.
        """
        noise = _normal((samples, *self.mean.shape), self.mean, generator)
        log_normalizer = 0.5 * math.log(2 * math.pi) + self.log_std.double()
        log_density = -(0.5 * noise.double().square() + log_normalizer).sum(-1)
        return posterior.energy(self.at(noise)) + log_density


def sample_box_cost(posterior: Posterior, location: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """Draw the cost of the unit box around `location` (images, dim), in nats, (samples, images); its entropy is 0."""
    (points,) = uniform_noise([location.expand(samples, *location.shape)], generator)
    return posterior.energy(points)


def fit_box(posterior: Posterior, *, steps: int, generator: torch.Generator) -> Tensor:
    """Fit the location of the unit box, the encoder's own family, to each image.

    Args:
        posterior: Target; the fit starts at its encoder's output.
        steps: Steps of Adam.
        generator: Source of the noise.

    Returns:
        Locations, (images, dim).
    """
    location = posterior.location.clone()

    def gradient() -> list[Tensor]:
        (noise,) = uniform_noise([torch.zeros_like(location).expand(_NOISE_PAIRS, *location.shape)], generator)
        _, slope = posterior.energy_and_gradient(location + torch.cat([noise, -noise]))
        return [slope.mean(0)]

    _descend([location], gradient, steps, "box fit")
    return location


def fit_gaussian(posterior: Posterior, *, steps: int, generator: torch.Generator) -> Gaussian:
    """Fit a diagonal Gaussian to the posterior of each image.

    Starts at the encoder's output with the width of the unit box. The gradient is the pathwise one of
    `U(z) + log q(z)` at fixed `q` ("sticking the landing", Roeder et al. 2017), whose noise vanishes as `q` nears a
    Gaussian posterior; noise comes in antithetic pairs, which cancels its odd part.

    Args:
        posterior: Target.
        steps: Steps of Adam.
        generator: Source of the noise.
    """
    mean = posterior.location.clone()
    log_std = torch.full_like(mean, 0.5 * math.log(1 / 12))

    def gradient() -> list[Tensor]:
        noise = _normal((_NOISE_PAIRS, *mean.shape), mean, generator)
        noise = torch.cat([noise, -noise])
        std = log_std.exp()
        _, slope = posterior.energy_and_gradient(mean + std * noise)
        slope = slope - noise / std
        return [slope.mean(0), (slope * std * noise).mean(0)]

    _descend([mean, log_std], gradient, steps, "Gaussian fit")
    return Gaussian(mean=mean, log_std=log_std)


def _descend(parameters: list[Tensor], gradient: Callable[[], Sequence[Tensor]], steps: int, description: str) -> None:
    """Follow `gradient` by Adam, in place. Adam treats each number by itself, so that images do not mix."""
    optimizer = torch.optim.Adam(parameters, lr=_LEARNING_RATE, betas=_BETAS)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in trange(steps, desc=description, leave=False, disable=None):
        for parameter, slope in zip(parameters, gradient(), strict=True):
            parameter.grad = slope
        optimizer.step()
        schedule.step()
    if not all(torch.isfinite(parameter).all() for parameter in parameters):
        raise RuntimeError(f"The {description} diverged: the codec's cost is not finite near its encoder's output.")


def _normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, dtype=like.dtype, device=like.device, generator=generator)
