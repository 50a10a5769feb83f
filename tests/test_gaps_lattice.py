"""The hard-rounded codec against sums over all lattice points."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from rdgap.gaps import Posterior, decompose_rounded
from rdgap.gaps.lattice import _Base
from rdgap.gaps.variational import Gaussian
from rdgap.model import Codec, from_modules
from tests._recipes import random_images, tiny_codec

LMBDA, NATS = 0.01, 4 * 0.6931471805599453  # of four pixels


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coarse(dim: int) -> Codec:
    """Few latents on a curved decoder, posteriors of one to three lattice points in each direction."""

    def synthesis(latents: Tensor) -> Tensor:
        bent = latents + 0.2 * latents.roll(1, -1).square()
        mixed = (
            bent @ torch.tensor([[1.0, 0.4, -0.3, 0.2], [0.3, 1.0, 0.5, -0.6], [0.1, -0.2, 1.0, 0.7]]).double()[:dim]
        )
        return 0.5 + 0.05 * mixed[:, None, None]

    cells = torch.distributions.Normal(torch.zeros(dim).double(), 1.5)

    def log_prior(latents: Tensor) -> Tensor:
        return (cells.cdf(latents + 0.5) - cells.cdf(latents - 0.5)).log().sum(1)

    return from_modules(lambda images: (images[:, 0, 0, :dim] - 0.5) / 0.05, synthesis, log_prior)


def brute_force(codec: Codec, images: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """`-log Gamma_lattice` and the least energy by going through all lattice points that matter."""
    points = torch.tensor(list(itertools.product(range(-8, 9), repeat=dim))).double()
    energy = Posterior(codec, images, LMBDA, batch=10_000).energy(points[:, None].expand(-1, len(images), -1))
    return -torch.logsumexp(-energy, 0), energy.amin(0)


@pytest.mark.parametrize("dim", [2, 3])
def test_gamma_and_best_point_of_the_lattice_agree_with_the_sum_over_it(dim: int) -> None:
    codec = coarse(dim)
    images = 0.5 + 0.2 * torch.rand(3, 1, 1, 4, generator=seeded(1), dtype=torch.double)
    result = decompose_rounded(codec, images, LMBDA, generator=seeded(0), chains=1000, temperatures=10, batch=10_000)
    truth, least = brute_force(codec, images, dim)
    stderr = result.neg_log_gamma_upper_stderr_bpp * NATS
    assert (stderr < 0.005 * truth).all()
    assert ((result.neg_log_gamma_upper_bpp * NATS - truth).abs() < 5 * stderr).all()
    torch.testing.assert_close(result.best_point_upper_bpp * NATS, least)
    torch.testing.assert_close(result.rounded_bpp * NATS, _rounded(codec, images))
    parts = result.neg_log_gamma_upper_bpp + result.determinism_gap_bpp + result.search_gap_lower_bpp
    torch.testing.assert_close(parts, result.rounded_bpp)
    assert (result.determinism_gap_bpp > 0).all()
    assert (result.search_gap_lower_bpp >= 0).all()
    assert float(result.search_gap_lower_bpp.max()) > 0  # the encoder ignores the bend


def test_one_chain_lies_above_the_truth_on_average_and_more_temperatures_help() -> None:
    codec = coarse(3)
    images = 0.5 + 0.2 * torch.rand(1, 1, 1, 4, generator=seeded(1), dtype=torch.double).expand(300, -1, -1, -1)
    truth, _ = brute_force(codec, images[:1], 3)
    excess = {}
    for temperatures in (2, 16):
        bound = (
            decompose_rounded(
                codec, images, LMBDA, generator=seeded(2), chains=2, temperatures=temperatures, moves=2, batch=10_000
            ).neg_log_gamma_upper_bpp
            * NATS
        )
        excess[temperatures] = float((bound - truth).mean())
        assert excess[temperatures] > -5 * float(bound.std()) / 300**0.5
    assert excess[16] < excess[2]


def _rounded(codec: Codec, images: Tensor) -> Tensor:
    (symbols,) = codec.quantize(codec.infer(images))
    return Posterior(codec, images, LMBDA, batch=9).energy(symbols)


def test_discretised_gaussians_are_normalised_and_sampled_as_they_say() -> None:
    mean = torch.tensor([[0.3, -2.6, 7.5]]).double()
    base = _Base(Gaussian.diagonal(mean, torch.tensor([[-3.0, 0.0, 0.5]]).double()))
    integers = torch.arange(-30, 31).double()
    for index in range(3):
        symbols = mean.round().expand(61, 1, 3).clone()
        symbols[:, 0, index] = mean.round()[0, index] + integers
        others = _log_q(base, mean.round()[None]) - _alone(base, mean.round()[None], index)
        total = (-base.energy(symbols) - others).exp().sum()
        assert float(total) == pytest.approx(1)
    samples = base.sample(40_000, seeded(0))
    for index in range(3):
        for symbol in samples[:, 0, index].unique():
            share = float((samples[:, 0, index] == symbol).double().mean())
            expected = float(_alone(base, symbol * torch.ones(1, 1, 3).double(), index).exp())
            assert share == pytest.approx(expected, abs=5 * (expected / 40_000) ** 0.5 + 1e-4)


def _log_q(base: _Base, symbols: Tensor) -> Tensor:
    return sum((_alone(base, symbols, index) for index in range(3)), torch.zeros(()))


def _alone(base: _Base, symbols: Tensor, index: int) -> Tensor:
    """Log-probability of one symbol, by its definition."""
    mean, variance = base.mean[0, index], base.variance[0, index]
    integers = torch.arange(-40, 41).double() + mean.round()
    normalizer = (-((integers - mean) ** 2) / (2 * variance)).logsumexp(0)
    return -((symbols[0, 0, index] - mean) ** 2) / (2 * variance) - normalizer


@pytest.mark.parametrize("prior", ["mean-scale", "factorized"])
def test_the_lattice_of_a_trained_kind_of_codec_is_walked_in_its_own_integers(prior: str) -> None:
    codec, images = tiny_codec(prior=prior).requires_grad_(False), random_images(2, 3, 64, 64)
    result = decompose_rounded(codec, images, LMBDA, generator=seeded(0), temperatures=8, fit_steps=50)
    expected = Posterior(codec, images, LMBDA, batch=9)
    point = codec.quantize(codec.infer(images))
    energy = expected.energy(torch.cat([latent.flatten(1) for latent in point], 1)) / (64 * 64 * 0.6931471805599453)
    torch.testing.assert_close(result.rounded_bpp, energy, rtol=1e-5, atol=0)
    assert (result.best_point_upper_bpp <= result.rounded_bpp).all()
    assert list(result.to_frame().rounded_bpp) == pytest.approx(result.rounded_bpp.tolist())


def test_a_codec_without_integers_and_bad_arguments_are_refused() -> None:
    codec, images = coarse(2), torch.rand(1, 1, 1, 4).double()
    unnamed = type(
        "Unnamed", (), {name: getattr(codec, name) for name in ("infer", "quantize", "log_prior", "decode")}
    )()
    with pytest.raises(ValueError, match="to_symbols"):
        decompose_rounded(unnamed, images, LMBDA, generator=seeded(0))
    with pytest.raises(ValueError, match="`chains` must be at least 2, got 1"):
        decompose_rounded(codec, images, LMBDA, generator=seeded(0), chains=1)
