from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from rdgap.gaps import Gaussian, Posterior, anneal, decompose, fit_box, fit_gaussian
from rdgap.gaps import __main__ as command
from rdgap.gaps.ais import AnnealedEstimate, sigmoid_schedule
from rdgap.gaps.hmc import State, transition
from rdgap.gaps.variational import sample_box_cost
from rdgap.model import from_modules
from rdgap.objective import kappa

from ._toys import LinearGaussian, TwoLatents, curved, patch_means

LMBDA = 0.01
SIZES = [(2, 12), (64, 96)]  # (latents, pixels)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def posterior_of(toy: LinearGaussian, number: int = 2, batch: int = 10_000) -> tuple[Posterior, Tensor]:
    images = toy.images(number, LMBDA, seed=5)
    return Posterior(toy, images, LMBDA, batch=batch), images


def assert_agrees(estimate: Tensor, stderr: Tensor, truth: Tensor, relative: float = 0.005) -> None:
    assert (stderr < relative * truth).all(), "the estimate is too noisy to test anything"
    assert ((estimate - truth).abs() < 5 * stderr).all(), f"{estimate} is not {truth} within 5 * {stderr}"


def test_closed_form_of_the_toy_agrees_with_quadrature() -> None:
    toy = LinearGaussian.random(2, 5, seed=3)
    posterior, images = posterior_of(toy, number=1)
    axis = torch.linspace(-8, 8, 801, dtype=torch.double)
    grid = torch.cartesian_prod(axis, axis) + toy.posterior_mean(images, LMBDA)
    log_gamma = torch.logsumexp(-posterior.energy(grid[:, None]), 0) + 2 * math.log(float(axis[1] - axis[0]))
    torch.testing.assert_close(-log_gamma, toy.neg_log_gamma(images, LMBDA), rtol=1e-9, atol=0)


def test_energy_is_rate_plus_kappa_times_squared_error_in_nats() -> None:
    toy = LinearGaussian.random(2, 5, seed=3)
    posterior, images = posterior_of(toy)
    points = torch.tensor([[0.3, -0.8], [1.1, 0.4]], dtype=torch.double)
    prior = torch.distributions.MultivariateNormal(toy.mean, toy.covariance)
    error = 255 * (points @ toy.matrix.T + toy.bias - images[:, 0, 0])
    expected = -prior.log_prob(points) + LMBDA * math.log(2) * error.square().sum(-1)  # kappa of one channel
    torch.testing.assert_close(posterior.energy(points), expected)


def test_gradient_is_that_of_finite_differences_and_passes_do_not_matter() -> None:
    toy = LinearGaussian.random(3, 5, seed=3)
    posterior, images = posterior_of(toy)
    points = torch.randn(4, 2, 3, dtype=torch.double, generator=seeded(0))
    energy, gradient = posterior.energy_and_gradient(points)
    step = 1e-4
    for axis in range(3):
        shift = step * torch.eye(3, dtype=torch.double)[axis]
        slope = (posterior.energy(points + shift) - posterior.energy(points - shift)) / (2 * step)
        torch.testing.assert_close(gradient[..., axis], slope, rtol=1e-5, atol=1e-5)
    in_threes = Posterior(toy, images, LMBDA, batch=3)
    torch.testing.assert_close(in_threes.energy(points), energy)
    torch.testing.assert_close(in_threes.energy_and_gradient(points), (energy, gradient))


def test_latents_of_several_shapes_are_restored_and_parameters_get_no_gradient() -> None:
    toy, images = TwoLatents(), torch.rand(2, 3, 4, 6, generator=seeded(0))
    posterior = Posterior(toy, images, LMBDA, batch=3)
    assert posterior.location.shape == (2, 6 + 24)
    energy, _ = posterior.energy_and_gradient(posterior.location)
    latents = toy.infer(images)
    error = 255 * (toy.decode(latents) - images)
    expected = -toy.log_prior(latents) + kappa(LMBDA) * error.square().sum((1, 2, 3))
    torch.testing.assert_close(energy, expected.detach().double())
    assert toy.scale.grad is None


def test_cost_of_the_exact_posterior_is_minus_log_gamma_without_noise() -> None:
    scale = torch.tensor([0.5, 2.0], dtype=torch.double)
    toy = replace(LinearGaussian.random(2, 2, seed=0), matrix=torch.diag(0.02 * scale), covariance=torch.diag(scale))
    posterior, images = posterior_of(toy)
    costs = Gaussian(**toy.best_diagonal(images, LMBDA)).sample_cost(
        posterior, 8, seeded(0)
    )  # the posterior is diagonal here
    torch.testing.assert_close(costs, toy.neg_log_gamma(images, LMBDA).expand(8, 2))


