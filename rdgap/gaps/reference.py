"""Problems whose every term is known, to hold estimators against: a linear codec, a Gaussian source, a curved decoder.

Codecs here describe one-channel images of shape (1, pixels), in double precision. All costs are in nats per image;
`tau` is the precision of the pixels' likelihood, `2 kappa 255^2`, because decoders count in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..model import Codec, Latents, from_modules
from ..objective import kappa
from ..rate_distortion.water_filling import water_filling


@dataclass(frozen=True, kw_only=True)
class LinearGaussian:
    """A codec with decoder `g(z) = G z + b` and prior N(mu, S): its posteriors are Gaussians.

    Energies are quadratic, `U(z) = U(m) + 1/2 (z - m)^T H (z - m)` with `H = S^-1 + tau G^T G`. The encoder is a poor
    one: least squares, shifted.

    Attributes:
        matrix: `G`, (pixels, dim), of full column rank.
        bias: `b`, (pixels,).
        mean: `mu`, (dim,).
        covariance: `S`, (dim, dim).
        encoder_shift: Added to each latent that the encoder infers.
    """

    matrix: Tensor
    bias: Tensor
    mean: Tensor
    covariance: Tensor
    encoder_shift: float = 0.0

    # the protocol of a codec

    def infer(self, images: Tensor) -> Latents:
        """Return the least-squares latents, shifted."""
        return ((images[:, 0, 0] - self.bias) @ self._inverse.T + self.encoder_shift,)

    def quantize(self, latents: Latents) -> Latents:
        """Round to integers."""
        return (latents[0].round(),)

    def log_prior(self, latents: Latents) -> Tensor:
        """Return the Gaussian log-density, (batch,)."""
        centred = latents[0] - self.mean
        return -0.5 * ((centred @ self._prior_precision * centred).sum(-1) + self._log_volume)

    def decode(self, latents: Latents) -> Tensor:
        """Return `G z + b` as images (batch, 1, 1, pixels)."""
        return (latents[0] @ self.matrix.T + self.bias)[:, None, None]

    def sample_prior(self, latents: Latents, generator: torch.Generator) -> Latents:
        """Draw from N(mu, S)."""
        noise = torch.randn(latents[0].shape, dtype=latents[0].dtype, generator=generator)
        return (self.mean + noise @ torch.linalg.cholesky(self.covariance).T,)

    @cached_property
    def _inverse(self) -> Tensor:
        return torch.linalg.pinv(self.matrix)

    @cached_property
    def _prior_precision(self) -> Tensor:
        return torch.linalg.inv(self.covariance)

    @cached_property
    def _log_volume(self) -> Tensor:
        return torch.logdet(self.covariance) + len(self.mean) * math.log(2 * math.pi)

    # closed forms

    def hessian(self, lmbda: float) -> Tensor:
        """Return the precision of every posterior, the second derivative of the energy, (dim, dim)."""
        return self._prior_precision + tau(lmbda) * self.matrix.T @ self.matrix

    def posterior_mean(self, images: Tensor, lmbda: float) -> Tensor:
        """Return the means of the posteriors, (batch, dim)."""
        pull = tau(lmbda) * self._residual(images) @ self.matrix
        return self.mean + torch.linalg.solve(self.hessian(lmbda), pull.T).T

    def neg_log_gamma(self, images: Tensor, lmbda: float) -> Tensor:
        """Return `1/2 logdet(A) + tau/2 r^T A^-1 r` with `A = I + tau G S G^T`, `r = x - g(mu)`, (batch,)."""
        marginal, residual = self._marginal(lmbda), self._residual(images)
        square = (residual * torch.linalg.solve(marginal, residual.T).T).sum(-1)
        return 0.5 * (torch.logdet(marginal) + tau(lmbda) * square)

    def mse(self, images: Tensor, lmbda: float) -> Tensor:
        """Return the mean squared error of the ideal channel, 0..255 scale, (batch,)."""
        error = (self.decode((self.posterior_mean(images, lmbda),)) - images).square().sum((1, 2, 3))
        spread = torch.linalg.solve(self.hessian(lmbda), self.matrix.T @ self.matrix).trace()
        return 255**2 * (error + spread) / len(self.bias)

    def mean_field_cost(self, images: Tensor, lmbda: float) -> Tensor:
        """Return the cost of the best diagonal Gaussian, of the precision on the posterior's diagonal, (batch,)."""
        hessian = self.hessian(lmbda)
        divergence = 0.5 * (hessian.diagonal().log().sum() - torch.logdet(hessian))
        return self.neg_log_gamma(images, lmbda) + divergence

    def box_cost(self, locations: Tensor, images: Tensor, lmbda: float) -> Tensor:
        """Return the cost of the unit box around `locations` (batch, dim): energy there plus `tr(H) / 24`, (batch,).

        A box has variance 1/12 in each direction; the energy at its least is `-log Gamma - 1/2 logdet(H / 2 pi)`. It is
        least around the posterior mean.
        """
        hessian = self.hessian(lmbda)
        away = locations - self.posterior_mean(images, lmbda)
        least = self.neg_log_gamma(images, lmbda) - 0.5 * torch.logdet(hessian / (2 * math.pi))
        return least + 0.5 * (away @ hessian * away).sum(-1) + hessian.trace() / 24

    def _marginal(self, lmbda: float) -> Tensor:
        """Covariance of the images that the model makes, in units of the likelihood's variance."""
        identity = torch.eye(len(self.bias), dtype=self.bias.dtype)
        return identity + tau(lmbda) * self.matrix @ self.covariance @ self.matrix.T

    def _residual(self, images: Tensor) -> Tensor:
        return images[:, 0, 0] - self.bias - self.matrix @ self.mean


