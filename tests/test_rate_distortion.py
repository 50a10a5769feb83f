"""Estimators and bounds of F against sources whose F is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rdgap.rate_distortion import (
    Estimate,
    blahut_arimoto,
    dual_lower_bound,
    mixture_upper_bound,
    named_source,
    nerd_upper_bound,
    on_grid,
    operational_cost,
    particle_upper_bound,
    train_codec,
)
from rdgap.rate_distortion.dual import Linearized, log_supremum
from rdgap.rate_distortion.ntc import as_images, image_lmbda
from rdgap.rate_distortion.source import DiscreteSource, VectorSource
from rdgap.rate_distortion.sources import Gaussian, LaplaceAbsolute, Sawbridge


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def vector_source(name: str) -> VectorSource:
    source = named_source(name)
    assert isinstance(source, VectorSource)
    return source


def assert_at_truth(estimate: Estimate, truth: float, *, bias_nats: float = 0.0) -> None:
    """Within five standard errors, which are below 1 %; `bias_nats` is what a fit of this length may be above."""
    assert 0 < estimate.stderr_nats < 0.01 * estimate.f_nats
    assert -5 * estimate.stderr_nats < estimate.f_nats - truth < 5 * estimate.stderr_nats + bias_nats
    assert estimate.rate_nats + estimate.lmbda * estimate.distortion == pytest.approx(estimate.f_nats, abs=1e-9)


# Blahut and Arimoto


def plain_blahut_arimoto(p: np.ndarray, distortions: np.ndarray, lmbda: float, steps: int) -> tuple[float, float]:
    """Their own iteration: lower and upper bound after so many steps."""
    kernel = np.exp(-lmbda * distortions)
    q, wanted = np.full(distortions.shape[1], 1 / distortions.shape[1]), np.ones(distortions.shape[1])
    upper = math.inf
    for _ in range(steps):
        gamma = kernel @ q
        upper, wanted = -float(p @ np.log(gamma)), (p / gamma) @ kernel
        q = q * wanted
    return upper - math.log(wanted.max()), upper


@pytest.mark.parametrize("name", ["binary", "hamming-4"])
@pytest.mark.parametrize("lmbda", [0.3, 1.0, 3.0, 30.0, 1e4])
def test_blahut_arimoto_is_exact_on_hamming_sources(name: str, lmbda: float) -> None:
    source = named_source(name)
    assert isinstance(source, DiscreteSource)
    truth = source.point(lmbda)
    (solution,) = blahut_arimoto(source.probabilities, source.table, [lmbda])
    assert truth is not None
    assert solution.upper.f_nats == pytest.approx(truth.f_nats, abs=1e-8)
    assert solution.upper.rate_nats == pytest.approx(truth.rate_nats, abs=1e-6)
    assert solution.upper.f_nats - 1e-8 <= solution.lower.f_nats <= truth.f_nats + 1e-12
    assert float(solution.probabilities.sum()) == pytest.approx(1.0)


def test_blahut_arimoto_agrees_with_the_plain_iteration_on_a_random_table() -> None:
    generator = np.random.default_rng(1)
    p, distortions = generator.dirichlet(np.ones(9)), generator.random((9, 14))
    lmbdas = [0.5, 4.0, 20.0]
    for lmbda, solution in zip(
        lmbdas, blahut_arimoto(torch.from_numpy(p), torch.from_numpy(distortions), lmbdas), strict=True
    ):
        lower, upper = plain_blahut_arimoto(p, distortions, lmbda, 20_000)
        assert lower - 1e-9 <= solution.upper.f_nats <= upper + 1e-9
        expected = float(torch.from_numpy(p) @ solution.neg_log_gamma_nats)
        assert expected == pytest.approx(solution.upper.f_nats, abs=1e-9)


@pytest.mark.parametrize("lmbda", [0.5, 2.0, 20.0])
def test_blahut_arimoto_on_a_grid_holds_its_error_bound_for_the_absolute_error(lmbda: float) -> None:
    source, size = LaplaceAbsolute(), 400
    (solution,) = on_grid(source, [lmbda], size=size)
    truth, error = source.point(lmbda).f_nats, source.error_nats(lmbda, size)
    assert solution.lower.f_nats - error <= truth <= solution.upper.f_nats + error
    assert abs(solution.upper.f_nats - truth) < error / 3


@pytest.mark.parametrize(("name", "lmbda", "size"), [("gaussian-1", 0.1, 101), ("gaussian-1", 3.0, 200),
                                                     ("gaussian-2", 1.0, 24), ("sphere-2", 10.0, 36)])  # fmt: skip
def test_blahut_arimoto_on_a_grid_finds_f_of_continuous_sources(name: str, lmbda: float, size: int) -> None:
    source = vector_source(name)
    (solution,) = on_grid(source, [lmbda], size=size)
    assert solution.upper.f_nats == pytest.approx(source.bounds(lmbda)[0], rel=2e-3)
    assert solution.upper.f_nats - solution.lower.f_nats <= 1e-6


@pytest.mark.parametrize("lmbda", [1e-4, 1.0, 100.0, 1e4])
def test_blahut_arimoto_is_stable_over_decades(lmbda: float) -> None:
    """Rare symbols, distortions of very different size, a symbol of probability 0 and duplicate reproductions."""
    generator = np.random.default_rng(0)
    x = np.linspace(-1, 1, 60) + 1e-3 * generator.normal(size=60)
    p = np.exp(-0.5 * (3 * x) ** 2)
    p[0] = 0.0
    distortions = np.square(x[:, None] - np.concatenate([x, x[:5]]))
    (solution,) = blahut_arimoto(torch.from_numpy(p), torch.from_numpy(distortions), [lmbda])
    assert solution.upper.f_nats - solution.lower.f_nats <= 1e-8
    assert bool((solution.probabilities >= 0).all() and solution.probabilities.isfinite().all())
    entropy = float(torch.special.entr(torch.from_numpy(p / p.sum())).sum())
    assert 0 <= solution.upper.rate_nats <= entropy + 1e-9
    if lmbda == 1e4:
        assert solution.upper.f_nats == pytest.approx(entropy, rel=0.05)


def test_f_is_concave_and_rises_with_lmbda() -> None:
    source = Gaussian.spectrum(1)
    lmbdas = [0.05, 0.2, 0.5, 1.0, 2.0, 5.0]
    points = [solution.upper for solution in on_grid(source, lmbdas, size=100)]
    values = [point.f_nats for point in points]
    slopes = np.diff(values) / np.diff(lmbdas)
    assert (slopes > 0).all()
    assert (np.diff(slopes) < 0).all()
    for before, slope, after in zip(points[:-1], slopes, points[1:], strict=True):
        assert after.distortion <= slope <= before.distortion


def test_grids_and_tables_are_checked() -> None:
    with pytest.raises(ValueError, match="one or two coordinates, got gaussian-3"):
        on_grid(vector_source("gaussian-3"), [1.0])
    with pytest.raises(ValueError, match="must be \\(symbols, reproductions\\)"):
        blahut_arimoto(torch.ones(3) / 3, torch.ones(2, 4), [1.0])
    with pytest.raises(ValueError, match="`lmbda` must be positive"):
        blahut_arimoto(torch.ones(2) / 2, torch.eye(2), [0.0])
    with pytest.raises(ValueError, match="`tolerance_nats` must be positive"):
        blahut_arimoto(torch.ones(2) / 2, torch.eye(2), [1.0], tolerance_nats=0.0)


# upper bounds


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("name", "lmbda"), [("gaussian-2", 1.0), ("gaussian-2", 10.0), ("gaussian-32", 1.0)])
def test_mixture_of_one_component_is_at_the_truth_for_gaussians(name: str, lmbda: float, seed: int) -> None:
    source = vector_source(name)
    estimate, _ = mixture_upper_bound(source, lmbda, generator=seeded(seed), components=1, samples=30_000)
    assert estimate.side == "upper"
    truth = source.point(lmbda)
    assert truth is not None
    assert_at_truth(estimate, truth.f_nats)
    assert estimate.distortion == pytest.approx(truth.distortion, rel=0.02)


def test_mixture_reaches_256_dimensions() -> None:
    source = vector_source("gaussian-256")
    estimate, _ = mixture_upper_bound(source, 1.0, generator=seeded(0), components=1, samples=10_000)
    # The covariance of 20 000 samples has 256 * 257 / 2 numbers; each costs half a nat per sample in expectation.
    assert_at_truth(estimate, source.bounds(1.0)[0], bias_nats=256 * 257 / 4 / 20_000)


def test_mixture_bends_around_the_circle_and_its_cost_is_an_integral() -> None:
    source = vector_source("sphere-2")
    estimate, mixture = mixture_upper_bound(source, 10.0, generator=seeded(0), components=16, samples=10_000)
    assert_at_truth(estimate, source.bounds(10.0)[0], bias_nats=0.01)
    x = source.sample(3, seeded(5))
    axis = torch.linspace(-3, 3, 301, dtype=torch.double)
    grid = torch.cartesian_prod(axis, axis)
    density = torch.zeros(len(grid), dtype=torch.double)
    for log_share, mean, values, vectors in zip(
        mixture.log_shares, mixture.means, mixture.eigenvalues, mixture.directions, strict=True
    ):
        values = (values - mixture.noise_variance).clamp(min=2e-3)  # nearly flat ones are widened to be integrated
        along = (grid - mean) @ vectors
        density += torch.exp(log_share - 0.5 * (along.square() / values + torch.log(2 * math.pi * values)).sum(1))
    kernel = torch.exp(-10.0 * source.distortions(x, grid)) * density * float(axis[1] - axis[0]) ** 2
    torch.testing.assert_close(-kernel.sum(1).log(), mixture.neg_log_gamma(x), atol=0.02, rtol=0)
    expected = (kernel * source.distortions(x, grid)).sum(1) / kernel.sum(1)
    torch.testing.assert_close(expected, source.weight * mixture.mean_square(x), atol=0.005, rtol=0)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("name", "particles"), [("sphere-2", 64), ("sphere-5", 256), ("gaussian-2", 128)])
def test_particles_are_at_the_truth(name: str, particles: int, seed: int) -> None:
    source = vector_source(name)
    lmbda = 10.0 if name.startswith("sphere") else 1.0
    estimate, _ = particle_upper_bound(
        source, lmbda, generator=seeded(seed), particles=particles, steps=120, batch=512, samples=8_000
    )
    assert_at_truth(estimate, source.bounds(lmbda)[0], bias_nats=0.01)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_particles_between_the_known_bounds_of_the_sawbridge_beat_every_quantizer(seed: int) -> None:
    source = Sawbridge(128)
    estimate, particles = particle_upper_bound(
        source, 20.0, generator=seeded(seed), particles=64, steps=150, batch=512, samples=8_000
    )
    lower, one_shot = source.bounds(20.0)
    assert lower < estimate.f_nats < one_shot - 0.1
    assert estimate.stderr_nats < 0.01 * estimate.f_nats
    bound = dual_lower_bound(
        source, 20.0, lambda x: particles.neg_log_gamma(source, x), generator=seeded(seed), batch=512, batches=10
    )
    assert 0.9 * estimate.f_nats < bound.f_nats < estimate.f_nats + 5 * bound.stderr_nats


def test_too_few_particles_are_refused() -> None:
    with pytest.raises(RuntimeError, match="give it more particles"):
        particle_upper_bound(vector_source("gaussian-32"), 1.0, generator=seeded(0), particles=64, steps=20)


def test_nerd_is_near_the_truth_where_codewords_share_descriptions() -> None:
    source = vector_source("sphere-2")
    estimate = nerd_upper_bound(source, 10.0, generator=seeded(0), steps=120, codewords=2_000, samples=3_000)
    assert_at_truth(estimate, source.bounds(10.0)[0], bias_nats=0.08)


def test_nerd_is_refused_where_the_rate_is_near_log_m() -> None:
    with pytest.raises(RuntimeError, match=r"too close to log m = 5\.3 nats"):
        nerd_upper_bound(vector_source("gaussian-32"), 1.0, generator=seeded(0), steps=5, codewords=200, samples=500)


# lower bounds


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("name", "components"), [("gaussian-2", 1), ("banana", 16)])
def test_dual_lower_bound_is_far_from_trivial(name: str, components: int, seed: int) -> None:
    source = vector_source(name)
    upper, mixture = mixture_upper_bound(
        source, 1.0, generator=seeded(seed), components=components, training_samples=5_000, samples=10_000
    )
    lower = dual_lower_bound(source, 1.0, mixture.neg_log_gamma, generator=seeded(10 + seed), batch=512, batches=12)
    assert lower.side == "lower"
    known_lower, known_upper = source.bounds(1.0)
    assert 0.6 * upper.f_nats < lower.f_nats < upper.f_nats
    assert lower.f_nats - 5 * lower.stderr_nats < known_upper
    assert upper.f_nats + 5 * upper.stderr_nats > known_lower
    truth = source.point(1.0)
    if truth is not None:
        assert lower.f_nats - 5 * lower.stderr_nats < truth.f_nats < upper.f_nats + 5 * upper.stderr_nats


def test_dual_lower_bound_holds_with_a_poor_gamma() -> None:
    source = vector_source("gaussian-2")
    poor = dual_lower_bound(source, 1.0, lambda x: 0.3 * x.square().sum(1), generator=seeded(0), batch=256, batches=10)
    assert poor.f_nats - 5 * poor.stderr_nats < source.bounds(1.0)[0]


def test_supremum_is_that_of_a_fine_grid() -> None:
    x = torch.randn(40, 2, dtype=torch.double, generator=seeded(0))
    log_weights = torch.randn(40, dtype=torch.double, generator=seeded(1))
    axis = torch.linspace(-3, 3, 601, dtype=torch.double)
    grid = torch.cartesian_prod(axis, axis)
    brute = torch.logsumexp(log_weights - 4.0 * torch.cdist(grid, x).square(), 1).max()
    assert log_supremum(x, log_weights, 4.0) == pytest.approx(float(brute), abs=1e-3)


def test_linearized_logarithm_is_a_lower_bound_and_exact_for_equal_batches() -> None:
    running = Linearized(earlier=[math.log(2.0)])
    for _ in range(3):
        running.add(1.5, math.log(2.0))
    assert running.estimate("dual", 1.0, 0.0).f_nats == pytest.approx(1.5 - math.log(2))
    noisy = Linearized(earlier=[0.0])
    noisy.add(3.0, math.log(0.5))
    noisy.add(3.0, math.log(1.7))
    assert noisy.estimate("dual", 1.0, 0.0).f_nats <= 3.0 - math.log(1.1) + 1e-12


# codecs


def test_vectors_as_images_cost_the_same() -> None:
    source = vector_source("sphere-5")
    x = source.sample(7, seeded(0))
    images = as_images(x)
    assert images.shape == (7, 5, 1, 1)
    codec = train_codec(source, 10.0, generator=seeded(0), steps=1, batch=8)
    from rdgap.objective import cost

    decoded = 255 * (codec.decode(codec.infer(images))[:, :, 0, 0] - 0.5)
    ours = 10.0 * source.weight * (decoded - x).square().sum(1)
    theirs = cost(codec, codec.infer(images), images, image_lmbda(source, 10.0)).distortion_nats
    torch.testing.assert_close(ours, theirs)


def test_trained_codec_is_an_upper_bound_and_loses_no_more_than_dithering_costs() -> None:
    source = vector_source("gaussian-2")
    codec = train_codec(source, 3.0, generator=seeded(0), steps=200, batch=256)
    estimate = operational_cost(codec, source, 3.0, generator=seeded(1))
    truth = source.bounds(3.0)[0]
    assert estimate.side == "upper"
    # Uniform quantization loses at most 0.2546 bit, 0.1765 nats, per dimension at high rate; training is short.
    assert truth < estimate.f_nats < truth + 2 * 0.25


def test_results_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(RuntimeError, match="F must be finite, got nan"):
        Estimate(method="m", side="upper", lmbda=1.0, f_nats=math.nan)


@pytest.mark.parametrize(
    ("bound", "options", "said"),
    [
        (mixture_upper_bound, {"components": 0}, "`components` must be at least 1"),
        (particle_upper_bound, {"particles": 1}, "`particles` must be at least 2"),
        (nerd_upper_bound, {"codewords": 1}, "`codewords` must be at least 2"),
        (train_codec, {"steps": -1}, "at least 1"),
    ],
)
def test_counts_are_checked(bound, options, said) -> None:
    with pytest.raises(ValueError, match=said):
        bound(vector_source("gaussian-2"), 1.0, generator=seeded(0), **options)
