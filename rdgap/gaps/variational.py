"""The best `q` of a family for each image: unit boxes and Gaussians, fitted by stochastic gradients.

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


@dataclass(frozen=True, kw_only=True)
class Box:
    """The unit box around a location for each image: the encoder's own family, of entropy 0.

    Attributes:
        location: (images, dim).
    """

    location: Tensor

    def sample_cost(self, posterior: Posterior, samples: int, generator: torch.Generator) -> Tensor:
        """Draw `U(z) + log q(z)` in nats, (samples, images), whose mean is the cost of this `q`."""
        (points,) = uniform_noise([self.location.expand(samples, *self.location.shape)], generator)
        return posterior.energy(points)


@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """A Gaussian for each image, of covariance `D (I + W W^T) D` with diagonal `D`; diagonal where `W` has no column.

    As a map of standard normal noise `n` it is `mean + D S n` with the symmetric root `S` of `I + W W^T`, so that it
    also serves as a change of coordinates in which itself is standard normal.

    Attributes:
        mean: (images, dim).
        log_std: Logarithm of the diagonal of `D`, (images, dim).
        factor: `W`, (images, dim, rank).
    """

    mean: Tensor
    log_std: Tensor
    factor: Tensor

    @staticmethod
    def diagonal(mean: Tensor, log_std: Tensor) -> Gaussian:
        """Return the Gaussian with independent latents, each argument (images, dim)."""
        return Gaussian(mean=mean, log_std=log_std, factor=mean.new_zeros((*mean.shape, 0)))

    def at(self, noise: Tensor) -> Tensor:
        """Return the points (..., images, dim) of standard normal `noise` of that shape."""
        return self.mean + self.log_std.exp() * self._stretched(noise)

    def noise_of(self, points: Tensor) -> Tensor:
        """Return the noise that `at` takes to `points`, (..., images, dim)."""
        return self._stretched((points - self.mean) / self.log_std.exp(), inverse=True)

    def pulled_back(self, slope: Tensor) -> Tensor:
        """Return the gradient with respect to the noise, given that with respect to the points, (..., images, dim)."""
        return self._stretched(self.log_std.exp() * slope)

    @property
    def log_volume(self) -> Tensor:
        """Log-determinant of the map from noise to points, (images,), double precision."""
        log_volume = self.log_std.double().sum(-1)
        if self.factor.shape[-1]:
            log_volume = log_volume + 0.5 * self._spectrum[1].double().square().log1p().sum(-1)
        return log_volume

    def sample_cost(self, posterior: Posterior, samples: int, generator: torch.Generator) -> Tensor:
        """Draw `U(z) + log q(z)` in nats, (samples, images), whose mean is the cost of this `q`.

        `log q` is sampled together with `U`, though its mean is known: the two cancel where `q` is close to the
        posterior, so that the estimate of a perfect fit has no variance at all.
        """
        noise = _normal((samples, *self.mean.shape), self.mean, generator)
        dim = self.mean.shape[-1]
        log_density = -0.5 * (noise.double().square().sum(-1) + dim * math.log(2 * math.pi)) - self.log_volume
        return posterior.energy(self.at(noise)) + log_density

    @property
    def _spectrum(self) -> tuple[Tensor, Tensor]:
        """Left singular vectors (images, dim, rank) and singular values (images, rank) of the factor."""
        vectors, values, _ = torch.linalg.svd(self.factor, full_matrices=False)
        return vectors, values

    def _stretched(self, noise: Tensor, *, inverse: bool = False) -> Tensor:
        """Apply the root of `I + W W^T`, whose eigenvalues are `sqrt(1 + s^2)` along `W` and 1 elsewhere."""
        if not self.factor.shape[-1]:
            return noise
        vectors, values = self._spectrum
        excess = (1 + values.square()) ** (-0.5 if inverse else 0.5) - 1
        along = torch.einsum("...id,idr->...ir", noise, vectors)
        return noise + torch.einsum("...ir,idr->...id", along * excess, vectors)


def fit_box(posterior: Posterior, *, steps: int, generator: torch.Generator) -> Box:
    """Fit the location of the unit box, the encoder's own family, to each image.

    Args:
        posterior: Target; the fit starts at its encoder's output.
        steps: Steps of Adam.
        generator: Source of the noise, which comes in antithetic pairs: they cancel its odd part.
    """
    location = posterior.location.clone()

    def gradient() -> list[Tensor]:
        (noise,) = uniform_noise([torch.zeros_like(location)[None]], generator)
        rate_slope, distortion_slope = posterior.slopes(location + torch.cat([noise, -noise]))
        return [(rate_slope + distortion_slope).mean(0)]

    _descend([location], [_LEARNING_RATE], gradient, steps, "box fit")
    return Box(location=location)


def fit_gaussian(posterior: Posterior, *, steps: int, generator: torch.Generator, rank: int = 0) -> Gaussian:
    """Fit a Gaussian to the posterior of each image.

    Starts at the encoder's output with the width of the unit box. The gradient is the pathwise one of
    `U(z) + log q(z)` at fixed `q` ("sticking the landing", Roeder et al. 2017), whose noise vanishes as `q` nears a
    Gaussian posterior; noise comes in antithetic pairs.

    Args:
        posterior: Target.
        steps: Steps of Adam.
        generator: Source of the noise.
        rank: Columns of the factor that correlates the latents; 0 for a diagonal Gaussian.
    """
    mean = posterior.location.clone()
    log_std = torch.full_like(mean, 0.5 * math.log(1 / 12))
    # Small, so that it spoils nothing, but not zero, where its gradient would vanish.
    factor = 0.1 * mean.shape[-1] ** -0.5 * _normal((*mean.shape, rank), mean, generator)

    def gradient() -> list[Tensor]:
        noise = _normal((1, *mean.shape), mean, generator)
        common = _normal((1, len(mean), rank), mean, generator)
        noise, common = torch.cat([noise, -noise]), torch.cat([common, -common])
        std = log_std.exp()
        offset = noise + torch.einsum("idr,...ir->...id", factor, common)
        rate_slope, distortion_slope = posterior.slopes(mean + std * offset)
        slope = std * (rate_slope + distortion_slope) - _whitened(offset, factor)  # in units of std
        return [
            slope.mean(0) / std,
            (slope * offset).mean(0),
            torch.einsum("sid,sir->idr", slope, common) / len(slope),
        ]

    # A column of the factor matters by its norm: a step must not move that more than it moves a latent.
    rates = [_LEARNING_RATE, _LEARNING_RATE, _LEARNING_RATE * mean.shape[-1] ** -0.5]
    _descend([mean, log_std, factor], rates, gradient, steps, "Gaussian fit")
    return Gaussian(mean=mean, log_std=log_std, factor=factor)


def _whitened(offset: Tensor, factor: Tensor) -> Tensor:
    """Return `(I + W W^T)^-1 offset` by Woodbury's identity."""
    if not factor.shape[-1]:
        return offset
    inner = torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device) + factor.mT @ factor
    along = torch.einsum("...id,idr->...ir", offset, factor)
    return offset - torch.einsum("idr,irs,...is->...id", factor, torch.linalg.inv(inner), along)


def _descend(
    parameters: list[Tensor],
    rates: Sequence[float],
    gradient: Callable[[], Sequence[Tensor]],
    steps: int,
    description: str,
) -> None:
    """Follow `gradient` by Adam, in place. Adam treats each number by itself, so that images do not mix."""
    groups = [{"params": [parameter], "lr": rate} for parameter, rate in zip(parameters, rates, strict=True)]
    optimizer = torch.optim.Adam(groups, betas=_BETAS)
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
