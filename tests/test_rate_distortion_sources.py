"""Sources: what they know of themselves, against other ways to know it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate

from rdgap.images import write_image
from rdgap.rate_distortion.named import named_source
from rdgap.rate_distortion.source import DiscreteSource, Source, VectorSource
from rdgap.rate_distortion.sources import (
    Banana,
    Gaussian,
    HammingSource,
    Laplace,
    LaplaceAbsolute,
    Patches,
    Sawbridge,
    Sphere,
)
from rdgap.rate_distortion.water_filling import water_filling

VECTORS: list[VectorSource] = [Gaussian.spectrum(3), Laplace(2), Banana(), Banana(7), Sphere(4), Sawbridge(64)]
EXACT: list[Source] = [Gaussian.spectrum(3), LaplaceAbsolute(0.7), HammingSource([0.3, 0.7]), HammingSource([0.2] * 5)]


def entropy_of(p: float) -> float:
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


@pytest.mark.parametrize("source", VECTORS, ids=lambda source: source.name)
def test_equal_seeds_draw_equal_samples_of_the_covariance_that_is_known(source: VectorSource) -> None:
    x = source.sample(40_000, torch.Generator().manual_seed(1))
    assert torch.equal(x, source.sample(40_000, torch.Generator().manual_seed(1)))
    assert x.dtype == torch.double
    assert x.shape == (40_000, source.dim)
    if source.variances is not None:
        found = torch.linalg.eigvalsh(x.T.cov())[-source.intrinsic_dim :]
        torch.testing.assert_close(found, source.variances.sort().values, rtol=0.05, atol=0.01)
        assert float(x.T.cov().trace()) == pytest.approx(float(source.variances.sum()), rel=0.03)


@pytest.mark.parametrize("source", EXACT, ids=lambda source: source.name)
@pytest.mark.parametrize("lmbda", [0.2, 1.0, 3.0, 40.0])
def test_slope_of_f_is_the_distortion_and_the_parts_add_up(source: Source, lmbda: float) -> None:
    point, step = source.point(lmbda), 1e-5 * lmbda
    assert point is not None
    above, below = source.bounds(lmbda + step)[0], source.bounds(lmbda - step)[0]
    assert (above - below) / (2 * step) == pytest.approx(point.distortion, rel=1e-5)
    assert point.rate_nats + lmbda * point.distortion == pytest.approx(point.f_nats, abs=1e-12)
    if point.rate_nats > 0:
        assert source.rate_nats(point.distortion) == pytest.approx(point.rate_nats, abs=1e-6)


@pytest.mark.parametrize("distortion", [0.02, 0.1, 0.25])
def test_rates_are_those_of_the_textbook(distortion: float) -> None:
    assert HammingSource([0.3, 0.7]).rate_nats(distortion) == pytest.approx(
        entropy_of(0.3) - entropy_of(distortion), abs=1e-6
    )
    four = math.log(4) - entropy_of(distortion) - distortion * math.log(3)
    assert HammingSource([0.25] * 4).rate_nats(distortion) == pytest.approx(four, abs=1e-6)
    assert LaplaceAbsolute(0.7).rate_nats(distortion) == pytest.approx(math.log(0.7 / distortion), abs=1e-6)
    normal = Gaussian(torch.tensor([[2.0]]))
    assert normal.rate_nats(distortion) == pytest.approx(0.5 * math.log(2 / distortion), abs=1e-6)


def test_water_covers_the_components_below_its_level() -> None:
    rate, distortion = water_filling(torch.tensor([4.0, 1.0, 0.1]), 0.5)
    assert rate == pytest.approx(0.5 * (math.log(8) + math.log(2)))
    assert distortion == pytest.approx(1.1)


@pytest.mark.parametrize(("dim", "f_nats"), [(2, 2.54063), (5, 5.17803)])
def test_sphere_is_known_from_the_noise_precision_on(dim: int, f_nats: float) -> None:
    source = Sphere(dim)
    point = source.point(10.0)
    assert point is not None
    assert point.f_nats == pytest.approx(f_nats, abs=5e-6)
    assert point.distortion == pytest.approx(dim * 0.1 / 2)
    assert source.point(9.9) is None
    lower, upper = source.bounds(9.9)
    assert lower < upper


def test_entropy_of_the_sphere_is_that_of_its_samples() -> None:
    """The density is an average over the sphere; here over a fine grid of the circle."""
    source = Sphere(2)
    angles = torch.linspace(0, 2 * math.pi, 401, dtype=torch.double)[:-1]
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    x = source.sample(20_000, torch.Generator().manual_seed(0))
    log_density = torch.logsumexp(-source.distortions(x, circle) / 0.1, 1) - math.log(400 * 2 * math.pi * 0.1)
    assert abs(float(-log_density.mean()) - source.entropy_nats) < 5 * float(log_density.std()) / 20_000**0.5


def test_entropy_of_the_banana_and_its_lower_bound() -> None:
    assert Banana().entropy_nats == pytest.approx(3.24334, abs=5e-6)
    source = Banana(16)
    assert source.rate_nats(0.5) == pytest.approx(3.24334 - math.log(math.pi * math.e * 0.5), abs=1e-4)


def test_embedding_keeps_distances() -> None:
    flat, embedded = (source.sample(20, torch.Generator().manual_seed(3)) for source in (Banana(), Banana(9)))
    torch.testing.assert_close(torch.cdist(flat, flat), torch.cdist(embedded, embedded))


def test_sawbridge_paths_are_as_far_apart_as_their_jumps() -> None:
    source = Sawbridge(1000)
    jumps = torch.tensor([0.1004, 0.3, 0.95], dtype=torch.double)
    paths = source.paths(jumps)
    torch.testing.assert_close(source.distortions(paths, paths), (jumps[:, None] - jumps).abs(), atol=2e-3, rtol=0)
    mean = source.paths((torch.arange(1000) + 0.5) / 1000).mean(0, keepdim=True)
    single = source.distortions(source.sample(20_000, torch.Generator().manual_seed(0)), mean).mean()
    assert float(single) == pytest.approx(1 / 6, abs=1e-3)  # one cell


def test_one_shot_optimum_of_the_sawbridge_is_the_best_of_all_partitions() -> None:
    generator = np.random.default_rng(0)
    for lmbda in (2.0, 9.0, 25.0):
        best = Sawbridge(8).one_shot(lmbda)
        for number in range(1, 12):
            for cells in generator.dirichlet(np.full(number, 5.0), size=300):
                cost = -float(cells @ np.log(cells)) + lmbda * float(cells @ cells) / 6
                assert cost >= best.f_nats - 1e-9
        assert best.rate_nats + lmbda * best.distortion == pytest.approx(best.f_nats)
    assert Sawbridge(8).one_shot(2.0).rate_nats == pytest.approx(0.0)


def test_no_cumulative_beats_the_logistic_one_in_the_sawbridge_bound() -> None:
    """The bound's supremum is `e / lmbda`; the logistic function reaches it, others stay below."""

    def integral(cumulative) -> float:
        grid = np.linspace(-40, 40, 8001)
        step = grid[1] - grid[0]
        values = cumulative(grid)
        left, right = np.cumsum(values**2) * step, np.cumsum(((1 - values) ** 2)[::-1])[::-1] * step
        return float(integrate.trapezoid(np.exp(-(left + right)), grid))

    logistic = integral(lambda t: 1 / (1 + np.exp(-t)))
    assert logistic == pytest.approx(math.e, rel=0.01)
    for other in (lambda t: 1 / (1 + np.exp(-1.3 * t)), lambda t: (t > 0).astype(float),
                  lambda t: np.clip(0.5 + t / 5, 0, 1), lambda t: 1 / (1 + np.exp(-0.8 * t))):  # fmt: skip
        assert integral(other) < logistic


