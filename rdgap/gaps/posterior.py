"""The posterior of a codec's latents given an image, whose normalizer is the `Gamma` of Eq. 8."""

from __future__ import annotations

import math
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model import Codec, Latents
from ..objective import cost


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Rate and distortion of points and how they change.

    Attributes:
        rate_nats: `-log p(z)`, (..., images), double precision.
        distortion_nats: `kappa SSE(x, g(z))`, (..., images), double precision.
        rate_slope: Gradient of the rate, (..., images, dim).
        distortion_slope: Gradient of the distortion, (..., images, dim).
    """

    rate_nats: Tensor
    distortion_nats: Tensor
    rate_slope: Tensor
    distortion_slope: Tensor


class Posterior:
    """Energy of latents given images: `U(z) = -log p(z) + kappa SSE(x, g(z))` in nats per image.

    `exp(-U)` is the posterior times its normalizer `Gamma(x) = INT exp(-kappa SSE(x, g(z))) p(z) dz`. The
    tuple of latents that a codec knows is one row of `dim` numbers here, so that every sampler and every
    fit is written for plain vectors. Energies are returned in double precision; the codec computes in its own.

    Args:
        model: Any codec of the protocol in `rdgap.model`.
        images: (images, channels, height, width), in [0, 1].
        lmbda: Weight of the MSE (0..255 scale) in bits per pixel.
        batch: Most latents that are decoded at a time; bounds the memory.
        bf16: Let `slope` compute in bfloat16, where the sampler only needs a direction; energies never do.

    Attributes:
        location: What the encoder infers, (images, dim).
    """

    def __init__(self, model: Codec, images: Tensor, lmbda: float, *, batch: int, bf16: bool = False) -> None:
        self.model, self.images, self.lmbda, self.batch, self.bf16 = model, images, lmbda, batch, bf16
        with torch.no_grad():
            latents = [model.infer(image[None]) for image in images]  # an encoder is often wider than its decoder
        self._shapes = [latent.shape[1:] for latent in latents[0]]
        self.location = torch.cat([flatten(location) for location in latents])

    def repeated(self, times: int) -> Posterior:
        """Return the posterior of all images, then all of them again, so many times."""
        repeated = copy(self)
        repeated.images, repeated.location = self.images.repeat(times, 1, 1, 1), self.location.repeat(times, 1)
        return repeated

    @property
    def num_pixels(self) -> int:
        """Height times width of one image."""
        return self.images.shape[-2] * self.images.shape[-1]

    def latents_of(self, rows: Tensor) -> Latents:
        """Return rows (number, dim) as the codec's tuple of latents."""
        parts = rows.split([math.prod(shape) for shape in self._shapes], dim=1)
        return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, self._shapes, strict=True))

    @torch.no_grad()
    def energy(self, points: Tensor) -> Tensor:
        """Return `U` in nats, (..., images), of points (..., images, dim)."""
        rate, distortion = self.costs(points)
        return rate + distortion

    @torch.no_grad()
    def costs(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return rate and distortion in nats, each (..., images), of points (..., images, dim)."""
        passes = [self._costs(rows, images) for rows, images in self._passes(points)]
        rate, distortion = (torch.cat(parts).double().reshape(points.shape[:-1]) for parts in zip(*passes, strict=True))
        return rate, distortion

    def evaluate(self, points: Tensor) -> Evaluation:
        """Return rate, distortion and their gradients at points (..., images, dim); parameters get no gradient."""
        shape = points.shape
        if self.bf16:  # the very slopes that the sampler follows, beside energies in full precision
            rate, distortion = self.costs(points)
            rate_slope, distortion_slope = self.slopes(points)
        else:
            passes = [self._costs_and_slopes(rows, images) for rows, images in self._passes(points)]
            parts = [torch.cat(column) for column in zip(*passes, strict=True)]
            rate, distortion = (part.double().reshape(shape[:-1]) for part in parts[:2])
            rate_slope, distortion_slope = (part.reshape(shape) for part in parts[2:])
        return Evaluation(
            rate_nats=rate, distortion_nats=distortion, rate_slope=rate_slope, distortion_slope=distortion_slope
        )

    def slopes(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradients of rate and distortion alone, each (..., images, dim), in bfloat16 where allowed."""
        with torch.autocast(points.device.type, torch.bfloat16, enabled=self.bf16):
            passes = [self._costs_and_slopes(rows, images)[2:] for rows, images in self._passes(points)]
        rate, distortion = (torch.cat(parts).reshape(points.shape) for parts in zip(*passes, strict=True))
        return rate, distortion

    def _costs_and_slopes(self, rows: Tensor, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        with torch.enable_grad():
            rows = rows.detach().requires_grad_()
            rate, distortion = self._costs(rows, images)
            (rate_slope,) = torch.autograd.grad(rate.sum(), rows, retain_graph=True)
            (distortion_slope,) = torch.autograd.grad(distortion.sum(), rows)
        return rate.detach(), distortion.detach(), rate_slope, distortion_slope

    def _costs(self, rows: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        costs = cost(self.model, self.latents_of(rows), images, self.lmbda)
        return costs.rate_nats, costs.distortion_nats

    def _passes(self, points: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Cut points into passes of at most `batch` rows, each row with its image."""
        rows = points.reshape(-1, points.shape[-1])
        which = torch.arange(len(rows), device=points.device) % len(self.images)
        for start in range(0, len(rows), self.batch):
            chosen = slice(start, start + self.batch)
            yield rows[chosen], self.images[which[chosen]]


def flatten(latents: Latents) -> Tensor:
    """Return a tuple of latents as rows (batch, dim)."""
    return torch.cat([latent.flatten(1) for latent in latents], dim=1)
