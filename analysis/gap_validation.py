"""Every estimator of the gaps beside the truth, where the truth is a closed form or an integral over two latents.

python analysis/gap_validation.py                              # some minutes on one core
python analysis/gap_validation.py --smoke --tables FOLDER      # the whole path in seconds

Linear codecs with Gaussian priors on Gaussian sources make every term of Eq. 24 a closed form, at 2 to 1024 latents.
The source is larger than the decoder's range, and prior and encoder are mismatched, so that no term is near zero. A
codec of two latents with a bent decoder is integrated by quadrature. Writes into analysis/tables:

- gap_validation.csv: one row per problem, term and estimator, means over a few images in nats per image;
- gap_validation.json: settings and provenance.

`side` is that of the estimator: `upper` and `lower` bounds hold in expectation (the right sums of thermodynamic
integration as far as the chains are in equilibrium), `none` is an estimate without a side, `exact` has no Monte Carlo
error. A bound that is loose by design, such as the cost of a fitted Gaussian, may lie many standard errors from the
truth, but on its side. `truth_nats` is that of the very images; `simulated` ones are drawn from the codec itself.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _experiment import check_smoke, parser, provenance
from torch import Tensor
from tqdm import tqdm

from rdgap import _cli
from rdgap._files import write_json
from rdgap.gaps import (
    Posterior,
    SourceBounds,
    bidirectional,
    decompose,
    fit_gaussian,
    ideal_curve,
    importance_bound,
    simulate,
)
from rdgap.gaps.ais import jackknife_stderr
from rdgap.gaps.reference import GaussianSource, LinearGaussian, curved, tau
from rdgap.model import Codec
from rdgap.objective import bpp_to_nats, nats_to_bpp

LMBDA, SEED, IMAGES = 0.01, 0, 4
CURVE = (LMBDA / 2, LMBDA)


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much work goes into the estimates of one problem."""

    dim: int
    rank: int  # of the posterior's covariance beyond its diagonal
    chains: int
    temperatures: int
    samples: int
    fit_steps: int = 1000

    @property
    def batch(self) -> int:
        """Latents decoded at a time, few enough to fit in the processor's memory."""
        return 2_000_000 // self.dim


