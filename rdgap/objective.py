"""Units and the rate-distortion Lagrangian: the ground floor that everything else stands on.

Two ways of writing one objective meet here, and nowhere else:

- practice: `L = rate_bpp + lmbda * mse`, MSE averaged over pixels and channels on the 0..255 scale;
- theory (Yang & Mandt 2023, Eq. 7): `-log p(z) + kappa * SSE` in nats per image, SSE on the 0..255 scale.

They are the same number in different units: `nats = num_pixels * ln 2 * bpp`, and with C channels
`kappa = lmbda * ln 2 / C`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .model import Codec

PAPER_LMBDAS = (0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
"""The grid of Lagrange multipliers that the paper trains."""


def nats_to_bpp(nats: Tensor, num_pixels: int) -> Tensor:
    """Convert nats per image to bits per pixel."""
    return nats / (num_pixels * math.log(2))


def bpp_to_nats(bpp: Tensor, num_pixels: int) -> Tensor:
    """Convert bits per pixel to nats per image."""
    return bpp * (num_pixels * math.log(2))


def kappa(lmbda: float, channels: int = 3) -> float:
    """Return the weight of the summed squared error (0..255 scale) in nats: `lmbda ln2 / channels`."""
    return lmbda * math.log(2) / channels


def likelihood_sigma(lmbda: float, channels: int = 3) -> float:
    """Return the standard deviation (0..255 scale) of the Gaussian whose log-density is `-kappa SSE`.

    `sigma^2 = 1 / (2 kappa)`; 14.7 gray levels at lmbda = .01.
    """
    return math.sqrt(0.5 / kappa(lmbda, channels))


def reconstruct(model: Codec, latents: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
    """Decode latents and keep the `size` = (height, width) of the image that they describe.

    A decoder may return more rows and columns than the image has, because the image was padded at
    the bottom and right before the analysis; the surplus never enters a distortion.

    Raises:
        ValueError: If the decoder returns fewer rows or columns than the image has.
    """
    return _cropped(model.decode(tuple(latents)), size)


def _cropped(decoded: Tensor, size: tuple[int, int]) -> Tensor:
    if decoded.shape[-2] < size[0] or decoded.shape[-1] < size[1]:
        raise ValueError(
            "`decode` must return at least the size of the image, "
            f"got {tuple(decoded.shape[-2:])} for an image of {size}."
        )
    return decoded[..., : size[0], : size[1]]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Rate-distortion cost of each image of a batch.

    Attributes:
        rate_nats: `-log p(latents)`, (batch,).
        sse: Squared error summed over pixels and channels on the 0..255 scale, (batch,).
        num_pixels: Height times width of one image.
        channels: Channels of one image.
        lmbda: Weight of the MSE in bits per pixel.
    """

    rate_nats: Tensor
    sse: Tensor
    num_pixels: int
    channels: int
    lmbda: float

    @property
    def rate_bpp(self) -> Tensor:
        """Rate in bits per pixel, (batch,)."""
        return nats_to_bpp(self.rate_nats, self.num_pixels)

    @property
    def mse(self) -> Tensor:
        """Mean squared error over pixels and channels, 0..255 scale, (batch,)."""
        return self.sse / (self.num_pixels * self.channels)

    @property
    def lagrangian_bpp(self) -> Tensor:
        """`rate_bpp + lmbda * mse`, (batch,)."""
        return self.rate_bpp + self.lmbda * self.mse

    @property
    def distortion_nats(self) -> Tensor:
        """`kappa * SSE`, the theory's `lambda * rho`, (batch,)."""
        return kappa(self.lmbda, self.channels) * self.sse

    @property
    def lagrangian_nats(self) -> Tensor:
        """`rate_nats + kappa * SSE`, (batch,)."""
        return self.rate_nats + self.distortion_nats


def cost(model: Codec, latents: Sequence[Tensor], images: Tensor, lmbda: float) -> Cost:
    """Return the rate-distortion cost of describing `images` by `latents`.

    The one place where rate and distortion meet. Differentiable in the latents and in the
    parameters of the model; the distortion is neither clipped nor rounded.

    Args:
        model: Any codec of the protocol in `rdgap.model`.
        latents: What `model.infer` returns, perhaps perturbed; each (batch, ...).
        images: (batch, channels, height, width), in [0, 1].
        lmbda: Weight of the MSE (0..255 scale) in bits per pixel.

    Raises:
        ValueError: If `lmbda` is not positive.
    """
    check_lmbda(lmbda)
    return cost_of_reading(model.log_prior(tuple(latents)), model.decode(tuple(latents)), images, lmbda)


def cost_of_reading(log_prior: Tensor, decoded: Tensor, images: Tensor, lmbda: float) -> Cost:
    """Return the cost of latents of which log-prior in nats, (batch,), and decoded images are known already.

    `decoded` may have more rows and columns than `images`, as in `reconstruct`.
    """
    channels, height, width = images.shape[-3:]
    error = (_cropped(decoded, (height, width)) - images) * 255.0
    return Cost(
        rate_nats=-log_prior,
        sse=error.square().sum(dim=(-3, -2, -1)),
        num_pixels=height * width,
        channels=channels,
        lmbda=lmbda,
    )


def check_lmbda(lmbda: float) -> None:
    """Raise `ValueError` unless `lmbda` is a positive finite number."""
    if not (lmbda > 0 and math.isfinite(lmbda)):
        raise ValueError(f"`lmbda` must be positive and finite, got {lmbda}.")


def uniform_noise(latents: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, ...]:
    """Draw from the unit box around each latent: the channel of a codec with dithered quantization."""
    return tuple(
        latent + torch.rand(latent.shape, generator=generator, dtype=latent.dtype, device=latent.device) - 0.5
        for latent in latents
    )
