"""Densities, priors and imitated quantization of `rdgap.ntc` against naive differences, quadrature and sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from torch import Tensor
from torch.autograd import forward_ad

from rdgap.ntc import FactorizedPrior, MeanScaleHyperprior
from rdgap.ntc.priors import DeepFactorized, gaussian_log_density
from rdgap.ntc.quantization import Quantization, imitate, round_straight_through, unit_noise
from rdgap.zoo import load_codec, trained_lmbdas, trained_models
from tests._recipes import first_jvp_warns, shaken

TRAINED = [(name, lmbda) for name in trained_models() for lmbda in trained_lmbdas(name)]
NO_WEIGHTS = pytest.param("", 0.0, marks=pytest.mark.skip(reason="there are no trained weights in models/"))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def density(channels: int = 3, seed: int = 0) -> DeepFactorized:
    module = DeepFactorized(channels).double()
    shaken(module, seed)
    return module


def cumulative_by_loops(module: DeepFactorized, channel: int, value: float) -> float:
    """Balle et al. 2018, appendix 6.1, one number at a time."""
    x = np.array([value])
    for layer in range(3):
        matrix = module.matrices[layer][channel].detach().double().numpy()
        x = np.log1p(np.exp(matrix)) @ x + module.biases[layer][channel, :, 0].detach().double().numpy()
        if layer < 2:
            x = x + np.tanh(module.factors[layer][channel, :, 0].detach().double().numpy()) * np.tanh(x)
    return float(1 / (1 + np.exp(-x[0])))


def lattice(reach: int, offset: float, channels: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Every integer from -reach to reach, shifted by `offset`, for each channel: (1, channels, 1, number)."""
    integers = torch.arange(-reach, reach + 1, dtype=dtype) + offset
    return integers.repeat(1, channels, 1, 1)


# ---------------------------------------------------------------- deep factorized density


def test_the_factorized_density_is_the_difference_of_its_cumulative() -> None:
    module, values = density(), normal(2, 3, 2, 4) * 8
    result = module.log_density(values).detach()
    assert result.shape == values.shape
    for n, channel, row, column in torch.cartesian_prod(*map(torch.arange, values.shape)).tolist():
        v = float(values[n, channel, row, column])
        naive = cumulative_by_loops(module, channel, v + 0.5) - cumulative_by_loops(module, channel, v - 0.5)
        assert float(result[n, channel, row, column]) == pytest.approx(math.log(naive), abs=1e-10)


@pytest.mark.parametrize("offset", [0.0, 0.3, -0.47])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_factorized_density_sums_to_one_on_every_lattice(offset: float, seed: int) -> None:
    totals = density(4, seed).log_density(lattice(2000, offset, 4)).exp().sum(dim=-1)
    torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-9)


def test_the_factorized_density_sums_to_one_in_float32() -> None:
    totals = density(4).float().log_density(lattice(2000, 0.0, 4, torch.float32)).exp().double().sum(dim=-1)
    torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "lmbda"), TRAINED or [NO_WEIGHTS])
def test_trained_densities_sum_to_one_in_every_channel(name: str, lmbda: float) -> None:
    module = load_codec(name, lmbda).prior.density
    values = lattice(2000, 0.0, len(module.matrices[0]), torch.float32)
    totals = module.log_density(values).exp().double().sum(dim=-1)
    torch.testing.assert_close(totals, torch.ones_like(totals), rtol=0, atol=1e-4)


@pytest.mark.parametrize("value", [300.0, 3000.0, -300.0, -3000.0])
def test_the_factorized_density_is_right_in_far_tails_in_float32(value: float) -> None:
    module = density()
    values = torch.full((1, 3, 1, 1), value, requires_grad=True)
    sign = math.copysign(1.0, value)
    with torch.no_grad():  # where c is exp(logit) or 1 - exp(-logit), to relative exp(-|logit|)
        inner, outer = (
            module.logits(torch.full((3, 1, 1), value + sign * step, dtype=torch.float64)).abs() for step in (-0.5, 0.5)
        )
    assert inner.min() > 15
    expected = -inner + torch.log1p(-torch.exp(inner - outer))
    result = module.float().log_density(values)
    torch.testing.assert_close(result.double().flatten(), expected.flatten(), rtol=1e-3, atol=0)
    (slope,) = torch.autograd.grad(result.sum(), values)
    assert slope.isfinite().all()
    assert (slope.sign() == -sign).all()


