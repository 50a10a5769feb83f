"""The one place where rate and distortion meet: units, weights and cropping."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from rdgap.model import from_modules
from rdgap.objective import (
    PAPER_LMBDAS,
    bpp_to_nats,
    check_lmbda,
    cost,
    kappa,
    likelihood_sigma,
    nats_to_bpp,
    reconstruct,
    uniform_noise,
)

GENERATOR_SEED = 3


def images_and_codec(channels=3, surplus=0, dtype=torch.float64):
    """Two different images of 5 x 7 pixels and a codec that scales them, with rows and columns to spare."""
    generator = torch.Generator().manual_seed(GENERATOR_SEED)
    images = torch.rand(2, channels, 5, 7, generator=generator, dtype=dtype)

    def synthesis(latent):
        return torch.nn.functional.pad(0.9 * latent, (0, surplus, 0, 2 * surplus), value=123.0)

    return images, from_modules(lambda x: x, synthesis, lambda y: -y.abs().sum(dim=(1, 2, 3)))


# ---------------------------------------------------------------- units


def test_one_bit_per_pixel_is_ln_2_nats_per_pixel():
    assert float(nats_to_bpp(torch.tensor(35 * math.log(2)), 35)) == pytest.approx(1.0)
    assert float(bpp_to_nats(torch.tensor(2.0), 35)) == pytest.approx(70 * math.log(2))


def test_kappa_is_lmbda_ln_2_over_the_channels():
    assert kappa(0.01) == pytest.approx(0.01 * 0.6931471805599453 / 3)
    assert kappa(0.01, channels=1) == pytest.approx(3 * kappa(0.01))


@pytest.mark.parametrize(("lmbda", "sigma"), [(0.00125, 41.6), (0.01, 14.7), (0.08, 5.20)])
def test_likelihood_has_the_published_widths(lmbda, sigma):
    assert likelihood_sigma(lmbda) == pytest.approx(sigma, rel=2e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_distortion_is_a_gaussian_log_likelihood_up_to_its_normaliser(channels):
    lmbda, errors = 0.02, np.array([-3.0, 7.5, 0.2])
    log_density = norm.logpdf(errors, scale=likelihood_sigma(lmbda, channels)).sum()
    at_zero = norm.logpdf(np.zeros(3), scale=likelihood_sigma(lmbda, channels)).sum()
    assert at_zero - log_density == pytest.approx(kappa(lmbda, channels) * np.square(errors).sum())


def test_the_grid_of_the_paper_doubles():
    assert PAPER_LMBDAS[3] == 0.01
    assert [b / a for a, b in itertools.pairwise(PAPER_LMBDAS)] == pytest.approx([2.0] * 6)


# ---------------------------------------------------------------- cost


@pytest.mark.parametrize("channels", [1, 3])
def test_cost_has_its_closed_form_for_each_image(channels):
    images, codec = images_and_codec(channels)
    result = cost(codec, codec.infer(images), images, 0.04)
    rate_nats = images.sum(dim=(1, 2, 3))
    sse = (25.5 * images).square().sum(dim=(1, 2, 3))
    mse = sse / (35 * channels)
    rate_bpp = rate_nats / 35 / math.log(2)
    for measured, expected in [
        (result.rate_nats, rate_nats),
        (result.sse, sse),
        (result.rate_bpp, rate_bpp),
        (result.mse, mse),
        (result.lagrangian_bpp, rate_bpp + 0.04 * mse),
        (result.distortion_nats, 35 * math.log(2) * 0.04 * mse),
        (result.lagrangian_nats, 35 * math.log(2) * (rate_bpp + 0.04 * mse)),
    ]:
        assert measured.shape == (2,)
        assert torch.allclose(measured, expected, rtol=1e-12)
    assert result.num_pixels == 35
    assert result.channels == channels
    assert rate_nats[0] != rate_nats[1]


def test_cost_of_a_batch_is_that_of_its_images():
    images, codec = images_and_codec()
    both = cost(codec, codec.infer(images), images, 0.01).lagrangian_nats
    each = [cost(codec, codec.infer(images[i : i + 1]), images[i : i + 1], 0.01).lagrangian_nats for i in range(2)]
    assert torch.allclose(both, torch.cat(each), rtol=1e-12)


def test_padding_never_enters_the_distortion():
    images, plain = images_and_codec()
    _, padded = images_and_codec(surplus=2)
    assert padded.decode((images,)).shape == (2, 3, 9, 9)
    assert torch.equal(cost(padded, (images,), images, 0.01).sse, cost(plain, (images,), images, 0.01).sse)


def test_reconstruction_keeps_the_top_left():
    images, padded = images_and_codec(surplus=1)
    assert torch.equal(reconstruct(padded, (images,), (5, 7)), 0.9 * images)
    assert torch.equal(reconstruct(padded, [images], (4, 6)), 0.9 * images[..., :4, :6])


@pytest.mark.parametrize("size", [(6, 7), (5, 8)])
def test_a_decoder_that_returns_too_little_is_refused(size):
    images, codec = images_and_codec()
    with pytest.raises(ValueError, match=r"at least the size of the image, got \(5, 7\)"):
        reconstruct(codec, (images,), size)


def test_distortion_is_neither_clipped_nor_rounded():
    images = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    codec = from_modules(lambda x: x, lambda y: y - 0.001, lambda y: torch.zeros(len(y)))
    assert float(cost(codec, (images,), images, 0.01).mse) == pytest.approx(0.255**2)


def test_gradients_in_the_latents_match_finite_differences():
    images, codec = images_and_codec()
    latents = (0.5 + images).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: cost(codec, (y,), images, 0.01).lagrangian_nats, latents)


def test_gradient_of_rate_and_distortion_both_count():
    images, codec = images_and_codec()
    latents = (images + 0.25).requires_grad_()
    (gradient,) = torch.autograd.grad(cost(codec, (latents,), images, 0.01).lagrangian_nats.sum(), latents)
    expected = 1 + 2 * kappa(0.01) * 255**2 * 0.9 * (0.9 * latents - images)
    assert torch.allclose(gradient, expected.detach())


@pytest.mark.parametrize("lmbda", [0.0, -0.01, math.nan, math.inf])
def test_lmbda_must_be_positive_and_finite(lmbda):
    images, codec = images_and_codec()
    with pytest.raises(ValueError, match=r"`lmbda` must be positive and finite, got"):
        cost(codec, (images,), images, lmbda)
    with pytest.raises(ValueError, match="positive"):
        check_lmbda(lmbda)


# ---------------------------------------------------------------- noise


def test_uniform_noise_is_the_unit_box_around_each_latent():
    latents = (torch.full((4, 5000), 3.0, dtype=torch.float64), torch.zeros(2, 7))
    noisy = uniform_noise(latents, torch.Generator().manual_seed(0))
    assert [(a.shape, a.dtype) for a in noisy] == [(b.shape, b.dtype) for b in latents]
    offset = noisy[0] - 3.0
    assert -0.5 <= offset.min() < -0.499
    assert 0.499 < offset.max() <= 0.5
    assert abs(offset.mean()) < 5 * math.sqrt(1 / 12 / 20000)
    assert float(offset.var()) == pytest.approx(1 / 12, rel=0.03)


def test_uniform_noise_repeats_with_its_seed_and_differs_between_latents():
    latents = (torch.zeros(2, 5), torch.zeros(2, 5))
    first, second = (uniform_noise(latents, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert not torch.equal(first[0], first[1])