@dataclass(frozen=True, kw_only=True)
class GaussianSource:
    """Images drawn from N(m, C), whose rate-distortion function is known.

    Attributes:
        mean: `m`, (pixels,).
        covariance: `C`, (pixels, pixels).
    """

    mean: Tensor
    covariance: Tensor

    def images(self, number: int, generator: torch.Generator) -> Tensor:
        """Draw images (number, 1, 1, pixels)."""
        noise = torch.randn(number, len(self.mean), dtype=self.mean.dtype, generator=generator)
        return (self.mean + noise @ torch.linalg.cholesky(self.covariance).T)[:, None, None]

    def irreducible(self, lmbda: float) -> float:
        """Return `inf_w F_w(lmbda)` of Eq. 24 by reverse water-filling."""
        return _water_filling(self.covariance, lmbda)

    def fixed_decoder(self, codec: LinearGaussian, lmbda: float) -> float:
        """Return `F_g(lmbda)` of the codec's decoder, with the best prior and channel for it.

        What lies outside the decoder's affine range costs its whole distortion. What lies inside is a Gaussian source
        of its own, whose best reconstructions the decoder can make.
        """
        basis = torch.linalg.qr(codec.matrix).Q
        offset = self.mean - codec.bias
        inside = basis.T @ self.covariance @ basis
        outside = self.covariance.trace() - inside.trace() + offset.square().sum() - (basis.T @ offset).square().sum()
        return _water_filling(inside, lmbda) + 0.5 * tau(lmbda) * float(outside)

    def neg_log_gamma(self, codec: LinearGaussian, lmbda: float) -> float:
        """Return `E[-log Gamma(X)]` of the codec over the source."""
        marginal, residual = codec._marginal(lmbda), self.mean - codec.bias - codec.matrix @ codec.mean
        second_moment = self.covariance + torch.outer(residual, residual)
        square = torch.linalg.solve(marginal, second_moment).trace()
        return 0.5 * float(torch.logdet(marginal) + tau(lmbda) * square)


def curved() -> Codec:
    """Return a codec of 2 latents and 4 pixels whose posteriors are bent; its integrals need quadrature."""

    def synthesis(latents: Tensor) -> Tensor:
        first, second = latents[:, 0], latents[:, 1]
        bent = second - 0.3 * first.square()
        return 0.5 + 0.03 * torch.stack([first, bent, first + bent, torch.sin(first)], -1)[:, None, None]

    def analysis(images: Tensor) -> Tensor:
        return (images[:, 0, 0, :2] - 0.5) / 0.03

    normal = torch.distributions.Normal(torch.zeros(2, dtype=torch.double), 1.0)
    return from_modules(analysis, synthesis, lambda latents: normal.log_prob(latents).sum(1))


def tau(lmbda: float) -> float:
    """Return the precision of the pixels' likelihood on the [0, 1] scale, one channel."""
    return 2 * kappa(lmbda, channels=1) * 255**2


def _water_filling(covariance: Tensor, lmbda: float) -> float:
    """Return `inf I(X;Y) + tau/2 E|X - Y|^2` of a Gaussian: the water stands at `1 / tau` in each eigendirection."""
    rate, sse = water_filling(torch.linalg.eigvalsh(covariance), 1 / tau(lmbda))
    return rate + 0.5 * tau(lmbda) * sse