EFFORTS = (
    Effort(dim=2, rank=1, chains=4096, temperatures=40, samples=400_000),
    Effort(dim=16, rank=2, chains=512, temperatures=60, samples=50_000),
    Effort(dim=256, rank=8, chains=64, temperatures=60, samples=20_000),
    Effort(dim=1024, rank=16, chains=8, temperatures=150, samples=3_000),
)
BENT = Effort(dim=2, rank=1, chains=2048, temperatures=100, samples=400_000)
SMOKE = (Effort(dim=2, rank=1, chains=256, temperatures=5, samples=1000, fit_steps=100),)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An estimate for each image and its truth, in nats, (images,)."""

    term: str
    estimator: str
    side: str
    images: str
    estimate: Tensor
    stderr: Tensor
    truth: Tensor
    seconds: float

    @property
    def row(self) -> dict[str, object]:
        """Means over the images."""
        estimate, truth = float(self.estimate.mean()), float(self.truth.mean())
        stderr = float(self.stderr.norm()) / len(self.estimate)
        return {
            "term": self.term,
            "estimator": self.estimator,
            "side": self.side,
            "images": self.images,
            "estimate_nats": estimate,
            "stderr_nats": stderr,
            "truth_nats": truth,
            "z_score": (estimate - truth) / stderr if stderr else math.nan,
            "relative_stderr": stderr / abs(truth),
            "seconds": round(self.seconds, 1),
        }


def linear_problem(dim: int, rank: int) -> tuple[LinearGaussian, GaussianSource]:
    """Draw a codec of `dim` latents for half as many pixels more, and a source that fits it badly.

    The posterior's covariance is a diagonal plus a matrix of the given rank. The source's variances run from below the
    water level `1 / tau` to far above it, in directions that the decoder knows nothing of.
    """
    generator = torch.Generator().manual_seed(SEED + dim)
    draw = {"dtype": torch.double, "generator": generator}
    pixels = dim + dim // 2
    bias = torch.full((pixels,), 0.5, dtype=torch.double)
    factor = 3 * torch.randn(dim, rank, **draw) * dim**-0.5
    codec = LinearGaussian(
        matrix=torch.linalg.qr(torch.randn(pixels, dim, **draw)).Q * (0.02 + 0.02 * torch.rand(dim, **draw)),
        bias=bias,
        mean=torch.randn(dim, **draw),
        covariance=torch.diag(0.5 + torch.rand(dim, **draw)) + factor @ factor.T,
        encoder_shift=0.7,
    )
    directions = torch.linalg.qr(torch.randn(pixels, pixels, **draw)).Q
    variances = torch.logspace(-0.5, 1.5, pixels, dtype=torch.double) / tau(LMBDA)
    return codec, GaussianSource(mean=bias, covariance=(directions * variances) @ directions.T)


def linear_rows(effort: Effort) -> Iterator[dict[str, object]]:
    """Measure every term of a linear problem."""
    codec, source = linear_problem(effort.dim, effort.rank)
    generator = torch.Generator().manual_seed(SEED + 1)
    images = source.images(IMAGES, generator)
    truths = true_costs(codec, images)
    known = {"irreducible": source.irreducible(LMBDA), "fixed_decoder": source.fixed_decoder(codec, LMBDA)}
    measured = [
        *decomposed(codec, images, effort, truths, generator, known),
        *other_estimators(codec, images, effort, truths["neg_log_gamma"], generator),
        *both_sides(codec, images, effort, generator),
        *curve(codec, images, effort, generator),
    ]
    for each in measured:
        yield {"problem": "linear", "dim": effort.dim} | each.row


def true_costs(codec: LinearGaussian, images: Tensor) -> dict[str, Tensor]:
    """Return the closed forms of every cost, each (images,) in nats."""
    (location,) = codec.infer(images)
    return {
        "encoder": codec.box_cost(location, images, LMBDA),
        "fitted_box": codec.box_cost(codec.posterior_mean(images, LMBDA), images, LMBDA),
        "fitted_gaussian": codec.mean_field_cost(images, LMBDA),
        "neg_log_gamma": codec.neg_log_gamma(images, LMBDA),
    }


def decomposed(
    codec: Codec,
    images: Tensor,
    effort: Effort,
    truths: dict[str, Tensor],
    generator: torch.Generator,
    known: dict[str, float] | None = None,
) -> Iterator[Measured]:
    """Measure what `decompose` measures; with a known source, the terms of the modeling gap too."""
    num_pixels = images.shape[-2] * images.shape[-1]
    bounds = {
        f"{name}_{side}_bpp": float(nats_to_bpp(torch.tensor(cost, dtype=torch.double), num_pixels))
        for name, cost in (known or {}).items()
        for side in ("lower", "upper")
    }
    began = time.perf_counter()
    gaps = decompose(
        codec,
        images,
        LMBDA,
        generator=generator,
        chains=effort.chains,
        temperatures=effort.temperatures,
        fit_steps=effort.fit_steps,
        samples=effort.samples,
        batch=effort.batch,
        source=SourceBounds(**bounds),
    )
    seconds = time.perf_counter() - began

    def row(term: str, estimator: str, side: str, name: str, truth: Tensor) -> Measured:
        return Measured(
            term=term,
            estimator=estimator,
            side=side,
            images="source",
            estimate=bpp_to_nats(getattr(gaps, f"{name}_bpp"), num_pixels),
            stderr=bpp_to_nats(getattr(gaps, f"{name}_stderr_bpp"), num_pixels),
            truth=truth,
            seconds=seconds,
        )

    box, encoder, ideal = truths["fitted_box"], truths["encoder"], truths["neg_log_gamma"]
    yield row("encoder cost", "samples", "none", "encoder", encoder)
    yield row("best box", "fitted box", "upper", "fitted_box", box)
    if "fitted_gaussian" in truths:
        yield row("best Gaussian", "fitted Gaussian", "upper", "fitted_gaussian", truths["fitted_gaussian"])
    yield row("-log Gamma", "AIS forward", "upper", "neg_log_gamma_upper", ideal)
    yield row("-log Gamma", "TI right", "lower", "equilibrium_lower", ideal)
    yield row("amortization gap", "encoder - box", "lower", "amortization_gap_lower", encoder - box)
    yield row("approximation gap", "box - AIS", "none", "approximation_gap", box - ideal)
    yield row("inference gap", "encoder - AIS", "lower", "inference_gap_lower", encoder - ideal)
    if known is None:
        return

    estimate = bpp_to_nats(gaps.neg_log_gamma_upper_bpp, num_pixels)
    stderr = bpp_to_nats(gaps.neg_log_gamma_upper_stderr_bpp, num_pixels)
    for term, interval, subtracted in (
        ("modeling gap", gaps.modeling_gap_interval_bpp, known["irreducible"]),
        ("prior gap", gaps.prior_gap_interval_bpp, known["fixed_decoder"]),
    ):
        reported = float(bpp_to_nats(torch.tensor(interval[1], dtype=torch.double), num_pixels))
        if abs(reported - float(estimate.mean() - subtracted)) > 1e-9:
            raise RuntimeError(f"The {term} must be the mean of -log Gamma less what is known, got {reported}.")
        yield Measured(
            term=term,
            estimator="AIS - closed form",
            side="upper",
            images="source",
            estimate=estimate - subtracted,
            stderr=stderr,
            truth=ideal - subtracted,
            seconds=seconds,
        )
    transform = bpp_to_nats(torch.tensor(gaps.transform_gap_interval_bpp, dtype=torch.double), num_pixels)
    for term, cost, truth in (
        ("irreducible", torch.tensor([known["irreducible"]], dtype=torch.double), known["irreducible"]),
        ("transform gap", transform, known["fixed_decoder"] - known["irreducible"]),
    ):
        yield Measured(
            term=term,
            estimator="closed form",
            side="exact",
            images="source",
            estimate=cost,
            stderr=torch.zeros(1),
            truth=torch.tensor([truth], dtype=torch.double),
            seconds=0.0,
        )


def other_estimators(
    codec: Codec, images: Tensor, effort: Effort, truth: Tensor, generator: torch.Generator
) -> Iterator[Measured]:
    """Bound `-log Gamma` by Gaussians with a factor and by importance weights."""
    posterior = Posterior(codec, images, LMBDA, batch=effort.batch)
    for rank, estimator in ((effort.rank, "low-rank Gaussian"), (0, "IWAE")):
        began = time.perf_counter()
        q = fit_gaussian(posterior, steps=effort.fit_steps, generator=generator, rank=rank)
        if rank:
            draws = q.sample_cost(posterior, effort.samples, generator)
            estimate, stderr = draws.mean(0), draws.std(0) / len(draws) ** 0.5
        else:
            bound = importance_bound(posterior, q, samples=effort.samples, generator=generator)
            estimate, stderr = bound.neg_log_gamma_upper_nats, bound.stderr_nats
        yield Measured(
            term="-log Gamma",
            estimator=estimator,
            side="upper",
            images="source",
            estimate=estimate,
            stderr=stderr,
            truth=truth,
            seconds=time.perf_counter() - began,
        )


def both_sides(codec: LinearGaussian, images: Tensor, effort: Effort, generator: torch.Generator) -> Iterator[Measured]:
    """Bound `-log Gamma` of simulated images by weights in both directions and by both sums."""
    began = time.perf_counter()
    simulated, latents = simulate(codec, images, LMBDA, generator)
    posterior = Posterior(codec, simulated, LMBDA, batch=effort.batch)
    base = fit_gaussian(posterior, steps=effort.fit_steps, generator=generator)
    sides = bidirectional(
        posterior, latents, base, chains=effort.chains, temperatures=effort.temperatures, generator=generator
    )
    seconds, forward = time.perf_counter() - began, sides.forward

    def mean(sums: Tensor) -> tuple[Tensor, Tensor]:
        return sums.mean(0), sums.std(0) / len(sums) ** 0.5

    for estimator, side, (estimate, stderr) in (
        ("AIS forward", "upper", (sides.neg_log_gamma_upper_nats, forward.stderr_nats)),
        ("AIS reverse", "lower", (sides.neg_log_gamma_lower_nats, jackknife_stderr(sides.lower_sums_nats))),
        ("TI left", "upper", mean(forward.upper_sums_nats)),
        ("TI right", "lower", mean(forward.lower_sums_nats)),
    ):
        yield Measured(
            term="-log Gamma",
            estimator=estimator,
            side=side,
            images="simulated",
            estimate=estimate,
            stderr=stderr,
            truth=codec.neg_log_gamma(simulated, LMBDA),
            seconds=seconds,
        )


def curve(codec: LinearGaussian, images: Tensor, effort: Effort, generator: torch.Generator) -> Iterator[Measured]:
    """Measure the ideal channel at a smaller lmbda and at this one in one run."""
    began, num_pixels = time.perf_counter(), images.shape[-1]
    ideal = ideal_curve(
        codec,
        images,
        CURVE,
        generator=generator,
        chains=effort.chains,
        temperatures=effort.temperatures,
        fit_steps=effort.fit_steps,
        batch=effort.batch,
    )
    seconds = time.perf_counter() - began
    for index, lmbda in enumerate(CURVE):
        weight = lmbda * num_pixels * math.log(2)  # of the MSE, in nats
        for term, side, estimate, stderr, truth in (
            (
                "-log Gamma",
                "upper",
                bpp_to_nats(ideal.neg_log_gamma_upper_bpp[index], num_pixels),
                bpp_to_nats(ideal.neg_log_gamma_upper_stderr_bpp[index], num_pixels),
                codec.neg_log_gamma(images, lmbda),
            ),
            (
                "distortion",
                "none",
                weight * ideal.mse[index],
                weight * ideal.mse_stderr[index],
                weight * codec.mse(images, lmbda),
            ),
        ):
            yield Measured(
                term=f"{term} at lmbda {lmbda:g}",
                estimator="ideal curve",
                side=side,
                images="source",
                estimate=estimate,
                stderr=stderr,
                truth=truth,
                seconds=seconds,
            )


def curved_rows(effort: Effort) -> Iterator[dict[str, object]]:
    """Measure the terms of the bent decoder, whose truths are sums over a fine grid of its two latents."""
    codec, generator = curved(), torch.Generator().manual_seed(SEED + 2)
    latents = torch.randn(IMAGES, 2, dtype=torch.double, generator=generator)
    images = codec.decode((latents,))
    images = images + 0.03 * torch.randn(images.shape, dtype=torch.double, generator=generator)
    truths = integrals(Posterior(codec, images, LMBDA, batch=effort.batch))
    measured = [
        *decomposed(codec, images, effort, truths, generator),
        *other_estimators(codec, images, effort, truths["neg_log_gamma"], generator),
    ]
    for each in measured:
        yield {"problem": "curved", "dim": effort.dim} | each.row


def integrals(posterior: Posterior) -> dict[str, Tensor]:
    """Return the costs of the encoder's box, the best box and the ideal channel by quadrature, each (images,)."""
    axis = torch.linspace(-8, 8, 801, dtype=torch.double)
    grid = torch.cartesian_prod(axis, axis)[:, None].expand(-1, len(posterior.images), 2)
    nodes, weights = (torch.from_numpy(each) / 2 for each in np.polynomial.legendre.leggauss(20))
    offsets, shares = torch.cartesian_prod(nodes, nodes)[:, None], torch.outer(weights, weights).flatten()

    def box_cost(location: Tensor) -> Tensor:
        return torch.einsum("s,si->i", shares, posterior.energy(location + offsets))

    best = posterior.location.clone()
    for _ in range(50):  # Newton's method, by the gradients of the boxes' nodes and differences of those
        slope = box_slope(posterior, best, offsets, shares)
        shifted = [
            (box_slope(posterior, best + step, offsets, shares) - box_slope(posterior, best - step, offsets, shares))
            for step in 1e-4 * torch.eye(2, dtype=torch.double)
        ]
        curvature = torch.stack(shifted, -1) / 2e-4
        values, vectors = torch.linalg.eigh((curvature + curvature.mT) / 2)
        towards = torch.einsum("iab,ib,icb,ic->ia", vectors, 1 / values.abs().clamp(min=0.1), vectors, slope)
        best = best - towards.clamp(-0.3, 0.3)
    return {
        "encoder": box_cost(posterior.location),
        "fitted_box": box_cost(best),
        "neg_log_gamma": -torch.logsumexp(-posterior.energy(grid), 0) - 2 * math.log(float(axis[1] - axis[0])),
    }