@pytest.mark.parametrize(("dim", "pixels"), SIZES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_fitted_gaussian_reaches_the_best_diagonal_gaussian(dim: int, pixels: int, seed: int) -> None:
    toy = LinearGaussian.random(dim, pixels, seed=seed, encoder_shift=0.5)
    posterior, images = posterior_of(toy)
    fitted = fit_gaussian(posterior, steps=500, generator=seeded(seed))
    best = Gaussian(**toy.best_diagonal(images, LMBDA))
    torch.testing.assert_close(fitted.log_std, best.log_std, rtol=0, atol=0.1)
    assert ((fitted.mean - best.mean).abs() < 0.1 * best.log_std.exp()).all()
    draws = fitted.sample_cost(posterior, 2000, seeded(seed + 100))
    assert_agrees(draws.mean(0), draws.std(0) / 2000**0.5, toy.mean_field_cost(images, LMBDA))


@pytest.mark.parametrize(("dim", "pixels"), SIZES)
def test_cost_of_a_box_and_of_the_best_box_agree_with_the_closed_form(dim: int, pixels: int) -> None:
    toy = LinearGaussian.random(dim, pixels, seed=1, encoder_shift=0.5)
    posterior, images = posterior_of(toy)
    best = toy.posterior_mean(images, LMBDA)
    fitted = fit_box(posterior, steps=500, generator=seeded(0))
    for location, truth in ((posterior.location, posterior.location), (fitted, best)):
        draws = sample_box_cost(posterior, location, 4000, seeded(1))
        assert_agrees(draws.mean(0), draws.std(0) / 4000**0.5, toy.box_cost(truth, images, LMBDA))


# Hamiltonian Monte Carlo


@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_hmc_keeps_the_moments_of_the_bridge_between_two_gaussians(beta: float) -> None:
    mean, precision = torch.tensor([1.0, -2.0]).double(), torch.tensor([[2.0, 0.8], [0.8, 1.0]]).double()

    def target(points: Tensor) -> State:
        slope = (points - mean) @ precision
        return State(points=points, energy=0.5 * (slope * (points - mean)).sum(-1), gradient=slope)

    bridge = (1 - beta) * torch.eye(2, dtype=torch.double) + beta * precision
    centre, covariance = torch.linalg.solve(bridge, beta * precision @ mean), torch.linalg.inv(bridge)
    generator, chains = seeded(0), 20_000
    state, probability = (
        target(torch.zeros(chains, 1, 2, dtype=torch.double)),
        torch.zeros(()),
    )  # far from the mean, so that it has to move
    for _ in range(40):
        step = torch.full((1,), 0.9, dtype=torch.double)  # coarse: without the accept step the moments are wrong
        state, probability = transition(state, target, beta=beta, step_size=step, leapfrog_steps=3, generator=generator)
    assert 0.5 < float(probability.mean()) < 0.99
    points = state.points[:, 0]
    spread = covariance.diagonal().sqrt()
    assert ((points.mean(0) - centre).abs() < 5 * spread / chains**0.5).all()
    stderr = (torch.outer(covariance.diagonal(), covariance.diagonal()) + covariance.square()).sqrt() / chains**0.5
    assert ((points.T.cov() - covariance).abs() < 5 * stderr).all()


def test_hmc_never_accepts_what_is_not_finite() -> None:
    def target(points: Tensor) -> State:
        energy = torch.where(points[..., 0] == 0, 0.0, -math.inf).double()
        return State(points=points, energy=energy, gradient=points / 0)

    state = State(points=torch.zeros(8, 1, 2), energy=torch.zeros(8, 1).double(), gradient=torch.zeros(8, 1, 2))
    moved, probability = transition(
        state, target, beta=1.0, step_size=torch.ones(1), leapfrog_steps=2, generator=seeded(0)
    )
    assert (probability == 0).all()
    assert (moved.points == 0).all()


# annealed importance sampling


@pytest.mark.parametrize(("dim", "pixels"), SIZES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_annealing_from_the_fit_agrees_with_the_closed_form(dim: int, pixels: int, seed: int) -> None:
    toy = LinearGaussian.random(dim, pixels, seed=seed, encoder_shift=0.5)
    posterior, images = posterior_of(toy)
    base = fit_gaussian(posterior, steps=300, generator=seeded(seed))
    estimate = anneal(posterior, base, chains=128, temperatures=100, generator=seeded(seed + 100))
    assert_agrees(estimate.neg_log_gamma_upper_nats, estimate.stderr_nats, toy.neg_log_gamma(images, LMBDA))
    assert ((estimate.acceptance > 0.6) & (estimate.acceptance < 0.85)).all()
    assert (estimate.effective_chains > 4).all()


def test_mean_of_exponentiated_weights_is_gamma_even_with_few_temperatures() -> None:
    toy = LinearGaussian.random(2, 12, seed=0)
    posterior, images = posterior_of(toy, number=1)
    estimate = anneal(
        posterior, Gaussian(**toy.best_diagonal(images, LMBDA)), chains=20_000, temperatures=3, generator=seeded(0)
    )
    assert float(estimate.stderr_nats) < 0.01
    assert_agrees(estimate.neg_log_gamma_upper_nats, estimate.stderr_nats, toy.neg_log_gamma(images, LMBDA))


def test_few_temperatures_and_one_chain_lie_above_the_truth_on_average() -> None:
    toy = LinearGaussian.random(64, 96, seed=0)
    posterior, images = posterior_of(toy, number=1)
    truth = toy.neg_log_gamma(images, LMBDA)
    base = Gaussian(**toy.best_diagonal(images, LMBDA))
    excess = {}
    for temperatures in (4, 40):
        weights = anneal(posterior, base, chains=256, temperatures=temperatures, generator=seeded(1)).log_weights_nats
        excess[temperatures] = float(-weights.mean() - truth)
        assert excess[temperatures] > 5 * float(weights.std()) / 256**0.5
    assert excess[40] < 0.5 * excess[4]
    assert excess[4] < float(toy.mean_field_cost(images, LMBDA) - truth)  # better than no annealing


def test_log_mean_exp_and_its_error_run_over_chains() -> None:
    log_weights = torch.randn(40, 3, dtype=torch.double, generator=seeded(0)) * 0.1 - 2000  # exp would underflow
    estimate = AnnealedEstimate(log_weights_nats=log_weights, acceptance=torch.ones(3), temperatures=2)
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
    toy = LinearGaussian.random(2, 12, seed=2, encoder_shift=0.7)
    images = toy.images(3, LMBDA, seed=5)
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
    toy = LinearGaussian.random(2, 12, seed=2)
    images = toy.images(1, LMBDA, seed=5).expand(300, -1, -1, -1)  # one image, 300 independent estimates
    result = decompose(toy, images, LMBDA, generator=seeded(0), fit_steps=300, chains=16, temperatures=20, batch=20_000)
    for name in ("encoder", "fitted_box", "neg_log_gamma_upper", "inference_gap_lower"):
        spread = getattr(result, f"{name}_bpp").std()
        reported = getattr(result, f"{name}_stderr_bpp").square().mean().sqrt()
        assert float(spread / reported) == pytest.approx(1, abs=0.2), name


def test_lmbda_weighs_the_squared_error() -> None:
    toy = LinearGaussian.random(2, 12, seed=2)
    images = toy.images(2, LMBDA, seed=5) + 0.1
    low, high = (
        decompose(toy, images, lmbda, generator=seeded(0), fit_steps=1, temperatures=2, samples=2).rounded_bpp
        for lmbda in (LMBDA, 2 * LMBDA)
    )
    (rounded,) = toy.quantize(toy.infer(images))
    mse = (255 * (toy.decode((rounded,)) - images)).square().mean((1, 2, 3))
    torch.testing.assert_close(high - low, LMBDA * mse)


def test_equal_seeds_give_equal_results_and_others_do_not() -> None:
    toy = LinearGaussian.random(2, 12, seed=2)
    images = toy.images(2, LMBDA, seed=5)
    first, again, other = (
        decompose(toy, images, LMBDA, generator=seeded(seed), fit_steps=5, temperatures=3).to_frame()
        for seed in (0, 0, 1)
    )
    pd.testing.assert_frame_equal(first.drop(columns="seconds"), again.drop(columns="seconds"))
    assert (first.neg_log_gamma_upper_bpp != other.neg_log_gamma_upper_bpp).all()


def test_a_prior_that_is_not_normalized_is_refused() -> None:
    toy = LinearGaussian.random(2, 12, seed=2)
    codec = from_modules(lambda x: toy.infer(x)[0], lambda y: toy.decode((y,)), lambda y: toy.log_prior((y,)) + 100)
    with pytest.raises(RuntimeError, match="must not be negative"):
        decompose(codec, toy.images(1, LMBDA, seed=5), LMBDA, generator=seeded(0), fit_steps=50)


def test_energies_that_are_not_finite_are_refused() -> None:
    toy = LinearGaussian.random(2, 12, seed=2)
    codec = from_modules(lambda x: toy.infer(x)[0], lambda y: toy.decode((y.sqrt(),)), lambda y: toy.log_prior((y,)))
    with pytest.raises(RuntimeError, match="finite"):
        decompose(codec, toy.images(1, LMBDA, seed=5), LMBDA, generator=seeded(0), fit_steps=50)


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
    toy = LinearGaussian.random(2, 12, seed=2)
    images, lmbda = options.pop("images", toy.images(1, LMBDA, seed=5)), options.pop("lmbda", LMBDA)
    with pytest.raises(ValueError, match=message):
        decompose(toy, images, lmbda, generator=seeded(0), **options)


# the command

QUICK = ["--fit-steps", "20", "--temperatures", "5", "--samples", "8", "--chains", "4"]


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def _toy_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "load_codec", lambda *_, **__: patch_means())


@pytest.mark.usefixtures("_toy_zoo")
def test_command_prints_and_writes_what_it_measured(
    photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "second.png"
    Image.open(photograph).transpose(Image.Transpose.ROTATE_90).save(other)
    outputs = {kind: tmp_path / "new" / f"gaps.{kind}" for kind in ("csv", "json", "png")}
    arguments = [str(photograph), str(other), "--crop", "8", *QUICK]
    arguments += ["--csv", str(outputs["csv"]), "--json", str(outputs["json"]), "--plot", str(outputs["png"])]
    assert command.main(arguments) == 0
    printed, progress = capsys.readouterr()
    assert progress == ""
    table = pd.read_csv(outputs["csv"])
    content = json.loads(outputs["json"].read_text())
    assert list(table.num_pixels) == [64, 64]
    assert content["settings"]["crop"] == 8
    assert pd.DataFrame(content["images"]).equals(table)
    for name in ("encoder", "fitted_gaussian", "inference_gap_lower"):
        for index in (0, 1):
            assert f"{table[f'{name}_bpp'][index]:.4f}±{table[f'{name}_stderr_bpp'][index]:.4f}" in printed
        average = content["average"]
        assert average[f"{name}_bpp"] == pytest.approx(table[f"{name}_bpp"].mean())
        assert average[f"{name}_image_stderr_bpp"] == pytest.approx(abs(table[f"{name}_bpp"].diff()[1]) / 2)
        assert average[f"{name}_estimator_stderr_bpp"] == pytest.approx(np.hypot(*table[f"{name}_stderr_bpp"]) / 2)
    with Image.open(outputs["png"]) as picture:
        assert picture.width > 1000


@pytest.mark.usefixtures("_toy_zoo")
def test_images_of_different_sizes_and_folders_are_taken_whole(
    photograph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.open(photograph).crop((0, 0, 12, 8)).save(tmp_path / "small.png")
    table = tmp_path / "gaps.csv"
    assert command.main([str(tmp_path), *QUICK, "--batch", "8", "--csv", str(table)]) == 0
    assert sorted(pd.read_csv(table).num_pixels) == [96, 960]
    assert "mean of 2" in capsys.readouterr().out


@pytest.mark.usefixtures("_toy_zoo")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "missing.png"),
        (["text.png"], "text.png"),
        (["cut.png"], "cut.png"),
        (["photo.png", "--crop", "25"], "photo.png.*25"),
        (["photo.png", "--plot", "gaps.xyz"], "must end in .*got gaps.xyz"),
        (["photo.png", "--chains", "1"], "--chains: must be at least 2, got 1"),
        (["photo.png", "--lmbda", "-1"], "--lmbda: must be positive"),
        (["photo.png", "--device", "abacus"], "`--device` must name a device"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    photograph: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(photograph.parent)
    Path("text.png").write_text("no image")
    Path("cut.png").write_bytes(photograph.read_bytes()[:900])
    assert command.main(arguments) == 2
    _is_one_line(capsys.readouterr(), message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--model", "no-such-model"], "no-such-model"), (["--lmbda", "0.0123"], "0.0123|trained")],
)
def test_unknown_model_or_lmbda_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, photograph: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(photograph), *arguments]) == 2
    _is_one_line(capsys.readouterr(), message)


def test_module_runs_from_another_directory(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    finished = subprocess.run(
        [sys.executable, "-m", "rdgap.gaps", "missing.png"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    _is_one_line((finished.stdout, finished.stderr), "missing.png")


def _is_one_line(captured: tuple[str, str], message: str) -> None:
    printed, error = captured
    assert printed == ""
    assert len(error.splitlines()) == 1
    assert re.search(message, error)
