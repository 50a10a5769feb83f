"""Bounds of F_g for a given decoder: on three toys they enclose the F_g that Blahut-Arimoto finds on a grid of
latents."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from rdgap.gaps.reference import GaussianSource, LinearGaussian, curved, tau
from rdgap.model import Codec, from_modules
from rdgap.objective import cost
from rdgap.rate_distortion import GridPrior, fixed_decoder_bounds
from rdgap.rate_distortion.fixed_decoder import distortions_nats, log_supremum_of_decoder
from rdgap.rate_distortion.ntc import as_images, image_lmbda
from rdgap.rate_distortion.sources import Sphere

LMBDA = 0.01


def linear() -> tuple[Codec, Tensor, float, Tensor]:
    """One latent for two pixels; a prior that is too wide and off the mean."""
    draw = {"dtype": torch.double}
    codec = LinearGaussian(
        matrix=torch.tensor([[0.03], [0.02]], **draw), bias=torch.full((2,), 0.5, **draw),
        mean=torch.tensor([0.8], **draw), covariance=torch.tensor([[9.0]], **draw),
    )  # fmt: skip
    images = linear_source().images(600, torch.Generator().manual_seed(0))
    return codec, images, LMBDA, torch.linspace(-14, 14, 401, **draw)[:, None]


def linear_source() -> GaussianSource:
    covariance = torch.tensor([[2.0, 1.2], [1.2, 1.5]], dtype=torch.double) * 4 / tau(LMBDA)
    return GaussianSource(mean=torch.full((2,), 0.5, dtype=torch.double), covariance=covariance)


def bent() -> tuple[Codec, Tensor, float, Tensor]:
    """Two latents, a bent decoder, and images of latents that are less spread than the prior."""
    codec, generator = curved(), torch.Generator().manual_seed(0)
    latents = 0.6 * torch.randn(500, 2, dtype=torch.double, generator=generator) + 0.3
    images = codec.decode((latents,))
    images = images + 0.03 * torch.randn(images.shape, dtype=torch.double, generator=generator)
    axis = torch.linspace(-5, 5, 41, dtype=torch.double)
    return codec, images, LMBDA, torch.cartesian_prod(axis, axis)


def circle() -> tuple[Codec, Tensor, float, Tensor]:
    """An angle for points about the unit circle, with a prior that prefers one side."""
    normal = torch.distributions.Normal(torch.zeros((), dtype=torch.double), 1.2)
    codec = from_modules(
        analysis=lambda images: torch.atan2(images[:, 1, 0, 0] - 0.5, images[:, 0, 0, 0] - 0.5)[:, None],
        synthesis=lambda angle: as_images(torch.cat([angle.cos(), angle.sin()], 1)),
        log_prior=lambda angle: normal.log_prob(angle).sum(1),
        sample_prior=lambda like, generator: 1.2 * torch.randn(like.shape, dtype=torch.double, generator=generator),
    )
    source = Sphere(2)
    images = as_images(source.sample(600, torch.Generator().manual_seed(0)))
    grid = torch.linspace(-math.pi, math.pi, 241, dtype=torch.double)[:-1, None]
    return codec, images, image_lmbda(source, 10.0), grid


TOYS = pytest.mark.parametrize("toy", [linear, bent, circle], ids=lambda toy: toy.__name__)


@TOYS
def test_bounds_enclose_the_converged_cost_and_meet_when_the_prior_is_refitted(toy) -> None:
    codec, images, lmbda, grid = toy()
    prior = GridPrior.of_codec(codec, (grid,))
    own = prior.neg_log_gamma(codec, images, lmbda)
    refitted, solution = prior.refitted(codec, images, lmbda)
    f_g = solution.upper.f_nats
    assert f_g - solution.lower.f_nats <= 1e-6
    widths = []
    for share in (0.0, 0.5, 0.9, 0.99, 1.0):
        log_shares = ((1 - share) * prior.log_shares.exp() + share * refitted.log_shares.exp()).log()
        costs = GridPrior(latents=(grid,), log_shares=log_shares).neg_log_gamma(codec, images, lmbda)
        upper = float(costs.mean())
        table = distortions_nats(codec, (grid,), images, lmbda)
        lower = upper - float(torch.logsumexp(costs - table, 1).max()) + math.log(len(images))
        assert lower - 1e-9 <= f_g <= upper + 1e-9
        widths.append(upper - lower)
    assert widths[0] > 0.1
    assert all(after < before for before, after in pairwise(widths))
    assert widths[-1] < 1e-5
    assert float(own.mean()) - f_g > 0.02  # there was a prior gap to find


@TOYS
def test_sampled_bounds_enclose_it_too(toy) -> None:
    codec, images, lmbda, grid = toy()
    prior = GridPrior.of_codec(codec, (grid,))
    _, solution = prior.refitted(codec, images, lmbda)
    bounds = fixed_decoder_bounds(
        codec, images, prior.neg_log_gamma(codec, images, lmbda), lmbda, generator=torch.Generator().manual_seed(1),
        batches=4,
    )  # fmt: skip
    upper, lower = bounds.upper, bounds.lower
    assert lower.f_nats - 5 * lower.stderr_nats < solution.upper.f_nats < upper.f_nats + 5 * upper.stderr_nats
    assert bounds.prior_gap_upper_nats == pytest.approx(upper.f_nats - lower.f_nats)
    assert lower.f_nats > 0


def test_linear_decoder_has_the_cost_of_water_filling_in_its_range() -> None:
    codec, images, lmbda, grid = linear()
    assert isinstance(codec, LinearGaussian)
    truth = linear_source().fixed_decoder(codec, lmbda)
    _, solution = GridPrior.of_codec(codec, (grid,)).refitted(codec, images, lmbda)
    costs = solution.neg_log_gamma_nats
    assert abs(solution.upper.f_nats - truth) < 5 * float(costs.std()) / len(images) ** 0.5
    fresh = GridPrior.of_codec(codec, (grid,)).neg_log_gamma(codec, images, lmbda)
    torch.testing.assert_close(fresh, codec.neg_log_gamma(images, lmbda), atol=1e-3, rtol=0)


def test_distortions_are_those_of_the_objective() -> None:
    codec, images, lmbda, grid = bent()
    table = distortions_nats(codec, (grid[:3],), images[:2], lmbda)
    for row, latent in zip(table, grid[:3], strict=True):
        theirs = cost(codec, (latent.expand(2, 2),), images[:2], lmbda).distortion_nats
        torch.testing.assert_close(row, theirs, atol=1e-9, rtol=1e-9)


def test_supremum_over_latents_is_that_of_a_fine_grid() -> None:
    codec, images, lmbda, _ = bent()
    images, costs = images[:40], torch.linspace(0, 2, 40, dtype=torch.double)
    found = log_supremum_of_decoder(codec, images, costs, lmbda, torch.Generator().manual_seed(0))
    axis = torch.linspace(-3, 3, 241, dtype=torch.double)
    fine = torch.cartesian_prod(axis, axis)
    brute = torch.logsumexp(costs - distortions_nats(codec, (fine,), images, lmbda), 1).max() - math.log(40)
    assert found == pytest.approx(float(brute), abs=2e-3)


def test_too_few_images_are_refused() -> None:
    codec, images, lmbda, _ = circle()
    generator = torch.Generator()
    with pytest.raises(ValueError, match="at least 4 batches of 2 images"):
        fixed_decoder_bounds(codec, images[:5], torch.zeros(5), lmbda, generator=generator, batches=4)
    with pytest.raises(ValueError, match="must be one per image"):
        fixed_decoder_bounds(codec, images, torch.zeros(5), lmbda, generator=generator)
