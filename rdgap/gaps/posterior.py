"""The posterior of a codec's latents given an image, whose normalizer is the `Gamma` of Eq. 8."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from ..model import Codec, Latents
from ..objective import cost


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

    Attributes:
        location: What the encoder infers, (images, dim).
        rounded_nats: Energy of the encoder's output on the codec's lattice, (images,): cost of the hard-rounded codec.
    """

    def __init__(self, model: Codec, images: Tensor, lmbda: float, *, batch: int) -> None:
        self._model, self._images, self._lmbda, self._batch = model, images, lmbda, batch
        with torch.no_grad():
            latents = [model.infer(image[None]) for image in images]  # an encoder is often wider than its decoder
            rounded = [model.quantize(location) for location in latents]
        self._shapes = [latent.shape[1:] for latent in latents[0]]
        self.location = torch.cat([_flatten(location) for location in latents])
        self.rounded_nats = self.energy(torch.cat([_flatten(lattice_point) for lattice_point in rounded]))

    @property
    def num_pixels(self) -> int:
        """Height times width of one image."""
        return self._images.shape[-2] * self._images.shape[-1]

    @torch.no_grad()
    def energy(self, points: Tensor) -> Tensor:
        """Return `U` in nats, (..., images), of points (..., images, dim)."""
        return torch.cat([self._energy(rows, images).double() for rows, images in self._passes(points)]).reshape(
            points.shape[:-1]
        )

    def energy_and_gradient(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return `U` in nats, (..., images), and its gradient, (..., images, dim); the codec's parameters get none."""
        energies, gradients = [], []
        with torch.enable_grad():
            for rows, images in self._passes(points):
                rows = rows.detach().requires_grad_()
                energy = self._energy(rows, images)
                gradients += torch.autograd.grad(energy.sum(), rows)
                energies.append(energy.detach().double())
        return torch.cat(energies).reshape(points.shape[:-1]), torch.cat(gradients).reshape(points.shape)

    def _energy(self, rows: Tensor, images: Tensor) -> Tensor:
        return cost(self._model, self._unflatten(rows), images, self._lmbda).lagrangian_nats

    def _passes(self, points: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Cut points into passes of at most `batch` rows, each row with its image."""
        rows = points.reshape(-1, points.shape[-1])
        which = torch.arange(len(rows), device=points.device) % len(self._images)
        for start in range(0, len(rows), self._batch):
            chosen = slice(start, start + self._batch)
            yield rows[chosen], self._images[which[chosen]]

    def _unflatten(self, rows: Tensor) -> Latents:
        parts = rows.split([math.prod(shape) for shape in self._shapes], dim=1)
        return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, self._shapes, strict=True))


def _flatten(latents: Latents) -> Tensor:
    return torch.cat([latent.flatten(1) for latent in latents], dim=1)
