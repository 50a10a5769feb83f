"""Toy codecs, seen by the code under test as codecs like any other; of the linear one every cost is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rdgap.gaps import Gaussian
from rdgap.gaps.reference import LinearGaussian
from rdgap.model import Codec, Latents, from_modules
from rdgap.objective import likelihood_sigma


def linear_toy(dim: int, pixels: int, seed: int, **options: float) -> LinearGaussian:
    """Draw a model whose posterior is correlated; a latent moves a pixel by some 5 gray levels."""
    generator = torch.Generator().manual_seed(1000 + seed)  # never the noise of a fit
    draw = {"dtype": torch.double, "generator": generator}
    spread = torch.eye(dim, dtype=torch.double) + 0.3 * torch.randn(dim, dim, **draw) / math.sqrt(dim)
    return LinearGaussian(
        matrix=0.02 * torch.randn(pixels, dim, **draw),
        bias=0.4 + 0.2 * torch.rand(pixels, **draw),
        mean=torch.randn(dim, **draw),
        covariance=spread @ spread.T,
        **options,
    )


def toy_images(toy: LinearGaussian, number: int, lmbda: float, seed: int) -> Tensor:
    """Draw images (number, 1, 1, pixels) from the model, its Gaussian likelihood included."""
    generator = torch.Generator().manual_seed(1000 + seed)  # never the noise of a fit
    draw = {"dtype": torch.double, "generator": generator}
    latents = toy.mean + torch.randn(number, len(toy.mean), **draw) @ torch.linalg.cholesky(toy.covariance).T
    noise = likelihood_sigma(lmbda, channels=1) / 255 * torch.randn(number, len(toy.bias), **draw)
    return (latents @ toy.matrix.T + toy.bias + noise)[:, None, None]


def best_diagonal(toy: LinearGaussian, images: Tensor, lmbda: float) -> Gaussian:
    """The best diagonal Gaussian of each image."""
    mean = toy.posterior_mean(images, lmbda)
    return Gaussian.diagonal(mean, (-0.5 * toy.hessian(lmbda).diagonal().log()).expand_as(mean))


class Funnel:
    """A hyperlatent `z`, (batch, 1), that sets the scale of the latents, (batch, pixels), which pixels show in noise.

    `z ~ N(0, 1)`, `y ~ N(0, exp(2 z))`, and the noise has the scale of `z = 0`: a small scale, which confines all
    latents at once, is as likely given an image as none of them being confined.

    Args:
        pixels: Of an image, (1, 1, pixels).
        lmbda: Sets the noise.
    """

    def __init__(self, pixels: int, lmbda: float) -> None:
        self.pixels, self.gain = pixels, likelihood_sigma(lmbda, channels=1) / 255
        self.hyper = torch.distributions.Normal(0.0, 1.0)

    def infer(self, images: Tensor) -> Latents:
        y = (images.flatten(1) - 0.5) / self.gain
        return torch.zeros_like(y[:, :1]), y

    def quantize(self, latents: Latents) -> Latents:
        return tuple(latent.round() for latent in latents)

    def log_prior(self, latents: Latents) -> Tensor:
        z, y = latents
        return self.hyper.log_prob(z).sum(1) + torch.distributions.Normal(0.0, z.exp()).log_prob(y).sum(1)

    def sample_prior(self, latents: Latents, generator: torch.Generator) -> Latents:
        z, noise = (torch.randn(latent.shape, dtype=latent.dtype, generator=generator) for latent in latents)
        return z, z.exp() * noise

    def decode(self, latents: Latents) -> Tensor:
        return (0.5 + self.gain * latents[1]).reshape(-1, 1, 1, self.pixels)

    def neg_log_gamma(self, images: Tensor) -> Tensor:
        """Return `-log Gamma` in nats, (images,), by quadrature over `z`; latents are integrated in closed form."""
        z = torch.linspace(-9, 7, 10_001, dtype=torch.double)[:, None]
        square = ((images.flatten(1) - 0.5) / self.gain).square().sum(1)  # in units of the noise
        variance = 1 + (2 * z).exp()
        exponent = self.hyper.log_prob(z) - 0.5 * self.pixels * variance.log() - 0.5 * square / variance
        return -exponent.logsumexp(0) - math.log(float(z[1] - z[0]))


def patch_means() -> Codec:
    """A codec of images whose latents are the means of 4x4 patches."""
    normal = torch.distributions.Normal(0.0, 2.0)
    return from_modules(
        lambda images: 8 * (torch.nn.functional.avg_pool2d(images, 4) - 0.5),
        lambda latents: torch.nn.functional.interpolate(latents, scale_factor=4.0) / 8 + 0.5,
        lambda latents: normal.log_prob(latents).sum((1, 2, 3)),
    )


class TwoLatents(torch.nn.Module):
    """A codec with a hyperlatent (batch, 6) and a latent (batch, 1, 4, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def infer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        latent = self.scale * (images.mean(1, keepdim=True) - 0.5)
        return latent.sum((1, 2)), latent

    def quantize(self, latents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(latent.round() for latent in latents)

    def log_prior(self, latents: tuple[Tensor, ...]) -> Tensor:
        hyper, latent = latents
        scale = (1 + hyper.square())[:, None, None]
        conditional = torch.distributions.Normal(0.0, scale).log_prob(latent).sum((1, 2, 3))
        return conditional + torch.distributions.Normal(0.0, 1.0).log_prob(hyper).sum(1)

    def decode(self, latents: tuple[Tensor, ...]) -> Tensor:
        return (latents[1] / self.scale + 0.5).expand(-1, 3, -1, -1)
