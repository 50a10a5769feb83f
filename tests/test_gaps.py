from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from rdgap.gaps import (
    Box,
    Gaussian,
    Posterior,
    SourceBounds,
    anneal,
    anneal_from_each,
    bidirectional,
    both_sides,
    decompose,
    fit_box,
    fit_gaussian,
    ideal_curve,
    importance_bound,
    simulate,
    widen,
)
from rdgap.gaps.ais import AnnealedEstimate, Kernel, sigmoid_schedule
from rdgap.gaps.bidirectional import REVERSE_MOVES
from rdgap.gaps.hmc import transition
from rdgap.gaps.path import State
from rdgap.gaps.reference import GaussianSource, LinearGaussian, curved, tau
from rdgap.model import from_modules
from rdgap.objective import kappa, likelihood_sigma

from ._recipes import random_images, tiny_codec
from ._toys import Funnel, TwoLatents, best_diagonal, linear_toy, toy_images

LMBDA = 0.01
SIZES = [(2, 12), (64, 96)]  # (latents, pixels)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def posterior_of(toy: LinearGaussian, number: int = 2, batch: int = 10_000) -> tuple[Posterior, Tensor]:
    images = toy_images(toy, number, LMBDA, seed=5)
    return Posterior(toy, images, LMBDA, batch=batch), images


def assert_same_fields(one: object, other: object) -> None:
    for name, amount in vars(one).items():
        torch.testing.assert_close(amount, getattr(other, name))


def assert_agrees(estimate: Tensor, stderr: Tensor, truth: Tensor, relative: float = 0.005) -> None:
    assert (stderr < relative * truth).all(), "the estimate is too noisy to test anything"
    assert ((estimate - truth).abs() < 5 * stderr).all(), f"{estimate} is not {truth} within 5 * {stderr}"


def test_closed_form_of_the_toy_agrees_with_quadrature() -> None:
    toy = linear_toy(2, 5, seed=3)
    posterior, images = posterior_of(toy, number=1)
    axis = torch.linspace(-8, 8, 801, dtype=torch.double)
    grid = torch.cartesian_prod(axis, axis) + toy.posterior_mean(images, LMBDA)
    log_gamma = torch.logsumexp(-posterior.energy(grid[:, None]), 0) + 2 * math.log(float(axis[1] - axis[0]))
    torch.testing.assert_close(-log_gamma, toy.neg_log_gamma(images, LMBDA), rtol=1e-9, atol=0)


def test_energy_is_rate_plus_kappa_times_squared_error_in_nats() -> None:
    toy = linear_toy(2, 5, seed=3)
    posterior, images = posterior_of(toy)
    points = torch.tensor([[0.3, -0.8], [1.1, 0.4]], dtype=torch.double)
    prior = torch.distributions.MultivariateNormal(toy.mean, toy.covariance)
    error = 255 * (points @ toy.matrix.T + toy.bias - images[:, 0, 0])
    expected = -prior.log_prob(points) + LMBDA * math.log(2) * error.square().sum(-1)  # kappa of one channel
    torch.testing.assert_close(posterior.energy(points), expected)


def test_gradient_is_that_of_finite_differences_and_passes_do_not_matter() -> None:
    toy = linear_toy(3, 5, seed=3)
    posterior, images = posterior_of(toy)
    points = torch.randn(4, 2, 3, dtype=torch.double, generator=seeded(0))
    found = posterior.evaluate(points)
    step = 1e-4
    for axis in range(3):
        shift = step * torch.eye(3, dtype=torch.double)[axis]
        for above, below, gradient in zip(
            posterior.costs(points + shift),
            posterior.costs(points - shift),
            (found.rate_slope, found.distortion_slope),
            strict=True,
        ):
            torch.testing.assert_close(gradient[..., axis], (above - below) / (2 * step), rtol=1e-5, atol=1e-5)
    in_threes = Posterior(toy, images, LMBDA, batch=3)
    torch.testing.assert_close(in_threes.energy(points), found.rate_nats + found.distortion_nats)
    assert_same_fields(in_threes.evaluate(points), found)
    torch.testing.assert_close(in_threes.slopes(points), (found.rate_slope, found.distortion_slope))


def test_latents_of_several_shapes_are_restored_and_parameters_get_no_gradient() -> None:
    toy, images = TwoLatents(), torch.rand(2, 3, 4, 6, generator=seeded(0))
    posterior = Posterior(toy, images, LMBDA, batch=3)
    assert posterior.location.shape == (2, 6 + 24)
    found = posterior.evaluate(posterior.location)
    latents = toy.infer(images)
    error = 255 * (toy.decode(latents) - images)
    expected = -toy.log_prior(latents) + kappa(LMBDA) * error.square().sum((1, 2, 3))
    torch.testing.assert_close(found.rate_nats + found.distortion_nats, expected.detach().double())
    assert toy.scale.grad is None


def test_cost_of_the_exact_posterior_is_minus_log_gamma_without_noise() -> None:
    scale = torch.tensor([0.5, 2.0], dtype=torch.double)
    toy = replace(linear_toy(2, 2, seed=0), matrix=torch.diag(0.02 * scale), covariance=torch.diag(scale))
    posterior, images = posterior_of(toy)
    costs = best_diagonal(toy, images, LMBDA).sample_cost(posterior, 8, seeded(0))  # the posterior is diagonal here
    torch.testing.assert_close(costs, toy.neg_log_gamma(images, LMBDA).expand(8, 2))