def test_patches_come_from_the_photographs(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 12, 17, generator=generator)
    for index, image in enumerate(images):
        write_image(tmp_path / f"{index}.png", image)
    source = Patches([tmp_path], 8)
    x = source.sample(50, generator)
    luma = (torch.tensor([0.299, 0.587, 0.114])[:, None, None] * images).sum(1) * 255
    windows = luma.unfold(1, 8, 1).unfold(2, 8, 1).reshape(-1, 64).double()
    assert float(torch.cdist(x, windows).amin(1).max()) < 8  # rounding to 8 bit, half a level in each of 64
    assert math.isinf(source.bounds(1.0)[1])
    with pytest.raises(ValueError, match="must be at least 16 x 16, got 12 x 17"):
        Patches([tmp_path], 16)


def test_discrete_sources_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "three.csv"
    path.write_text("0.5,0,1,4\n0.25,1,0,1\n0.25,4,1,0\n")
    source = DiscreteSource.read(path)
    assert source.entropy_nats == pytest.approx(1.5 * math.log(2))
    assert source.bounds(1.0) == (0.0, pytest.approx(0.75))
    assert set(source.sample(200, torch.Generator().manual_seed(0)).tolist()) == {0, 1, 2}
    for text, said in {
        "0.5,0,1\n0.4,1,0\n": "sum to 1",
        "0.5,0,1\n0.5,1\n": "rows of numbers, as many in each",
        "0.5,0,-1\n0.5,1,0\n": "finite and at least 0",
        "a,b\n": "rows of numbers",
        "1\n": "a probability and distortions",
    }.items():
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            DiscreteSource.read(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gauss", "a source must be"),
        ("gaussian-0", "at least 1, got '0'"),
        ("sphere-x", "got 'x'"),
        ("a.csv", "must be"),
    ],
)
def test_unknown_sources_are_refused(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        named_source(name)


def test_sources_refuse_what_they_cannot_be() -> None:
    with pytest.raises(ValueError, match="symmetric"):
        Gaussian(torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="positive definite"):
        Gaussian(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(ValueError, match="two, or equal ones"):
        HammingSource([0.2, 0.3, 0.5])
    with pytest.raises(ValueError, match="`lmbda` must be positive"):
        Sphere(2).bounds(-1.0)
    with pytest.raises(ValueError, match="`distortion` must be positive"):
        Banana().rate_nats(0.0)
