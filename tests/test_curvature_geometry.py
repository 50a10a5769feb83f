"""Metric, bending and geodesics of decoders: surfaces with closed forms, and dense Jacobians."""

import math

import pytest
import torch
from torch import Tensor, nn

from rdgap.curvature import (
    PullbackMetric,
    bending,
    curve_length,
    extreme_eigenvalues,
    geodesic,
    line,
    log_determinant,
    trace,
)
from rdgap.curvature.acceleration import velocity_and_acceleration

RADIUS = 2.0


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def point(*coordinates: float) -> tuple[Tensor]:
    return (torch.tensor([coordinates], dtype=torch.float64),)


def sphere(latents):
    longitude, latitude = latents[0].unbind(1)
    ring = RADIUS * latitude.cos()
    return torch.stack([ring * longitude.cos(), ring * longitude.sin(), RADIUS * latitude.sin()], 1)


def cylinder(latents):
    angle, height = latents[0].unbind(1)
    return torch.stack([RADIUS * angle.cos(), RADIUS * angle.sin(), 3 * height], 1)


def stretched_plane(latents):
    """A flat surface in warped coordinates: the straight latent line is bent, the geodesic is the chord."""
    u, v = latents[0].unbind(1)
    return torch.stack([u.sinh(), v + 0.5 * u.square()], 1)


def angle_between(start, end) -> float:
    first, last = sphere(start)[0], sphere(end)[0]
    return math.atan2(float(torch.linalg.cross(first, last).norm()), float(first @ last))