@pytest.mark.parametrize(("dim", "pixels"), SIZES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fitted_gaussian_reaches_the_best_diagonal_gaussian(dim: int, pixels: int, seed: int) -> None:
    toy = linear_toy(dim, pixels, seed=seed, encoder_shift=0.5)
    posterior, images = posterior_of(toy)
    fitted = fit_gaussian(posterior, steps=500, generator=seeded(seed))
    best = best_diagonal(toy, images, LMBDA)
    torch.testing.assert_close(fitted.log_std, best.log_std, rtol=0, atol=0.15)
    assert ((fitted.mean - best.mean).abs() < 0.1 * best.log_std.exp()).all()
    draws = fitted.sample_cost(posterior, 2000, seeded(seed + 100))
    assert_agrees(draws.mean(0), draws.std(0) / 2000**0.5, toy.mean_field_cost(images, LMBDA))


@pytest.mark.parametrize(("dim", "pixels"), SIZES)
def test_cost_of_a_box_and_of_the_best_box_agree_with_the_closed_form(dim: int, pixels: int) -> None:
    toy = linear_toy(dim, pixels, seed=1, encoder_shift=0.5)
    posterior, images = posterior_of(toy)
    best = toy.posterior_mean(images, LMBDA)
    fitted = fit_box(posterior, steps=500, generator=seeded(0)).location
    for location, truth in ((posterior.location, posterior.location), (fitted, best)):
        draws = Box(location=location).sample_cost(posterior, 4000, seeded(1))
        assert_agrees(draws.mean(0), draws.std(0) / 4000**0.5, toy.box_cost(truth, images, LMBDA))


# Gaussians with a factor


def random_gaussian(images: int, dim: int, rank: int) -> Gaussian:
    draw = {"dtype": torch.double, "generator": seeded(3)}
    return Gaussian(
        mean=torch.randn(images, dim, **draw),
        log_std=0.5 * torch.randn(images, dim, **draw),
        factor=torch.randn(images, dim, rank, **draw),
    )


def maps_of(gaussian: Gaussian) -> Tensor:
    """The matrix (images, dim, dim) of each map from noise to points, a column at a time."""
    images, dim = gaussian.mean.shape
    units = torch.eye(dim, dtype=torch.double)[:, None].expand(dim, images, dim)
    return (gaussian.at(units) - gaussian.mean).permute(1, 2, 0)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_gaussian_has_the_covariance_that_it_says_and_the_volume_of_its_map(rank: int) -> None:
    gaussian = random_gaussian(2, 5, rank)
    maps = maps_of(gaussian)
    scale = torch.diag_embed(gaussian.log_std.exp())
    covariance = scale @ (torch.eye(5, dtype=torch.double) + gaussian.factor @ gaussian.factor.mT) @ scale
    torch.testing.assert_close(maps @ maps.mT, covariance)
    torch.testing.assert_close(gaussian.log_volume, torch.linalg.slogdet(maps).logabsdet)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_noise_is_recovered_and_slopes_are_pulled_back_by_the_transposed_jacobian(rank: int) -> None:
    gaussian = random_gaussian(2, 5, rank)
    noise = torch.randn(4, 2, 5, dtype=torch.double, generator=seeded(0))
    torch.testing.assert_close(gaussian.noise_of(gaussian.at(noise)), noise)
    expected = torch.einsum("ikj,sik->sij", maps_of(gaussian), noise)
    torch.testing.assert_close(gaussian.pulled_back(noise), expected)


def low_rank_toy(dim: int, rank: int, encoder_shift: float = 0.5) -> LinearGaussian:
    """A codec whose posterior covariance is a diagonal plus a matrix of low rank."""
    draw = {"dtype": torch.double, "generator": seeded(1009)}
    factor = 2 * torch.randn(dim, rank, **draw)
    basis = torch.linalg.qr(torch.randn(dim + 3, dim, **draw)).Q
    return LinearGaussian(
        matrix=basis * (0.02 + 0.02 * torch.rand(dim, **draw)),
        bias=torch.full((dim + 3,), 0.5, dtype=torch.double),
        mean=torch.randn(dim, **draw),
        covariance=torch.diag(0.5 + torch.rand(dim, **draw)) + factor @ factor.T / dim**0.5,
        encoder_shift=encoder_shift,
    )


@pytest.mark.parametrize("seed", [0, 1])
def test_fitted_factor_reaches_minus_log_gamma_where_a_diagonal_cannot(seed: int) -> None:
    toy = low_rank_toy(12, 2)
    posterior, images = posterior_of(toy)
    truth = toy.neg_log_gamma(images, LMBDA)
    draws = {
        rank: fit_gaussian(posterior, steps=1000, generator=seeded(seed), rank=rank).sample_cost(
            posterior, 4000, seeded(seed + 100)
        )
        for rank in (0, 2)
    }
    diagonal, exact = ((draws[rank].mean(0) - truth, draws[rank].std(0) / 4000**0.5) for rank in (0, 2))
    assert (exact[0] > -5 * exact[1]).all()
    assert (exact[0] < 0.01).all()
    assert (diagonal[0] > 0.1).all()
    assert_agrees(draws[0].mean(0), diagonal[1], toy.mean_field_cost(images, LMBDA))


# importance weights


def test_importance_bound_agrees_with_the_closed_form_and_tightens_with_samples() -> None:
    toy = linear_toy(12, 18, seed=0)
    posterior, images = posterior_of(toy)
    truth, q = toy.neg_log_gamma(images, LMBDA), best_diagonal(toy, images, LMBDA)
    q = replace(q, log_std=q.log_std + 0.3)  # as wide as the posterior, or weights have no variance
    estimate = importance_bound(posterior, q, samples=200_000, generator=seeded(0))
    assert_agrees(estimate.neg_log_gamma_upper_nats, estimate.stderr_nats, truth)
    assert ((estimate.effective_samples > 100) & (estimate.effective_samples < 200_000)).all()
    weights = estimate.log_weights_nats.reshape(-1, 4, 50, 2)  # many bounds, of 1, 4 and 200 samples each
    bounds = [
        -weights.flatten(0, 2),
        -(weights.logsumexp(1) - math.log(4)).flatten(0, 1),
        -(weights.logsumexp((1, 2)) - math.log(200)),
    ]
    excess = [bound.mean(0) - truth for bound in bounds]
    for bound, above in zip(bounds, excess, strict=True):
        assert (above > 5 * bound.std(0) / len(bound) ** 0.5).all()
    assert (excess[1] < 0.8 * excess[0]).all()
    assert (excess[2] < 0.5 * excess[1]).all()


def test_importance_weights_of_a_box_and_of_one_sample_are_refused() -> None:
    toy = linear_toy(2, 5, seed=3)
    posterior, images = posterior_of(toy)
    with pytest.raises(ValueError, match="a unit box has none outside itself"):
        importance_bound(posterior, Box(location=posterior.location), samples=8, generator=seeded(0))  # pyright: ignore
    with pytest.raises(ValueError, match="`samples` must be at least 2, got 1"):
        importance_bound(posterior, best_diagonal(toy, images, LMBDA), samples=1, generator=seeded(0))


# Hamiltonian Monte Carlo


class FromStandardNormal:
    """From a standard normal to a density of energy `U`, given as a function that returns it with its gradient."""

    def __init__(self, energy_and_slope: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        self.energy_and_slope = energy_and_slope

    def state(self, points: Tensor) -> State:
        energy, slope = self.energy_and_slope(points)
        first = 0.5 * points.double().square().sum(-1)
        return State(points=points, first=first, second=energy - first, first_slope=points, second_slope=slope - points)

    def slope(self, points: Tensor, beta: float) -> Tensor:
        return self.state(points).slope(beta)


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_hmc_keeps_the_moments_of_the_bridge_between_two_gaussians(beta: float) -> None:
    mean, precision = torch.tensor([1.0, -2.0]).double(), torch.tensor([[2.0, 0.8], [0.8, 1.0]]).double()

    def target(points: Tensor) -> tuple[Tensor, Tensor]:
        slope = (points - mean) @ precision
        return 0.5 * (slope * (points - mean)).sum(-1), slope

    bridge = (1 - beta) * torch.eye(2, dtype=torch.double) + beta * precision
    centre, covariance = torch.linalg.solve(bridge, beta * precision @ mean), torch.linalg.inv(bridge)
    path, generator, chains = FromStandardNormal(target), seeded(0), 20_000
    step = torch.full((1,), 0.9, dtype=torch.double)  # coarse: without the accept step the moments are wrong
    state = path.state(torch.zeros(chains, 1, 2, dtype=torch.double))  # far from the mean, so that it has to move
    for _ in range(40):
        move = transition(state, path, beta=beta, step_size=step, leapfrog_steps=3, generator=generator)
        state = move.state
    assert 0.5 < float(move.probability.mean()) < 0.99
    assert not move.diverged.any()
    points = state.points[:, 0]
    spread = covariance.diagonal().sqrt()
    assert ((points.mean(0) - centre).abs() < 5 * spread / chains**0.5).all()
    stderr = (torch.outer(covariance.diagonal(), covariance.diagonal()) + covariance.square()).sqrt() / chains**0.5
    assert ((points.T.cov() - covariance).abs() < 5 * stderr).all()
    assert_same_fields(state, path.state(state.points))  # points and energies moved together


@pytest.mark.parametrize("beyond", [math.nan, math.inf, -math.inf, 1e6])
def test_moves_to_where_the_energy_is_not_finite_or_jumps_are_counted_and_never_accepted(beyond: float) -> None:
    def target(points: Tensor) -> tuple[Tensor, Tensor]:
        energy = 0.5 * points.double().square().sum(-1)
        return torch.where(points[..., 0] > 1, beyond, energy), points

    path, chains = FromStandardNormal(target), 4000
    inside = torch.randn(chains, 1, 2, dtype=torch.double, generator=seeded(1)).clamp(max=0.9)
    state = path.state(inside)
    move = transition(state, path, beta=1.0, step_size=torch.full((1,), 0.5), leapfrog_steps=4, generator=seeded(0))
    assert 0.05 < float(move.diverged.double().mean()) < 0.5
    assert (move.probability[move.diverged] == 0).all()
    assert torch.equal(move.state.points[move.diverged], inside[move.diverged])
    assert (move.state.points[..., 0] <= 1).all()
    assert (move.state.points != inside).any()


# annealed importance sampling


@pytest.mark.parametrize(("dim", "pixels"), SIZES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_annealing_from_the_fit_agrees_with_the_closed_form(dim: int, pixels: int, seed: int) -> None:
    toy = linear_toy(dim, pixels, seed=seed, encoder_shift=0.5)
    posterior, images = posterior_of(toy)
    base = fit_gaussian(posterior, steps=300, generator=seeded(seed))
    estimate = anneal(posterior, base, chains=128, temperatures=100, generator=seeded(seed + 100))
    assert_agrees(estimate.neg_log_gamma_upper_nats, estimate.stderr_nats, toy.neg_log_gamma(images, LMBDA))
    assert ((estimate.acceptance > 0.6) & (estimate.acceptance < 0.85)).all()
    assert (estimate.effective_chains > 4).all()


def test_mean_of_exponentiated_weights_is_gamma_even_with_few_temperatures() -> None:
    toy = linear_toy(2, 12, seed=0)
    posterior, images = posterior_of(toy, number=1)
    estimate = anneal(posterior, best_diagonal(toy, images, LMBDA), chains=20_000, temperatures=3, generator=seeded(0))
    assert float(estimate.stderr_nats) < 0.01
    assert_agrees(estimate.neg_log_gamma_upper_nats, estimate.stderr_nats, toy.neg_log_gamma(images, LMBDA))


def test_weights_from_several_bases_average_to_gamma_and_a_bad_base_costs_its_share_of_the_chains() -> None:
    toy = linear_toy(2, 12, seed=0)
    posterior, images = posterior_of(toy, number=2)
    good = best_diagonal(toy, images, LMBDA)
    bad = replace(good, mean=good.mean + 1.5 * good.log_std.exp())
    truth = toy.neg_log_gamma(images, LMBDA)
    settings = {"temperatures": 5, "generator": seeded(0)}
    estimate = anneal_from_each(posterior, (good, bad), chains=20_001, **settings)
    assert estimate.upper_sums_nats.shape == (20_001, 2)
    assert estimate.acceptance.shape == (2,)
    assert_agrees(estimate.neg_log_gamma_upper_nats, estimate.stderr_nats, truth)
    from_bad = estimate.upper_sums_nats[1::2]
    assert (from_bad.mean(0) > estimate.upper_sums_nats[::2].mean(0) + 1).all()
    alone = anneal(posterior, good, chains=10_001, **settings)
    excess = estimate.neg_log_gamma_upper_nats - alone.neg_log_gamma_upper_nats
    assert (excess < math.log(2) + 5 * torch.hypot(estimate.stderr_nats, alone.stderr_nats)).all()


def test_few_temperatures_and_one_chain_lie_above_the_truth_on_average() -> None:
    toy = linear_toy(64, 96, seed=0)
    posterior, images = posterior_of(toy, number=1)
    truth = toy.neg_log_gamma(images, LMBDA)
    base = best_diagonal(toy, images, LMBDA)
    excess = {}
    for temperatures in (4, 40):
        sums = anneal(posterior, base, chains=256, temperatures=temperatures, generator=seeded(1)).upper_sums_nats
        excess[temperatures] = float(sums.mean() - truth)
        assert excess[temperatures] > 5 * float(sums.std()) / 256**0.5
    assert excess[40] < 0.5 * excess[4]
    assert excess[4] < float(toy.mean_field_cost(images, LMBDA) - truth)  # better than no annealing


def test_log_mean_exp_and_its_error_run_over_chains() -> None:
    log_weights = torch.randn(40, 3, dtype=torch.double, generator=seeded(0)) * 0.1 - 2000  # exp would underflow
    points = torch.zeros(40, 3, 1)
    estimate = AnnealedEstimate(
        upper_sums_nats=-log_weights,
        lower_sums_nats=-log_weights,
        acceptance=torch.ones(3),
        divergent_share=torch.zeros(3),
        kernel=Kernel(betas=(0.0, 1.0), step_sizes=torch.ones(1, 3), leapfrog_steps=1),
        state=State(points=points, first=log_weights, second=log_weights, first_slope=points, second_slope=points),
    )
    weights = (log_weights + 2000).exp()
    torch.testing.assert_close(estimate.neg_log_gamma_upper_nats, 2000 - weights.mean(0).log())
    delta_method = weights.std(0) / weights.mean(0) / 40**0.5
    torch.testing.assert_close(estimate.stderr_nats, delta_method, rtol=0.02, atol=0)
    torch.testing.assert_close(estimate.effective_chains, weights.sum(0) ** 2 / weights.square().sum(0))


def test_schedule_rises_from_zero_to_one_and_is_finest_at_its_ends() -> None:
    betas = np.array(sigmoid_schedule(11))
    steps = np.diff(betas)
    assert (betas[0], betas[-1], len(betas)) == (0.0, 1.0, 12)
    np.testing.assert_allclose(steps, steps[::-1])
    assert steps[5] > 2 * steps[0] > 0


# both sides


def test_simulated_images_have_the_noise_of_the_likelihood_and_latents_of_the_prior() -> None:
    toy = linear_toy(2, 12, seed=0)
    images, latents = simulate(toy, torch.zeros(20_000, 1, 1, 12, dtype=torch.double), LMBDA, seeded(0))
    noise = 255 * (images - toy.decode(latents))
    error = 5 * (2 / noise.numel()) ** 0.5
    assert float(noise.square().mean() / likelihood_sigma(LMBDA, channels=1) ** 2) == pytest.approx(1, abs=error)
    (drawn,) = latents
    spread = toy.covariance.diagonal().sqrt() / 20_000**0.5
    assert ((drawn.mean(0) - toy.mean).abs() < 5 * spread).all()
    torch.testing.assert_close(drawn.T.cov(), toy.covariance, rtol=0.1, atol=0.05)


def test_codecs_whose_prior_cannot_be_sampled_cannot_be_simulated() -> None:
    with pytest.raises(ValueError, match="needs a codec with `sample_prior"):
        simulate(curved(), torch.zeros(1, 1, 1, 4, dtype=torch.double), LMBDA, seeded(0))


@pytest.mark.parametrize(("dim", "pixels"), SIZES)
@pytest.mark.parametrize("seed", [0, 1])
def test_both_sides_hold_the_truth_between_them(dim: int, pixels: int, seed: int) -> None:
    toy = linear_toy(dim, pixels, seed=seed, encoder_shift=0.5)
    images, latents = simulate(toy, torch.zeros(2, 1, 1, pixels, dtype=torch.double), LMBDA, seeded(seed))
    posterior = Posterior(toy, images, LMBDA, batch=10_000)
    base = fit_gaussian(posterior, steps=300, generator=seeded(seed + 10))
    sides = bidirectional(posterior, latents, base, chains=64, temperatures=150, generator=seeded(seed + 20))
    truth, forward = toy.neg_log_gamma(images, LMBDA), sides.forward
    reverse = sides.lower_sums_nats
    assert_agrees(sides.neg_log_gamma_upper_nats, forward.stderr_nats, truth)
    stderr = (sides.gap_stderr_nats.square() - forward.stderr_nats.square()).sqrt()
    assert_agrees(sides.neg_log_gamma_lower_nats, stderr, truth, relative=0.01)
    assert (sides.gap_nats > -5 * sides.gap_stderr_nats).all()
    torch.testing.assert_close(sides.gap_nats, sides.neg_log_gamma_upper_nats - sides.neg_log_gamma_lower_nats)
    # Each chain by itself is a bound on average, and so are the sums of thermodynamic integration.
    for sums, sign in ((forward.upper_sums_nats, 1), (forward.lower_sums_nats, -1), (reverse, -1)):
        assert (sign * (sums.mean(0) - truth) > -5 * sums.std(0) / 64**0.5).all()
    torch.testing.assert_close(forward.thermodynamic_upper_nats, forward.upper_sums_nats.mean(0))
    torch.testing.assert_close(forward.thermodynamic_lower_nats, forward.lower_sums_nats.mean(0))
    assert (forward.thermodynamic_lower_nats < forward.thermodynamic_upper_nats).all()
    assert ((sides.reverse_acceptance > 0.5) & (sides.reverse_acceptance < 0.95)).all()


def test_mean_of_exponentiated_reverse_weights_is_one_over_gamma_even_with_few_temperatures() -> None:
    toy = linear_toy(2, 12, seed=0)
    number = 4000  # images, each with an exact sample of its own: chains of one image share theirs
    images, latents = simulate(toy, torch.zeros(number, 1, 1, 12, dtype=torch.double), LMBDA, seeded(0))
    posterior = Posterior(toy, images, LMBDA, batch=100_000)
    base = best_diagonal(toy, images, LMBDA)
    base = replace(base, log_std=base.log_std + 0.2, mean=base.mean + 0.3)  # wider: the weights are bounded
    sides = bidirectional(posterior, latents, base, chains=8, temperatures=3, generator=seeded(1))
    for sums, sign in ((sides.lower_sums_nats, 1), (sides.forward.upper_sums_nats, -1)):
        ratios = (sign * (sums - toy.neg_log_gamma(images, LMBDA))).exp().mean(0)
        stderr = float(ratios.std()) / number**0.5
        assert stderr < 0.02
        assert abs(float(ratios.mean()) - 1) < 5 * stderr
        assert float(sums.std()) > 0.1


def test_both_sides_are_those_of_images_drawn_from_the_codec() -> None:
    toy, shape = linear_toy(6, 12, seed=0), torch.zeros(2, 1, 1, 12, dtype=torch.double)
    images, _ = simulate(toy, shape, LMBDA, seeded(0))
    sides = both_sides(toy, shape, LMBDA, generator=seeded(0), chains=64, temperatures=100, fit_steps=300, batch=10_000)
    truth = toy.neg_log_gamma(images, LMBDA)
    assert_agrees(sides.neg_log_gamma_upper_nats, sides.forward.stderr_nats, truth)
    assert_agrees(sides.neg_log_gamma_lower_nats, sides.gap_stderr_nats, truth, relative=0.01)


def test_reverse_moves_of_smaller_steps_leave_where_the_posterior_is_narrow() -> None:
    toy = Funnel(64, LMBDA)
    images, latents = simulate(toy, torch.zeros(16, 1, 1, 64, dtype=torch.double), LMBDA, seeded(2))
    posterior, truth = Posterior(toy, images, LMBDA, batch=10_000), toy.neg_log_gamma(images)
    base = fit_gaussian(posterior, steps=300, generator=seeded(2))
    one, several = (
        bidirectional(posterior, latents, base, chains=4, temperatures=50, generator=seeded(3), reverse_moves=moves)
        for moves in (1, REVERSE_MOVES)
    )
    assert abs(float((one.neg_log_gamma_upper_nats - truth).mean())) < 0.5  # all that is loose is the other side
    loose, tight = (truth - sides.neg_log_gamma_lower_nats for sides in (one, several))
    assert float(loose.max()) > 20
    assert float(tight.max()) < float(loose.max()) / 4
    assert float(tight.mean()) < float(loose.mean()) / 4
    assert float(tight.mean()) > -5 * float(several.gap_stderr_nats.square().mean().sqrt()) / 16**0.5
    assert float(one.reverse_acceptance.min()) < 0.3 < 0.5 < float(several.reverse_acceptance.min())


def test_at_least_one_reverse_move_is_needed() -> None:
    toy = linear_toy(2, 2, seed=0)
    posterior, images = posterior_of(toy)
    base = best_diagonal(toy, images, LMBDA)
    latents = toy.infer(images)
    with pytest.raises(ValueError, match="`reverse_moves` must be at least 1, got 0"):
        bidirectional(posterior, latents, base, chains=2, temperatures=2, generator=seeded(0), reverse_moves=0)


# a base that reaches as far as the posterior


def ridge_toy() -> LinearGaussian:
    """The first two latents of eight have the same effect: their sum is well known, their difference as wide."""
    basis = 0.05 * torch.linalg.qr(torch.randn(10, 8, dtype=torch.double, generator=seeded(2))).Q
    basis[:, 1] = basis[:, 0]
    return LinearGaussian(
        matrix=basis,
        bias=torch.full((10,), 0.5, dtype=torch.double),
        mean=torch.zeros(8, dtype=torch.double),
        covariance=16 * torch.eye(8, dtype=torch.double),
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_pilot_finds_the_ridge_of_latents_that_move_together_and_leaves_the_others(seed: int) -> None:
    toy = ridge_toy()
    posterior, images = posterior_of(toy)
    fitted = best_diagonal(toy, images, LMBDA)
    wide = widen(posterior, fitted, generator=seeded(seed))
    scale = torch.diag_embed(wide.log_std.exp())
    covariance = scale @ (torch.eye(8, dtype=torch.double) + wide.factor @ wide.factor.mT) @ scale
    ridge = torch.zeros(8, dtype=torch.double)
    ridge[0], ridge[1] = 0.5**0.5, -(0.5**0.5)
    # Truth 16; the fit says 0.4. A pilot of few points knows it within a factor.
    found = torch.einsum("i,nij,j->n", ridge, covariance, ridge)
    assert ((found > 16 / 4) & (found < 16 * 4)).all()
    torch.testing.assert_close(wide.log_std, fitted.log_std)
    assert (wide.factor[:, 2:] == 0).all()
    torch.testing.assert_close(wide.mean[:, 2:], fitted.mean[:, 2:])
    assert (wide.mean[:, :2] != fitted.mean[:, :2]).all()


def test_both_bounds_are_tighter_from_the_widened_base() -> None:
    toy, generator = ridge_toy(), seeded(0)
    images, latents = simulate(toy, torch.zeros(64, 1, 1, 10, dtype=torch.double), LMBDA, generator)
    posterior = Posterior(toy, images, LMBDA, batch=10_000)
    fitted = best_diagonal(toy, images, LMBDA)
    bases = (fitted, widen(posterior, fitted, generator=generator))
    narrow, wide = (
        bidirectional(posterior, latents, base, chains=4, temperatures=3, generator=generator).gap_nats.mean()
        for base in bases
    )
    assert float(wide) < 0.5 * float(narrow)


def test_pilot_changes_nothing_where_latents_are_independent() -> None:
    scale = torch.tensor([0.5, 2.0], dtype=torch.double)
    toy = replace(linear_toy(2, 2, seed=0), matrix=torch.diag(0.02 * scale), covariance=torch.diag(scale))
    posterior, images = posterior_of(toy)
    fitted = best_diagonal(toy, images, LMBDA)
    assert_same_fields(widen(posterior, fitted, generator=seeded(0)), fitted)


def test_pilot_refuses_a_base_with_a_factor() -> None:
    posterior, _ = posterior_of(linear_toy(5, 5, seed=3))
    with pytest.raises(ValueError, match="`base` must be a diagonal Gaussian, got one with a factor of rank 1"):
        widen(posterior, random_gaussian(2, 5, 1), generator=seeded(0))


# the curve of the ideal channel


def test_ideal_curve_agrees_with_the_closed_form_at_each_lmbda() -> None:
    toy = linear_toy(6, 12, seed=1, encoder_shift=0.5)
    images, lmbdas = toy_images(toy, 2, LMBDA, seed=5), (0.04, 0.0025, 0.01)
    curve = ideal_curve(toy, images, lmbdas, generator=seeded(0), chains=512, temperatures=40, batch=10_000)
    assert curve.lmbdas == (0.0025, 0.01, 0.04)
    for index, lmbda in enumerate(curve.lmbdas):
        truth, mse = toy.neg_log_gamma(images, lmbda) / (12 * math.log(2)), toy.mse(images, lmbda)
        upper, stderr = curve.neg_log_gamma_upper_bpp[index], curve.neg_log_gamma_upper_stderr_bpp[index]
        assert_agrees(upper, stderr, truth, relative=0.01)
        assert_agrees(curve.mse[index], curve.mse_stderr[index], mse, relative=0.03)
        rate_stderr = torch.hypot(stderr, lmbda * curve.mse_stderr[index])
        assert_agrees(curve.rate_bpp[index], rate_stderr, truth - lmbda * mse, relative=0.1)
    table = curve.to_frame()
    assert list(table.lmbda) == [0.0025, 0.0025, 0.01, 0.01, 0.04, 0.04]
    assert list(table.image) == [0, 1] * 3
    np.testing.assert_allclose(table.neg_log_gamma_upper_bpp, table.rate_bpp + table.lmbda * table.mse)


@pytest.mark.parametrize(("lmbdas", "message"), [([0.01], "at least two"), ([0.01, -1.0], "positive")])
def test_curve_needs_two_positive_lmbdas(lmbdas: list[float], message: str) -> None:
    toy = linear_toy(2, 12, seed=2)
    with pytest.raises(ValueError, match=message):
        ideal_curve(toy, toy_images(toy, 1, LMBDA, seed=5), lmbdas, generator=seeded(0))


# a source that is known


def test_water_filling_agrees_with_the_codec_whose_prior_is_the_best() -> None:
    draw = {"dtype": torch.double, "generator": seeded(4)}
    pixels, dim = 5, 3
    spread = torch.randn(pixels, pixels, **draw)
    source = GaussianSource(mean=torch.rand(pixels, **draw), covariance=0.05 * (spread @ spread.T + torch.eye(pixels)))
    matrix, bias = 0.1 * torch.randn(pixels, dim, **draw), torch.rand(pixels, **draw)
    # Where every direction is above the water, the best reconstructions are the source less the water.
    basis, triangle = torch.linalg.qr(matrix)
    back = torch.linalg.inv(triangle) @ basis.T
    best = LinearGaussian(
        matrix=matrix,
        bias=bias,
        mean=back @ (source.mean - bias),
        covariance=back @ (source.covariance - torch.eye(pixels) / tau(LMBDA)) @ back.T,
    )
    fixed = source.fixed_decoder(best, LMBDA)
    assert source.neg_log_gamma(best, LMBDA) == pytest.approx(fixed, rel=1e-9)
    assert source.neg_log_gamma(replace(best, mean=best.mean + 0.1), LMBDA) > fixed
    assert fixed > source.irreducible(LMBDA) > 0
    whole = replace(best, matrix=torch.eye(pixels, dtype=torch.double))  # any decoder that reaches every image
    assert source.fixed_decoder(whole, LMBDA) == pytest.approx(source.irreducible(LMBDA), rel=1e-12)
    drowned = replace(source, covariance=0.5 / tau(LMBDA) * torch.eye(pixels, dtype=torch.double))
    assert drowned.irreducible(LMBDA) == pytest.approx(pixels / 4)  # nothing is sent: tau / 2 times the variance


def test_mean_of_minus_log_gamma_over_a_source_agrees_with_its_images() -> None:
    toy = linear_toy(2, 5, seed=3)
    source = GaussianSource(mean=toy.bias + 0.1, covariance=0.02 * torch.eye(5, dtype=torch.double))
    each = toy.neg_log_gamma(source.images(100_000, seeded(0)), LMBDA)
    stderr = each.std(0, keepdim=True) / len(each) ** 0.5
    truth = torch.tensor([source.neg_log_gamma(toy, LMBDA)], dtype=torch.double)
    assert_agrees(each.mean(0, keepdim=True), stderr, truth, relative=0.01)


# the decomposition


def test_decomposition_agrees_with_quadrature_on_a_curved_decoder() -> None:
    codec = curved()
    images = codec.decode((torch.tensor([[0.5, 1.2], [-1.1, 0.3]], dtype=torch.double),)) + 0.01
    result = decompose(codec, images, LMBDA, generator=seeded(0), chains=256, samples=4000, batch=10_000)
    posterior = Posterior(codec, images, LMBDA, batch=100_000)
    axis = torch.linspace(-6, 6, 1201, dtype=torch.double)
    energy = posterior.energy(torch.cartesian_prod(axis, axis)[:, None].expand(-1, 2, 2))
    truth_bpp = -(torch.logsumexp(-energy, 0) + 2 * math.log(0.01)) / (4 * math.log(2))
    assert_agrees(result.neg_log_gamma_upper_bpp, result.neg_log_gamma_upper_stderr_bpp, truth_bpp, relative=0.02)
    assert (result.approximation_gap_bpp > 5 * result.approximation_gap_stderr_bpp).all()


def test_gaps_of_a_linear_codec_agree_with_the_closed_form_and_add_up() -> None:
    toy = linear_toy(2, 12, seed=2, encoder_shift=0.7)
    images = toy_images(toy, 3, LMBDA, seed=5)
    result = decompose(toy, images, LMBDA, generator=seeded(0), chains=128, samples=4000, batch=10_000)
    nats = 12 * math.log(2)
    (location,) = toy.infer(images)
    gamma = toy.neg_log_gamma(images, LMBDA)
    encoder = toy.box_cost(location, images, LMBDA)
    box = toy.box_cost(toy.posterior_mean(images, LMBDA), images, LMBDA)
    for name, truth in {
        "encoder": encoder,
        "fitted_box": box,
        "fitted_gaussian": toy.mean_field_cost(images, LMBDA),
        "neg_log_gamma_upper": gamma,
        "amortization_gap_lower": encoder - box,
        "approximation_gap": box - gamma,
        "inference_gap_lower": encoder - gamma,
    }.items():
        estimate, stderr = getattr(result, f"{name}_bpp"), getattr(result, f"{name}_stderr_bpp")
        assert_agrees(estimate, stderr, truth / nats, relative=0.03)
    parts = result.amortization_gap_lower_bpp + result.approximation_gap_bpp
    torch.testing.assert_close(parts, result.inference_gap_lower_bpp)
    torch.testing.assert_close(
        result.rounded_bpp, Posterior(toy, images, LMBDA, batch=9).energy(location.round()) / nats
    )


def test_standard_errors_tell_the_spread_over_seeds() -> None:
    toy = linear_toy(2, 12, seed=2)
    images = toy_images(toy, 1, LMBDA, seed=5).expand(300, -1, -1, -1)  # one image, 300 independent estimates
    result = decompose(toy, images, LMBDA, generator=seeded(0), fit_steps=300, chains=16, temperatures=20, batch=20_000)
    for name in ("encoder", "fitted_box", "neg_log_gamma_upper", "inference_gap_lower"):
        spread = getattr(result, f"{name}_bpp").std()
        reported = getattr(result, f"{name}_stderr_bpp").square().mean().sqrt()
        assert float(spread / reported) == pytest.approx(1, abs=0.2), name


def test_lmbda_weighs_the_squared_error() -> None:
    toy = linear_toy(2, 12, seed=2)
    images = toy_images(toy, 2, LMBDA, seed=5) + 0.1
    low, high = (
        decompose(toy, images, lmbda, generator=seeded(0), fit_steps=1, temperatures=2, samples=2).rounded_bpp
        for lmbda in (LMBDA, 2 * LMBDA)
    )
    (rounded,) = toy.quantize(toy.infer(images))
    mse = (255 * (toy.decode((rounded,)) - images)).square().mean((1, 2, 3))
    torch.testing.assert_close(high - low, LMBDA * mse)


def test_equal_seeds_give_equal_results_and_others_do_not() -> None:
    toy = linear_toy(2, 12, seed=2)
    images = toy_images(toy, 2, LMBDA, seed=5)
    first, again, other = (
        decompose(toy, images, LMBDA, generator=seeded(seed), fit_steps=5, temperatures=3).to_frame()
        for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), again.drop(columns="seconds"))
    assert (first.neg_log_gamma_upper_bpp != other.neg_log_gamma_upper_bpp).all()


def test_a_known_source_bounds_every_term_of_the_modeling_gap() -> None:
    toy = linear_toy(2, 12, seed=2)
    images = toy_images(toy, 3, LMBDA, seed=5)
    source = SourceBounds(
        irreducible_lower_bpp=0.1,
        irreducible_upper_bpp=0.2,
        fixed_decoder_lower_bpp=0.25,
        fixed_decoder_upper_bpp=0.3,
    )
    short = {"fit_steps": 50, "temperatures": 5, "samples": 2}
    known = decompose(toy, images, LMBDA, generator=seeded(0), source=source, **short)
    lower, upper = float(known.equilibrium_lower_bpp.mean()), float(known.neg_log_gamma_upper_bpp.mean())
    assert lower > 0.3
    assert known.modeling_gap_interval_bpp == pytest.approx((lower - 0.2, upper - 0.1))
    assert known.prior_gap_interval_bpp == pytest.approx((lower - 0.3, upper - 0.25))
    assert known.transform_gap_interval_bpp == pytest.approx((0.05, 0.2))
    unknown = decompose(toy, images, LMBDA, generator=seeded(0), **short)
    assert unknown.modeling_gap_interval_bpp == (0.0, upper)
    assert unknown.prior_gap_interval_bpp == (0.0, upper)
    assert unknown.transform_gap_interval_bpp == (0.0, upper)


@pytest.mark.parametrize("name", ["irreducible", "fixed_decoder"])
@pytest.mark.parametrize(("lower", "upper"), [(2.0, 1.0), (-1.0, 1.0), (math.nan, 1.0)])
def test_bounds_of_a_source_may_not_cross_or_be_negative(name: str, lower: float, upper: float) -> None:
    with pytest.raises(ValueError, match=f"`{name}` bounds must satisfy 0 <= lower <= upper, got {lower} and {upper}"):
        SourceBounds(**{f"{name}_lower_bpp": lower, f"{name}_upper_bpp": upper})


def test_slopes_in_bfloat16_leave_energies_alone_and_bounds_valid() -> None:
    codec = tiny_codec(prior="factorized").requires_grad_(False)
    images = random_images(2, 3, 16, 16)
    exact, rounded = (Posterior(codec, images, LMBDA, batch=64, bf16=bf16) for bf16 in (False, True))
    points = exact.location + random_images(4, *exact.location.shape)
    full, coarse = exact.evaluate(points), rounded.evaluate(points)
    torch.testing.assert_close(coarse.rate_nats, full.rate_nats, rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(coarse.distortion_nats, full.distortion_nats, rtol=1e-6, atol=1e-4)
    error = (coarse.distortion_slope - full.distortion_slope).norm() / full.distortion_slope.norm()
    assert 1e-5 < float(error) < 0.05  # rounded, but the same direction
    base = fit_gaussian(exact, steps=100, generator=seeded(0))
    one, other = (anneal(p, base, chains=8, temperatures=20, generator=seeded(1)) for p in (exact, rounded))
    apart = one.neg_log_gamma_upper_nats - other.neg_log_gamma_upper_nats
    stderr = torch.hypot(one.stderr_nats, other.stderr_nats)
    assert (stderr < 0.01 * one.neg_log_gamma_upper_nats).all()
    assert (apart.abs() < 5 * stderr).all()


def test_a_prior_that_is_not_normalized_is_refused() -> None:
    toy = linear_toy(2, 12, seed=2)
    codec = from_modules(lambda x: toy.infer(x)[0], lambda y: toy.decode((y,)), lambda y: toy.log_prior((y,)) + 100)
    with pytest.raises(RuntimeError, match="must not be negative"):
        decompose(codec, toy_images(toy, 1, LMBDA, seed=5), LMBDA, generator=seeded(0), fit_steps=50)


def test_energies_that_are_not_finite_are_refused() -> None:
    toy = linear_toy(2, 12, seed=2)
    codec = from_modules(lambda x: toy.infer(x)[0], lambda y: toy.decode((y.sqrt(),)), lambda y: toy.log_prior((y,)))
    with pytest.raises(RuntimeError, match="finite"):
        decompose(codec, toy_images(toy, 1, LMBDA, seed=5), LMBDA, generator=seeded(0), fit_steps=50)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lmbda": -0.01}, "`lmbda` must be positive and finite, got -0.01"),
        ({"chains": 1}, "`chains` must be at least 2, got 1"),
        ({"temperatures": 1}, "`temperatures` must be at least 2, got 1"),
        ({"samples": 0}, "`samples` must be at least 2, got 0"),
        ({"fit_steps": 0}, "`fit_steps` must be at least 1, got 0"),
        ({"images": torch.zeros(3, 4, 4)}, "`images` must be .*, got \\(3, 4, 4\\)"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict, message: str) -> None:
    toy = linear_toy(2, 12, seed=2)
    images, lmbda = options.pop("images", toy_images(toy, 1, LMBDA, seed=5)), options.pop("lmbda", LMBDA)
    with pytest.raises(ValueError, match=message):
        decompose(toy, images, lmbda, generator=seeded(0), **options)
