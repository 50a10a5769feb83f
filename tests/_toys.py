"""Toy codecs, seen by the code under test as codecs like any other; of `LinearGaussian` every cost is known."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from rdgap.model import Codec, from_modules
from rdgap.objective import kappa, likelihood_sigma


@dataclass(frozen=True, kw_only=True)
class LinearGaussian:
    """A codec with decoder `g(z) = G z + b` and prior N(mu, S), on one-channel images of shape (1, pixels).

    Energies are quadratic, `U(z) = U(m) + 1/2 (z - m)^T H (z - m)` with `H = S^-1 + 2 kappa 255^2 G^T G`.
    """

    matrix: Tensor  # (pixels, dim)
    bias: Tensor  # (pixels,)
    mean: Tensor  # (dim,)
    covariance: Tensor  # (dim, dim)
    encoder_shift: float = 0.0

    @staticmethod
    def random(dim: int, pixels: int, seed: int, **options: float) -> LinearGaussian:
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

    def images(self, number: int, lmbda: float, seed: int) -> Tensor:
        """Draw images (number, 1, 1, pixels) from the model, its Gaussian likelihood included."""
        generator = torch.Generator().manual_seed(1000 + seed)  # never the noise of a fit
        draw = {"dtype": torch.double, "generator": generator}
        latents = self.mean + torch.randn(number, len(self.mean), **draw) @ torch.linalg.cholesky(self.covariance).T
        noise = likelihood_sigma(lmbda, channels=1) / 255 * torch.randn(number, len(self.bias), **draw)
        return (latents @ self.matrix.T + self.bias + noise)[:, None, None]

    # closed forms, in nats per image

    def hessian(self, lmbda: float) -> Tensor:
        """Precision of the posterior, which is also the second derivative of the energy, (dim, dim)."""
        return torch.linalg.inv(self.covariance) + 2 * self._precision(lmbda) * self.matrix.T @ self.matrix

    def posterior_mean(self, images: Tensor, lmbda: float) -> Tensor:
        """Mean of the posterior, (batch, dim)."""
        pull = 2 * self._precision(lmbda) * self._residual(images) @ self.matrix
        return self.mean + torch.linalg.solve(self.hessian(lmbda), pull.T).T

    def neg_log_gamma(self, images: Tensor, lmbda: float) -> Tensor:
        """`1/2 logdet(A) + kappa r^T A^-1 r` with `A = I + 2 kappa G S G^T`, `r = x - g(mu)`, (batch,)."""
        weight, residual = self._precision(lmbda), self._residual(images)
        marginal = torch.eye(len(self.bias), dtype=torch.double) + 2 * weight * (
            self.matrix @ self.covariance @ self.matrix.T
        )
        square = (residual * torch.linalg.solve(marginal, residual.T).T).sum(-1)
        return 0.5 * torch.logdet(marginal) + weight * square

    def best_diagonal(self, images: Tensor, lmbda: float) -> dict[str, Tensor]:
        """`mean` and `log_std` of the best diagonal Gaussian, each (batch, dim)."""
        mean = self.posterior_mean(images, lmbda)
        return {"mean": mean, "log_std": (-0.5 * self.hessian(lmbda).diagonal().log()).expand_as(mean)}

    def mean_field_cost(self, images: Tensor, lmbda: float) -> Tensor:
        """Cost of the best diagonal Gaussian, whose precision is the diagonal of the posterior's, (batch,)."""
        hessian = self.hessian(lmbda)
        divergence = 0.5 * (hessian.diagonal().log().sum() - torch.logdet(hessian))
        return self.neg_log_gamma(images, lmbda) + divergence

    def box_cost(self, locations: Tensor, images: Tensor, lmbda: float) -> Tensor:
        """Cost of the unit box around `locations` (batch, dim): energy there plus `tr(H) / 24`, (batch,).

        A box has variance 1/12 in each direction; the energy at its least is `-log Gamma - 1/2 logdet(H / 2 pi)`.
        """
        hessian = self.hessian(lmbda)
        away = locations - self.posterior_mean(images, lmbda)
        least = self.neg_log_gamma(images, lmbda) - 0.5 * torch.logdet(hessian / (2 * math.pi))
        return least + 0.5 * (away @ hessian * away).sum(-1) + hessian.diagonal().sum() / 24

    def _precision(self, lmbda: float) -> float:
        return kappa(lmbda, channels=1) * 255**2  # the decoder's unit is [0, 1]

    def _residual(self, images: Tensor) -> Tensor:
        return images[:, 0, 0] - self.bias - self.matrix @ self.mean

    # the protocol of a codec

    def infer(self, images: Tensor) -> tuple[Tensor]:
        """A poor encoder: the least-squares latents, shifted."""
        return ((images[:, 0, 0] - self.bias) @ torch.linalg.pinv(self.matrix).T + self.encoder_shift,)

    def quantize(self, latents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (latents[0].round(),)

    def log_prior(self, latents: tuple[Tensor, ...]) -> Tensor:
        centred = latents[0] - self.mean
        square = (centred @ torch.linalg.inv(self.covariance) * centred).sum(-1)
        return -0.5 * (square + torch.logdet(2 * math.pi * self.covariance))

    def decode(self, latents: tuple[Tensor, ...]) -> Tensor:
        return (latents[0] @ self.matrix.T + self.bias)[:, None, None]


def curved() -> Codec:
    """A codec of 2 latents and 4 pixels whose posterior is curved."""

    def synthesis(latents: Tensor) -> Tensor:
        first, second = latents[:, 0], latents[:, 1]
        bent = second - 0.3 * first.square()
        return 0.5 + 0.03 * torch.stack([first, bent, first + bent, torch.sin(first)], -1)[:, None, None]

    def analysis(images: Tensor) -> Tensor:
        return (images[:, 0, 0, :2] - 0.5) / 0.03

    normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.double), 1.0)
    return from_modules(analysis, synthesis, lambda latents: normal.log_prob(latents).sum(1))


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
