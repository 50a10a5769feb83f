"""Bounds of `F_g(lmbda)`, the least cost with a given decoder `g` and the best prior and channel for it.

With `Gamma` of the codec's own prior and `w(z) = E[exp(-lmbda rho(X, g(z))) / Gamma(X)]`

    E[-log Gamma] - log sup_z w(z)  <=  F_g(lmbda)  <=  E[-log Gamma].

It is the dual of `rdgap.rate_distortion.dual` with reproductions restricted to what the decoder can make: the lower
bound holds with any positive function of the image, and of noise that is drawn along with it, in the place of `Gamma`.
So an estimate of `-log Gamma` costs tightness, never the side. The width of the interval bounds the prior gap, and is
zero for the best prior. All costs are in nats per image.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ..gaps.posterior import flatten
from ..model import Codec, GenerativeCodec, Latents
from ..objective import check_lmbda, kappa, reconstruct
from .blahut_arimoto import Certified, blahut_arimoto
from .dual import PILOTS, start_running
from .estimate import Estimate

_KEPT, _ASCENT_STEPS, _LEARNING_RATE = 16, 50, 0.1


@dataclass(frozen=True, kw_only=True)
class FixedDecoderBounds:
    """What is known of `F_g`; the prior gap lies between 0 and `prior_gap_upper_nats`.

    Attributes:
        upper: `E[-log Gamma]`, nats per image; its error is over images.
        lower: In expectation a lower bound.
    """

    upper: Estimate
    lower: Estimate

    @property
    def prior_gap_upper_nats(self) -> float:
        """Upper bound of `E[-log Gamma] - F_g`."""
        return self.upper.f_nats - self.lower.f_nats


def fixed_decoder_bounds(
    model: Codec,
    images: Tensor,
    neg_log_gamma_nats: Tensor,
    lmbda: float,
    *,
    generator: torch.Generator,
    batches: int = 10,
) -> FixedDecoderBounds:
    """Bound `F_g` of a codec's decoder from images and their `-log Gamma`.

    The search for the supremum starts at the latents of all images of a batch, and at draws from the prior where the
    codec has them; the best are moved uphill by Adam.

    Args:
        model: Any codec of the protocol in `rdgap.model`.
        images: (images, channels, height, width), independent draws from the source.
        neg_log_gamma_nats: `-log Gamma` of each, (images,), as an integral or an estimate.
        lmbda: Weight of the MSE (0..255 scale) in bits per pixel.
        generator: Source of the draws from the prior.
        batches: Into which the images are divided, at least 4: two of them serve for the floor of `u` and for `alpha`.

    Raises:
        ValueError: If there are fewer than two images for each batch, or as many costs as images are not given.
    """
    check_lmbda(lmbda)
    began = time.perf_counter()
    if batches < 4 or len(images) < 2 * batches:
        raise ValueError(f"at least 4 batches of 2 images are needed, got {len(images)} images in {batches}.")
    if neg_log_gamma_nats.shape != (len(images),):
        raise ValueError(
            f"`neg_log_gamma_nats` must be one per image, got {tuple(neg_log_gamma_nats.shape)} for {len(images)}."
        )
    costs = neg_log_gamma_nats.double()

    def largest(some: Tensor, neg_log_u: Tensor) -> float:
        return log_supremum_of_decoder(model, some, neg_log_u, lmbda, generator)

    groups = [(images[rows], costs[rows]) for rows in torch.arange(len(images)).chunk(batches)]
    ceiling, running = start_running(groups[:PILOTS], largest)
    for some, own in tqdm(groups[PILOTS:], desc="fixed decoder", leave=False, disable=None):
        neg_log_u = own.clamp(max=ceiling)
        running.add(float(neg_log_u.mean()), largest(some, neg_log_u))
    upper = Estimate(
        method="-log Gamma",
        side="upper",
        lmbda=lmbda,
        f_nats=float(costs.mean()),
        stderr_nats=float(costs.std()) / len(costs) ** 0.5,
        seconds=time.perf_counter() - began,
    )
    return FixedDecoderBounds(upper=upper, lower=running.estimate("fixed-decoder dual", lmbda, began))


def log_supremum_of_decoder(
    model: Codec, images: Tensor, neg_log_u: Tensor, lmbda: float, generator: torch.Generator
) -> float:
    """Return `log sup_z 1/k sum_i exp(neg_log_u_i - kappa SSE(x_i, g(z)))` over the k images."""
    with torch.no_grad():
        latents = model.infer(images)
        starts = [flatten(latents)]
        if isinstance(model, GenerativeCodec):
            starts.append(flatten(model.sample_prior(latents, generator)))
    shapes = [latent.shape[1:] for latent in latents]

    def value(rows: Tensor) -> Tensor:
        return torch.logsumexp(neg_log_u - distortions_nats(model, _unflatten(rows, shapes), images, lmbda), 1)

    rows = torch.cat(starts)
    with torch.no_grad():
        first = value(rows)
    points = rows[first.topk(min(_KEPT, len(first))).indices].clone().requires_grad_()
    optimizer = torch.optim.Adam([points], _LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _ASCENT_STEPS)
    best = float(first.max())
    for _ in range(_ASCENT_STEPS):
        reached = value(points)
        best = max(best, float(reached.detach().max()))
        (points.grad,) = torch.autograd.grad(-reached.sum(), points)
        optimizer.step()
        schedule.step()
    return best - math.log(len(images))


def distortions_nats(model: Codec, latents: Latents, images: Tensor, lmbda: float) -> Tensor:
    """Return `kappa SSE` of each decoded latent (m) and image (n) in nats, (m, n), double precision."""
    decoded = reconstruct(model, latents, (images.shape[-2], images.shape[-1])).flatten(1).double()
    targets = images.flatten(1).double()
    # Differences from a common point keep their precision when squares are subtracted.
    middle = targets.mean(0)
    decoded, targets = decoded - middle, targets - middle
    squares = decoded.square().sum(1)[:, None] + targets.square().sum(1) - 2 * decoded @ targets.T
    return kappa(lmbda, images.shape[1]) * 255.0**2 * squares.clamp(min=0)


def _unflatten(rows: Tensor, shapes: list[torch.Size]) -> Latents:
    parts = rows.split([math.prod(shape) for shape in shapes], dim=1)
    return tuple(part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True))


@dataclass(frozen=True, kw_only=True)
class GridPrior:
    """A prior on finitely many latents of a codec.

    Attributes:
        latents: Each (points, ...).
        log_shares: Logarithms of the probabilities, (points,).
    """

    latents: Latents
    log_shares: Tensor

    @staticmethod
    def of_codec(model: Codec, latents: Latents) -> GridPrior:
        """Return the codec's own prior on a regular grid of latents: with cells that are fine enough, its integrals."""
        with torch.no_grad():
            return GridPrior(latents=latents, log_shares=model.log_prior(latents).double().log_softmax(0))

    def neg_log_gamma(self, model: Codec, images: Tensor, lmbda: float, *, batch: int = 1024) -> Tensor:
        """Return `-log Gamma` of each image in nats, (images,), under this prior and the codec's decoder."""
        with torch.no_grad():
            return torch.cat(
                [
                    -torch.logsumexp(self.log_shares[:, None] - distortions_nats(model, self.latents, rows, lmbda), 0)
                    for rows in images.split(batch)
                ]
            )

    def refitted(
        self, model: Codec, images: Tensor, lmbda: float, *, tolerance_nats: float = 1e-6
    ) -> tuple[GridPrior, Certified]:
        """Return the best prior on these latents for the images, by Blahut-Arimoto, and `F_g` with its certificate.

        Costs are those of the images themselves: for a source they are drawn from, the prior's cost is to be measured
        on others.
        """
        with torch.no_grad():
            table = distortions_nats(model, self.latents, images, lmbda).T
        share = torch.full((len(images),), 1 / len(images), dtype=torch.double)
        (solution,) = blahut_arimoto(share, table, [1.0], tolerance_nats=tolerance_nats)
        return GridPrior(latents=self.latents, log_shares=solution.probabilities.log()), solution