def test_gradients_of_the_factorized_density_equal_finite_differences() -> None:
    module = density(2)
    values = (3 * normal(1, 2, 1, 3)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda values, *_: module.log_density(values), (values, *module.parameters()))


def test_the_cumulative_is_a_half_at_the_medians() -> None:
    module = density(5)
    for channel, median in enumerate(module.medians().tolist()):
        assert cumulative_by_loops(module, channel, median) == pytest.approx(0.5, abs=1e-12)
    assert module.medians().unique().numel() == 5


# ---------------------------------------------------------------- box-convolved Gaussian


def test_the_gaussian_density_is_the_difference_of_cumulatives() -> None:
    residual, scale = normal(50) * 3, normal(50, seed=1).exp()
    x, s = residual.numpy(), scale.numpy()
    expected = norm.cdf((x + 0.5) / s) - norm.cdf((x - 0.5) / s)
    np.testing.assert_allclose(gaussian_log_density(residual, scale).exp(), expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("scale", [0.11, 1.0, 37.0, 256.0])
@pytest.mark.parametrize("sigmas", [0.0, 1.0, -8.0, 30.0, -300.0])
def test_the_gaussian_density_equals_quadrature_far_into_its_tails(scale: float, sigmas: float) -> None:
    residual = sigmas * scale
    low, high = abs(residual) - 0.5, abs(residual) + 0.5
    peak = max(low, 0.0)  # where the integrand is largest; it is scaled to 1 there

    def integrand(t: float) -> float:
        return math.exp((peak - t) * (peak + t) / (2 * scale**2))

    end = min(high, peak + (40 * scale**2 / peak if peak > 0 else 40 * scale))  # beyond: below e^-40 of the peak
    integral = quad(integrand, max(low, -40 * scale), end, epsabs=0, epsrel=1e-11)[0]
    expected = math.log(integral / (scale * math.sqrt(2 * math.pi))) - peak**2 / (2 * scale**2)

    exact = gaussian_log_density(torch.tensor(residual, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64))
    assert float(exact) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    single = gaussian_log_density(torch.tensor(residual), torch.tensor(scale))
    assert float(single) == pytest.approx(expected, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize("scale", [0.11, 0.5, 4.0, 256.0])
@pytest.mark.parametrize("offset", [0.0, 0.3, -0.47])
def test_the_gaussian_density_sums_to_one_on_every_lattice(scale: float, offset: float) -> None:
    residual = lattice(3000, offset, 1)
    total = gaussian_log_density(residual, torch.full_like(residual, scale)).exp().sum()
    assert float(total) == pytest.approx(1.0, abs=1e-10)


def test_derivatives_of_the_gaussian_density_equal_finite_differences() -> None:
    residual = torch.tensor([-4.0, -0.4, 0.3, 0.5, 2.0, 9.0], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.7, 0.11, 0.3, 2.0, 5.0, 1.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gaussian_log_density, (residual, scale))
    assert torch.autograd.gradgradcheck(gaussian_log_density, (residual, scale), rtol=1e-2)


@first_jvp_warns
def test_forward_derivatives_of_the_gaussian_density_equal_finite_differences() -> None:
    residual, scale = normal(6) * 3, normal(6, seed=1).exp()
    tangent, step = normal(6, seed=2), 1e-6
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(gaussian_log_density(forward_ad.make_dual(residual, tangent), scale))
    ends = [gaussian_log_density(residual + sign * step * tangent, scale) for sign in (1, -1)]
    assert dual.tangent is not None
    torch.testing.assert_close(dual.tangent, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scale", [0.11, 1.0, 256.0])
def test_the_slope_of_the_gaussian_density_is_right_in_float32(scale: float) -> None:
    sigmas = torch.tensor([0.25, 1.0, 10.0, 100.0])
    residual = (sigmas * scale).requires_grad_(True)
    (slope,) = torch.autograd.grad(gaussian_log_density(residual, torch.tensor(scale)).sum(), residual)
    step = 1e-4 * scale
    ends = [
        gaussian_log_density(residual.detach().double() + sign * step, torch.tensor(scale, dtype=torch.float64))
        for sign in (1, -1)
    ]
    torch.testing.assert_close(slope.double(), (ends[0] - ends[1]) / (2 * step), rtol=5e-3, atol=2e-5)


# ---------------------------------------------------------------- imitated quantization


def test_noise_stays_within_half_a_step_and_is_seen_by_both() -> None:
    y = normal(2, 3, 20, 20) * 5
    for_rate, for_synthesis = imitate(y, "noise", unit_noise(y, generator()))
    assert for_synthesis is for_rate
    noise = for_rate - y
    assert noise.abs().max() <= 0.5
    assert noise.var() == pytest.approx(1 / 12, rel=0.1)
    assert noise.mean() == pytest.approx(0, abs=5 * math.sqrt(1 / 12 / noise.numel()))


def test_noise_follows_its_generator() -> None:
    y = normal(1, 2, 3, 4)
    same = [unit_noise(y, generator(7)) for _ in range(2)]
    assert torch.equal(*same)
    assert not torch.equal(same[0], unit_noise(y, generator(8)))


def test_straight_through_rounds_with_the_gradient_of_the_identity() -> None:
    y, slopes = (normal(1, 2, 3, 4) * 5).requires_grad_(True), normal(1, 2, 3, 4, seed=1)
    for_rate, for_synthesis = imitate(y, "straight-through", torch.zeros_like(y), torch.tensor(0.2).double())
    assert for_synthesis is for_rate
    torch.testing.assert_close(for_rate, torch.round(y.detach() - 0.2) + 0.2)
    (gradient,) = torch.autograd.grad((slopes * for_rate).sum(), y)
    assert torch.equal(gradient, slopes)


def test_rounding_about_a_mean_passes_no_gradient_to_the_mean() -> None:
    mean = normal(5).requires_grad_(True)
    assert not round_straight_through(normal(5, seed=1), mean).requires_grad


def test_mixed_shows_noise_to_the_rate_and_rounded_latents_to_the_synthesis() -> None:
    y = normal(1, 2, 3, 4) * 5
    for_rate, for_synthesis = imitate(y, "mixed", noise := unit_noise(y, generator(3)), 0.25)
    assert torch.equal(for_rate, y + noise)
    torch.testing.assert_close(for_synthesis, torch.round(y - 0.25) + 0.25)


# ---------------------------------------------------------------- priors of codecs


def hyperprior() -> MeanScaleHyperprior:
    prior = MeanScaleHyperprior(4, 3).double()
    shaken(prior, strength=0.15)
    return prior


def latents(prior: MeanScaleHyperprior, seed: int = 0) -> tuple[Tensor, Tensor]:
    z, y = prior.infer(normal(2, 4, 8, 12, seed=seed) * 6)
    return 5 * z.detach(), y


def test_the_hyperprior_adds_the_densities_of_both_latents_per_image() -> None:
    prior = hyperprior()
    z, y = latents(prior)
    mean, scale = (each.detach() for each in prior.parameters_of(z))
    y = mean + 3 * scale * torch.sin(y)  # where naive differences do not underflow
    for image in range(2):
        of_z = [
            cumulative_by_loops(prior.density, channel, v + 0.5) - cumulative_by_loops(prior.density, channel, v - 0.5)
            for channel in range(3)
            for v in z[image, channel].flatten().tolist()
        ]
        residual, s = (y[image] - mean[image]).numpy(), scale[image].numpy()
        of_y = norm.cdf((0.5 - np.abs(residual)) / s) - norm.cdf((-0.5 - np.abs(residual)) / s)
        expected = np.log(of_z).sum() + np.log(of_y).sum()
        assert float(prior.log_prior((z, y)).detach()[image]) == pytest.approx(expected, rel=1e-9)


def test_the_factorized_prior_sums_over_each_image() -> None:
    prior, y = FactorizedPrior(3).double(), normal(2, 3, 4, 5) * 4
    expected = prior.density.log_density(y).sum(dim=(1, 2, 3))
    torch.testing.assert_close(prior.log_prior((y,)), expected)


def test_hyperprior_scales_keep_their_bounds_and_come_back() -> None:
    prior = hyperprior()
    bias = prior.get_parameter("hyper_synthesis.4.bias")
    with torch.no_grad():
        bias[4:6] = -50.0
        bias[6:8] = 50.0
    _, scale = prior.parameters_of(normal(1, 3, 2, 2))
    torch.testing.assert_close(scale[:, :2], torch.full_like(scale[:, :2], 0.11))
    torch.testing.assert_close(scale[:, 2:], torch.full_like(scale[:, 2:], 256.0))
    (scale[:, 2:].sum() - scale[:, :2].sum()).backward()  # small ones should rise, large ones fall
    assert bias.grad is not None
    assert bias.grad[4:6].max() < 0
    assert bias.grad[6:8].min() > 0


@pytest.mark.parametrize("quantization", ["noise", "mixed", "straight-through"])
def test_rounding_is_about_the_median_and_the_mean_of_the_rounded_hyper_latent(quantization: Quantization) -> None:
    prior = hyperprior()
    z, y = latents(prior)
    z_hat, y_hat = prior.from_symbols(prior.to_symbols((z, y), quantization), quantization)
    offset = prior.density.medians()[:, None, None] if quantization == "noise" else torch.zeros(3, 1, 1).double()
    _assert_nearest_on_lattice(z_hat, z, offset.expand_as(z))
    _assert_nearest_on_lattice(y_hat, y, prior.parameters_of(z_hat)[0])
    assert not torch.allclose(prior.parameters_of(z_hat)[0], prior.parameters_of(z)[0], atol=1e-3)


@pytest.mark.parametrize("quantization", ["noise", "mixed"])
def test_the_factorized_prior_rounds_about_its_medians_where_trained_with_noise(quantization: Quantization) -> None:
    prior, y = FactorizedPrior(3).double(), normal(2, 3, 4, 5) * 4
    shaken(prior)
    (y_hat,) = prior.from_symbols(prior.to_symbols((y,), quantization), quantization)
    offset = prior.density.medians()[:, None, None] if quantization == "noise" else torch.zeros(3, 1, 1).double()
    _assert_nearest_on_lattice(y_hat, y, offset.expand_as(y))


def _assert_nearest_on_lattice(rounded: Tensor, values: Tensor, offset: Tensor) -> None:
    steps = (rounded - offset).detach()
    torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-9)
    assert steps.unique().numel() > 2
    assert (rounded - values).abs().max() <= 0.5 + 1e-9


def test_mixed_quantization_rounds_for_the_synthesis_and_the_hyper_synthesis_only() -> None:
    prior, y = hyperprior(), normal(2, 4, 8, 12) * 6
    rate, y_for_synthesis = prior.imitate(y, "mixed", generator(5))
    draw = generator(5)
    z, _ = prior.infer(y)
    z_noisy, y_noisy = (v + torch.rand(v.shape, generator=draw, dtype=v.dtype) - 0.5 for v in (z, y))
    mean, scale = prior.parameters_of(z.round())
    expected = prior.density.log_density(z_noisy).sum((1, 2, 3))
    expected = expected + gaussian_log_density(y_noisy - mean, scale).sum((1, 2, 3))
    torch.testing.assert_close(rate, -expected)
    torch.testing.assert_close(y_for_synthesis, torch.round(y - mean) + mean)


def test_samples_have_the_moments_of_the_factorized_density() -> None:
    module, number = density(), 40_000
    samples = module.sample(torch.zeros(number, 3, 1, 1).double(), generator(3))[:, :, 0, 0]
    grid = torch.linspace(-400, 400, 80_001, dtype=torch.double)
    weights = module.log_density(grid.expand(3, -1).T[:, :, None, None])[:, :, 0, 0].exp() * 0.01
    mean = (weights * grid[:, None]).sum(0)
    variance = (weights * (grid[:, None] - mean).square()).sum(0)
    fourth = (weights * (grid[:, None] - mean) ** 4).sum(0)
    assert ((samples.mean(0) - mean).abs() < 5 * (variance / number).sqrt()).all()
    assert ((samples.var(0) - variance).abs() < 5 * ((fourth - variance.square()) / number).sqrt()).all()
    assert (5 * ((fourth - variance.square()) / number).sqrt() < variance / 10).all()


def test_samples_of_the_hyperprior_follow_their_own_hyper_latents() -> None:
    prior = hyperprior()
    like = tuple(latent[:1].expand(300, *latent.shape[1:]) for latent in latents(prior))
    z, y = prior.sample(like, generator(3))
    assert (z.shape, y.shape) == (like[0].shape, like[1].shape)
    mean, scale = (each.detach() for each in prior.parameters_of(z))
    standardised = (y - mean) / (scale.square() + 1 / 12).sqrt()  # a Gaussian plus a unit box
    assert abs(float(standardised.mean())) < 5 / y.numel() ** 0.5
    assert float(standardised.square().mean()) == pytest.approx(1, abs=5 * (2 / y.numel()) ** 0.5)
    with torch.no_grad():
        gain = prior.log_prior((z, y)) - prior.log_prior((z.roll(1, 0), y))
    assert float(gain.mean()) > 1  # the hyper latents of another image predict worse