def smooth_decoder(seed: int = 0):
    """Three latents of two kinds, (1, 2) and (1, 3, 2), to 20 values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Linear(8, 12), nn.Softplus(), nn.Linear(12, 20)).double()
    return lambda latents: module(torch.cat([latents[0], latents[1].flatten(1)], 1))


def smooth_point(seed: int = 1) -> tuple[Tensor, Tensor]:
    z, y = torch.randn(1, 2, generator=seeded(seed)).double(), torch.randn(1, 3, 2, generator=seeded(seed + 9)).double()
    return z, y


def dense_metric(metric: PullbackMetric) -> Tensor:
    """J^T J from the Jacobian that `torch.autograd.functional` builds."""
    decode, latents = metric._decode, metric.latents
    jacobians = torch.autograd.functional.jacobian(lambda *z: decode(z)[0].flatten(), latents)
    blocks = [j.reshape(metric.num_values, -1) for j, moves in zip(jacobians, metric.moving, strict=True) if moves]
    jacobian = torch.cat(blocks, 1)
    return jacobian.T @ jacobian


# The metric.


@pytest.mark.parametrize("moving", [None, (False, True), (True, False)])
def test_products_are_those_of_the_dense_jacobian(moving):
    metric = PullbackMetric(smooth_decoder(), smooth_point(), moving=moving, values_at_once=3 * 20)
    dense = dense_metric(metric)
    assert metric.dim == len(dense)
    vectors = torch.randn(7, metric.dim, generator=seeded(3)).double()
    torch.testing.assert_close(metric(vectors), vectors @ dense)
    images, covectors = metric.push_forward(vectors), torch.randn(7, 20, generator=seeded(4)).double()
    torch.testing.assert_close((images * covectors).sum(1), (vectors * metric.pull_back(covectors)).sum(1))


def test_metric_of_the_sphere_has_its_closed_form():
    latitude = 0.7
    metric = PullbackMetric(sphere, point(0.4, latitude))
    spectrum = extreme_eigenvalues(metric, 2, number=2, generator=seeded(0))
    expected = RADIUS**2 * torch.tensor([1.0, math.cos(latitude) ** 2], dtype=torch.float64)
    torch.testing.assert_close(spectrum.largest, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(spectrum.smallest, expected.flip(0), rtol=1e-12, atol=0)
    volume = log_determinant(metric, 2, generator=seeded(0))
    assert volume.upper == pytest.approx(math.log(RADIUS**4 * math.cos(latitude) ** 2), rel=1e-10)
    assert trace(metric, generator=seeded(0)).value == pytest.approx(float(expected.sum()), rel=1e-12)


@pytest.fixture
def wide_metric() -> PullbackMetric:
    """120 latents to 200 values, with eigenvalues over four decades."""
    matrix = torch.randn(200, 120, generator=seeded(2)).double() * torch.logspace(0, -2, 120).double()
    return PullbackMetric(lambda latents: torch.sin(latents[0]) @ matrix.T, (torch.zeros(1, 120).double(),))


def test_lanczos_finds_both_ends_of_the_dense_spectrum(wide_metric):
    dense = torch.linalg.eigvalsh(dense_metric(wide_metric))
    spectrum = extreme_eigenvalues(wide_metric, 120, number=4, generator=seeded(1))
    assert spectrum.converged
    torch.testing.assert_close(spectrum.largest, dense.flip(0)[:4], rtol=1e-10, atol=0)
    torch.testing.assert_close(spectrum.smallest, dense[:4], rtol=1e-6, atol=1e-7 * float(dense[-1]))


def test_lanczos_that_was_stopped_says_so_and_stays_inside_the_spectrum(wide_metric):
    dense = torch.linalg.eigvalsh(dense_metric(wide_metric))
    spectrum = extreme_eigenvalues(wide_metric, 120, number=3, max_steps=12, generator=seeded(1))
    assert spectrum.steps == 12
    assert not spectrum.converged
    assert (spectrum.largest <= dense.flip(0)[:3] * (1 + 1e-12)).all()
    assert (spectrum.smallest >= dense[:3]).all()
    distance = (spectrum.largest[:, None] - dense).abs().amin(1)
    assert (distance <= spectrum.largest_residuals * (1 + 1e-9)).all()


def test_multiple_eigenvalues_are_found_as_often_as_they_are_there():
    scales = torch.tensor([3.0, 3.0, 3.0, 1.0, 1.0], dtype=torch.float64)
    spectrum = extreme_eigenvalues(lambda vectors: vectors * scales, 5, number=5, generator=seeded(0))
    torch.testing.assert_close(spectrum.smallest, scales.flip(0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("deflated", [0, 10])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trace_is_within_five_standard_errors(wide_metric, deflated, seed):
    truth = float(dense_metric(wide_metric).trace())
    estimate = trace(wide_metric, deflated=deflated, probes=30, generator=seeded(seed))
    assert abs(estimate.value - truth) < 5 * estimate.stderr
    assert 0 < estimate.stderr < (0.025 if deflated else 0.05) * truth


def test_trace_over_the_whole_space_is_exact(wide_metric):
    estimate = trace(wide_metric, deflated=120, generator=seeded(0))
    assert estimate.value == pytest.approx(float(dense_metric(wide_metric).trace()), rel=1e-9)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_log_determinant_is_within_five_standard_errors_and_falls_to_the_truth(wide_metric, seed):
    damping = 0.05
    eigenvalues = torch.linalg.eigvalsh(dense_metric(wide_metric)) + damping
    truth = float(eigenvalues.log().sum())
    options = {"damping": damping, "probes": 30}
    coarse, fine = (
        log_determinant(wide_metric, 120, steps=steps, generator=seeded(seed), **options) for steps in (8, 60)
    )
    assert abs(fine.upper - truth) < 5 * fine.stderr
    assert 0 < fine.stderr < 0.05 * abs(truth)
    assert coarse.upper > fine.upper  # on the same probes


def test_a_singular_metric_needs_damping():
    metric = PullbackMetric(lambda latents: latents[0] + 0 * latents[1], (torch.ones(1, 3).double(),) * 2)
    with pytest.raises(RuntimeError, match="singular to rounding"):
        log_determinant(metric, 6, generator=seeded(0))
    damped = log_determinant(metric, 6, damping=0.5, generator=seeded(0))
    assert damped.upper == pytest.approx(3 * math.log(1.5) + 3 * math.log(0.5))


def test_latents_that_the_decoder_ignores_have_no_stretch():
    z, y = smooth_point()
    metric = PullbackMetric(lambda latents: torch.sin(latents[1].flatten(1)), (z, y))
    vectors = torch.zeros(1, 8, dtype=torch.float64)
    vectors[0, :2] = 1
    assert metric(vectors).norm() == 0
    alone = PullbackMetric(lambda latents: torch.sin(latents[1].flatten(1)), (z, y), moving=(True, False))
    assert alone(torch.ones(1, 2, dtype=torch.float64)).norm() == 0


# Bending.


def test_acceleration_of_a_polynomial_curve():
    ts = torch.tensor([0.25, 0.5]).double()
    velocity, acceleration = velocity_and_acceleration(
        lambda latents: torch.cat([latents[0] ** 2, latents[0] ** 3], 1), line(*(point(x) for x in (1.0, 3.0))), ts
    )
    x = 1 + 2 * ts
    torch.testing.assert_close(velocity, torch.stack([4 * x, 6 * x**2], 1))
    torch.testing.assert_close(acceleration, torch.stack([torch.full_like(x, 8), 24 * x], 1))


def test_parallels_of_the_sphere_bend_within_it_and_great_circles_do_not():
    latitude = 0.6
    ts = torch.tensor([0.2, 0.9]).double()
    parallel = bending(sphere, line(point(0.0, latitude), point(1.0, latitude)), ts)
    torch.testing.assert_close(parallel.normal_curvature, torch.full((2,), 1 / RADIUS).double(), rtol=1e-9, atol=0)
    expected = torch.full((2,), math.tan(latitude) / RADIUS).double()
    torch.testing.assert_close(parallel.geodesic_curvature, expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(parallel.curvature**2, parallel.geodesic_curvature**2 + parallel.normal_curvature**2)
    assert parallel.tangential.abs().max() < 1e-12
    assert parallel.projection_residual.max() < 1e-9
    meridian = bending(sphere, line(point(0.3, -0.2), point(0.3, 0.9)), ts)
    torch.testing.assert_close(meridian.normal_curvature, torch.full((2,), 1 / RADIUS).double(), rtol=1e-9, atol=0)
    assert meridian.geodesic_curvature.max() < 1e-9


def test_helix_on_the_cylinder_has_the_curvature_of_euler():
    result = bending(cylinder, line(point(0.0, 0.0), point(2.0, 1.0)), torch.tensor([0.5]).double())
    around, up = RADIUS * 2.0, 3.0
    assert result.speed == pytest.approx(math.hypot(around, up), rel=1e-12)
    assert result.normal_curvature == pytest.approx(around**2 / (around**2 + up**2) / RADIUS, rel=1e-9)
    assert result.geodesic_curvature < 1e-9


def test_flat_surface_in_warped_coordinates_bends_within_itself_alone():
    result = bending(stretched_plane, line(point(-1.0, 0.0), point(1.0, 0.5)), torch.tensor([0.1, 0.7]).double())
    torch.testing.assert_close(result.geodesic_curvature, result.curvature, rtol=1e-8, atol=0)
    assert result.normal_curvature.max() < 1e-8 * result.curvature.max()
    assert result.curvature.min() > 0.01


def test_bending_of_a_network_is_that_of_the_dense_projection():
    decode, (start, end) = smooth_decoder(), (smooth_point(1), smooth_point(2))
    curve, t = line(start, end), torch.tensor([0.4]).double()
    result = bending(decode, curve, t)
    latents = curve(t)
    jacobians = torch.autograd.functional.jacobian(lambda *z: decode(z)[0], latents)
    jacobian = torch.cat([j.reshape(20, -1) for j in jacobians], 1).detach()
    h = 1e-4
    with torch.no_grad():
        before, here, after = (decode(curve(t + step))[0] for step in (-h, 0.0, h))
    acceleration, velocity = (before - 2 * here + after) / h**2, (after - before) / (2 * h)
    normal = acceleration - jacobian @ torch.linalg.lstsq(jacobian, acceleration[:, None]).solution[:, 0]
    assert result.normal_curvature == pytest.approx(float(normal.norm() / velocity.norm() ** 2), rel=1e-5)
    assert result.acceleration == pytest.approx(float(acceleration.norm()), rel=1e-5)


def test_a_curve_that_stands_still_has_no_bending():
    with pytest.raises(ValueError, match="stands still at t = 0"):
        bending(lambda latents: latents[0] ** 2, line(point(0.0), point(1.0)), torch.zeros(1))


# Geodesics.


def test_geodesic_of_the_sphere_is_the_great_circle():
    start, end = point(0.0, 0.5), point(1.6, 0.7)
    found = geodesic(sphere, start, end, degree=14, num_nodes=32, generator=seeded(0))
    assert found.converged
    distance = RADIUS * angle_between(start, end)
    assert found.measured.length.item() == pytest.approx(distance, rel=1e-6)
    assert found.measured.length.item() > distance * (1 - 1e-7)
    assert found.energy == pytest.approx(distance**2, rel=1e-6)
    assert found.measured.speed_variation.item() < 1e-3
    straight = curve_length(sphere, start, end, rule="gauss-legendre", num_points=64).length.item()
    assert found.zeta_lower == pytest.approx(straight / distance, rel=1e-6)
    assert 1.04 < found.zeta_lower < found.zeta_upper
    assert found.gradient_norm < 1e-2


def test_straight_line_is_the_geodesic_of_the_cylinder():
    found = geodesic(cylinder, point(0.0, 0.0), point(2.0, 1.0), generator=seeded(0))
    assert found.converged
    assert found.zeta_lower == pytest.approx(1, abs=1e-9)
    assert found.measured.length.item() == pytest.approx(math.hypot(2 * RADIUS, 3), rel=1e-9)


def test_geodesic_of_a_flat_surface_is_the_chord():
    found = geodesic(stretched_plane, point(-1.0, 0.0), point(1.2, 0.5), degree=14, num_nodes=32, generator=seeded(0))
    assert found.measured.eta.item() == pytest.approx(1, abs=1e-6)
    assert found.zeta_lower == pytest.approx(found.zeta_upper, rel=1e-6)
    assert found.zeta_lower > 1.01


def test_latents_that_are_held_stay_on_their_line():
    decode, start, end = smooth_decoder(), smooth_point(1), smooth_point(2)
    free = geodesic(decode, start, end, generator=seeded(0))
    held = geodesic(decode, start, end, moving=(False, True), generator=seeded(0))
    ts = torch.tensor([0.3, 0.8]).double()
    torch.testing.assert_close(held.curve(ts)[0], line(start, end)(ts)[0])
    assert (free.curve(ts)[0] - line(start, end)(ts)[0]).abs().max() > 1e-4
    assert 1 < held.zeta_lower < free.zeta_lower < free.zeta_upper
    for z, end_point in zip(held.curve(torch.tensor([0.0, 1.0]).double()), zip(start, end, strict=True), strict=True):
        torch.testing.assert_close(z, torch.cat(end_point))


def test_a_geodesic_that_was_stopped_says_so():
    found = geodesic(sphere, point(0.0, 0.5), point(1.6, 0.7), max_iterations=1, generator=seeded(0))
    assert not found.converged
    assert found.iterations == 1


@pytest.mark.parametrize("options", [{"degree": 0}, {"degree": 16}, {"moving": (False,)}])
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=r"degree|moving"):
        geodesic(sphere, point(0.0, 0.5), point(1.6, 0.7), generator=seeded(0), **options)
