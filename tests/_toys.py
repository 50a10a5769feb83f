"""Toy codecs, seen by the code under test as codecs like any other; of the linear one every cost is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rdgap.gaps import Gaussian
from rdgap.gaps.reference import LinearGaussian
from rdgap.model import Codec, from_modules
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