def box_slope(posterior: Posterior, location: Tensor, offsets: Tensor, shares: Tensor) -> Tensor:
    """Return the gradient (images, 2) of the boxes' costs with respect to their locations."""
    rate_slope, distortion_slope = posterior.slopes(location + offsets)
    return torch.einsum("s,sid->id", shares, rate_slope + distortion_slope)


def check_identity(table: pd.DataFrame) -> None:
    """Raise `RuntimeError` unless the terms of Eq. 24 add up, estimates and truths alike."""
    for dim, rows in table[table.problem == "linear"].groupby("dim"):
        terms = rows.set_index("term")
        for column in ("estimate_nats", "truth_nats"):
            parts = sum(float(terms.loc[term, column]) for term in ("irreducible", "modeling gap", "inference gap"))
            if abs(parts - float(terms.loc["encoder cost", column])) > 1e-9:
                raise RuntimeError(f"The terms must add up to the encoder's cost, got {parts} at {dim} dimensions.")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = parser(__doc__, smoke="two latents and short chains")
    return _cli.run(_measure, arguments, argv)


def _measure(options: argparse.Namespace) -> None:
    check_smoke(options)
    tables: Path = options.tables
    efforts, bent = (SMOKE, SMOKE[0]) if options.smoke else (EFFORTS, BENT)
    torch.set_num_threads(1)
    began = time.perf_counter()
    rows = list(curved_rows(bent))
    for effort in tqdm(efforts, desc="problems", disable=None):
        rows += linear_rows(effort)
    table = pd.DataFrame(rows)
    check_identity(table)
    tables.mkdir(parents=True, exist_ok=True)
    table.to_csv(tables / "gap_validation.csv", index=False, lineterminator="\n")
    origin = provenance("python analysis/gap_validation.py")
    origin |= {
        "settings": {"lmbda": LMBDA, "seed": SEED, "images": IMAGES, "efforts": [vars(each) for each in efforts]},
        "seconds": round(time.perf_counter() - began),
    }
    write_json(tables / "gap_validation.json", origin)
    print(summary(table).to_string(index=False))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the largest |z| and relative standard error of each problem."""
    noisy = table[table.side != "exact"].assign(abs_z=table.z_score.abs())
    return pd.DataFrame(noisy.groupby(["problem", "dim"], as_index=False)[["abs_z", "relative_stderr"]].max())


if __name__ == "__main__":
    sys.exit(main())
