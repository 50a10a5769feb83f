"""The irreducible term on sources whose rate-distortion function is known, and every gap of a codec trained for each.

python analysis/known_sources.py --images KODAK        # about half an hour on one core; the same command resumes
python analysis/known_sources.py --images KODAK --smoke --tables FOLDER        # the whole path in seconds

Writes into analysis/tables, all costs in nats per sample of the source:

- known_estimates.csv: what each method says of F(lmbda) beside the truth, or the known bounds, over three seeds;
- known_sources.csv: the decomposition of a small transform codec for each source. `measured` is the cost of its
  encoder's noise channel, and `measured = irreducible + modeling gap + inference gap` on the same samples, each known
  to an interval; the modeling gap is split into prior and transform gap. With one or two latents `-log Gamma` is also
  integrated on a grid: the truth of the inference gap and, where F is known, of the modeling gap;
- known_refits.csv: the interval of F_g, the best cost of the codec's decoder, as its prior moves towards the best one;
- known_sources.json: settings and provenance;

and the block between the markers in the top-level README. Sampled bounds enter intervals with three standard errors.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from _experiment import check_smoke, fill_readme, parser, provenance
from torch import Tensor

from rdgap import _cli
from rdgap._files import replacing, write_json
from rdgap.gaps import SourceBounds, decompose
from rdgap.ntc import NTCCodec
from rdgap.objective import cost
from rdgap.parallel import map_images
from rdgap.rate_distortion import GridPrior, dual_lower_bound, fixed_decoder_bounds, train_codec
from rdgap.rate_distortion.fixed_decoder import distortions_nats
from rdgap.rate_distortion.methods import Effort, estimates, upper_bound
from rdgap.rate_distortion.named import named_source
from rdgap.rate_distortion.ntc import as_images, image_lmbda
from rdgap.rate_distortion.source import VectorSource
from rdgap.rate_distortion.sources import Patches

BEGIN, END = "<!-- known sources: python analysis/known_sources.py -->", "<!-- end of known sources -->"
SEEDS = (0, 1, 2)
SIGMAS = 3.0
PIXEL = math.log(2)  # kappa of one-channel images at lmbda 1, and nats in a bit


@dataclass(frozen=True, kw_only=True)
class Estimation:
    """Methods to be held against what is known of a source."""

    source: str
    lmbda: float
    methods: tuple[str, ...]
    effort: Effort = Effort()  # noqa: RUF009 - frozen


@dataclass(frozen=True, kw_only=True)
class Coding:
    """A codec to be trained for a source and taken apart."""

    source: str
    lmbda: float
    latents: int
    upper: str = "mixture"
    steps: int = 1500
    components: int = 32


ESTIMATIONS = (
    Estimation(source="gaussian-2", lmbda=1.0, methods=("ba", "mixture", "wgd", "dual", "nerd")),
    Estimation(source="gaussian-32", lmbda=1.0, methods=("mixture", "wgd", "nerd")),
    Estimation(source="gaussian-256", lmbda=1.0, methods=("mixture",)),
    Estimation(source="binary", lmbda=1.0, methods=("ba",)),
    Estimation(source="hamming-4", lmbda=2.0, methods=("ba",)),
    Estimation(source="laplace-absolute", lmbda=2.0, methods=("ba",)),
    Estimation(source="laplace", lmbda=1.0, methods=("ba",)),
    Estimation(source="banana", lmbda=1.0, methods=("ba", "mixture", "wgd", "dual")),
    Estimation(source="banana-16", lmbda=1.0, methods=("mixture", "wgd", "dual")),
    Estimation(source="sphere-2", lmbda=10.0, methods=("ba", "mixture", "wgd", "dual", "nerd")),
    Estimation(source="sphere-5", lmbda=10.0, methods=("mixture", "wgd", "dual")),
    Estimation(source="sphere-10", lmbda=10.0, methods=("wgd", "dual"), effort=Effort(particles=2048)),
    Estimation(source="sawbridge", lmbda=20.0, methods=("wgd", "dual"), effort=Effort(particles=64)),
    Estimation(source="patches-8", lmbda=0.00125 * PIXEL, methods=("mixture", "dual")),
    Estimation(source="patches-8", lmbda=0.01 * PIXEL, methods=("mixture", "dual")),
    Estimation(source="patches-16", lmbda=0.00125 * PIXEL, methods=("mixture", "dual"), effort=Effort(components=8)),
    Estimation(source="patches-16", lmbda=0.01 * PIXEL, methods=("mixture", "dual"), effort=Effort(components=8)),
)
CODINGS = (
    Coding(source="gaussian-2", lmbda=3.0, latents=2),
    Coding(source="gaussian-32", lmbda=1.0, latents=16),
    Coding(source="laplace-2", lmbda=1.0, latents=2),
    Coding(source="banana", lmbda=1.0, latents=2),
    Coding(source="banana-16", lmbda=1.0, latents=2),
    Coding(source="sphere-2", lmbda=10.0, latents=2),
    Coding(source="sphere-5", lmbda=10.0, latents=5),
    Coding(source="sphere-10", lmbda=10.0, latents=10),
    Coding(source="sawbridge", lmbda=20.0, latents=1, upper="wgd"),
    Coding(source="patches-8", lmbda=0.01 * PIXEL, latents=16),
    Coding(source="patches-16", lmbda=0.01 * PIXEL, latents=32, components=8),
)
SMOKE_EFFORT = Effort(
    samples=400, components=2, particles=32, codewords=200, steps=5, codec_steps=5, batch=64, batches=3
)


@dataclass(frozen=True, kw_only=True)
class Job:
    """One row, or a few, of a table."""

    plan: Estimation | Coding
    seed: int
    images: Path | None
    smoke: bool

    @property
    def key(self) -> tuple[str, float, int]:
        """What is not measured twice."""
        return self.plan.source, self.plan.lmbda, self.seed

    @property
    def built(self) -> VectorSource:
        """The source."""
        return built(self.plan.source, self.images)


def built(name: str, images: Path | None) -> VectorSource:
    """Return a source; those of patches take the images."""
    if name.startswith("patches-"):
        if images is None:
            raise ValueError(f"{name} needs `--images FOLDER`.")
        return Patches([images], int(name.removeprefix("patches-")))
    return named_source(name)  # pyright: ignore[reportReturnType]


def measure_estimates(job: Job) -> list[dict[str, object]]:
    """Return a row for each method that answers, and one without numbers for each that refuses."""
    plan = job.plan
    assert isinstance(plan, Estimation)
    generator = torch.Generator().manual_seed(1000 + job.seed)
    source = job.built
    lower, upper = source.bounds(plan.lmbda)
    labels: dict[str, object] = {"source": plan.source, "lmbda": plan.lmbda, "seed": job.seed}
    effort = SMOKE_EFFORT if job.smoke else plan.effort
    found, refusals = estimates(source, plan.lmbda, plan.methods, generator=generator, effort=effort)
    labels |= {"known_lower_nats": lower, "known_upper_nats": upper}
    measured = ("method", "side", "f_nats", "stderr_nats", "rate_nats", "distortion")
    rows = [
        labels | {name: getattr(each, name) for name in measured} | {"refused": 0, "seconds": round(each.seconds, 1)}
        for each in found
    ]
    refused = [refusal.split(":")[0] for refusal in refusals]
    return rows + [labels | {"method": method, "side": "upper", "refused": 1} for method in refused]


def grid_of(codec: NTCCodec, images: Tensor, step: float) -> Tensor | None:
    """Return a regular grid (points, latents, 1, 1) of one or two latents that covers the posteriors, else None.

    Posteriors are about as wide as the unit box, and smooth: a step of a fifth integrates them to rounding.
    """
    spread = codec.infer(images)[0].flatten(1)
    if spread.shape[1] > 2:
        return None
    low, high = spread.amin(0) - 3, spread.amax(0) + 3
    axes = [torch.arange(float(a), float(b), step, dtype=torch.double) for a, b in zip(low, high, strict=True)]
    return torch.cartesian_prod(*axes).reshape(-1, spread.shape[1])[:, :, None, None]


def measure_coding(job: Job) -> list[dict[str, object]]:
    """Train a codec, bound F and F_g, decompose its cost; rows for both tables, told apart by `table`.

    The cost of few samples depends on which they are. `-log Gamma` of the upper bound of F, whose mean over many
    samples is known, tells how costly they are (`luck`); the same amount is taken from all costs.
    """
    plan, generator = job.plan, torch.Generator().manual_seed(job.seed)
    assert isinstance(plan, Coding)
    source, began = job.built, time.perf_counter()
    lmbda = image_lmbda(source, plan.lmbda)
    effort = Effort(components=plan.components, particles=64, samples=100_000 if source.dim <= 64 else 20_000)
    steps, number, many = plan.steps, 256, 4000
    if job.smoke:
        effort, steps, number, many = SMOKE_EFFORT, 3, 24, 48
    codec = train_codec(source, plan.lmbda, generator=generator, latents=plan.latents, steps=steps)
    found, gamma = upper_bound(source, plan.lmbda, plan.upper, effort, generator)
    assert gamma is not None
    hardness, starts = gamma
    lower, upper = source.bounds(plan.lmbda)
    vacuous = False
    if upper - lower > 1e-9:  # not known: the sampled sandwich, where it is tighter
        sizes = {"batch": effort.batch, "batches": effort.batches}
        dual = dual_lower_bound(source, plan.lmbda, hardness, generator=generator, starts=starts, **sizes)
        vacuous = max(lower, dual.f_nats) < 0.6 * found.f_nats
        lower = max(lower, dual.f_nats - SIGMAS * dual.stderr_nats)
        upper = min(upper, found.f_nats + SIGMAS * found.stderr_nats)

    x, fresh = source.sample(number, generator), source.sample(many, generator)
    images = as_images(x)
    luck = float(hardness(x).mean()) - found.f_nats
    fixed, own_of_samples, own_of_fresh = (lower, math.inf), None, None
    refits: list[dict[str, float]] = []
    grid = grid_of(codec, as_images(fresh), 1.0 if job.smoke else 0.2)
    if grid is not None:
        own = GridPrior.of_codec(codec, (grid,))
        own_of_samples = own.neg_log_gamma(codec, images, lmbda)
        own_of_fresh = own.neg_log_gamma(codec, as_images(fresh), lmbda)
        refits = refit(codec, own, source, lmbda, as_images(fresh), own_of_fresh, number, generator)
        best = min(row["fresh_upper_nats"] + SIGMAS * row["fresh_upper_stderr_nats"] for row in refits)
        least = max(row["fresh_lower_nats"] - SIGMAS * row["fresh_lower_stderr_nats"] for row in refits)
        fixed = (min(max(lower, least), best), best)

    gaps = decompose(
        codec,
        images,
        lmbda,
        generator=generator,
        chains=4 if job.smoke else 8,
        temperatures=3 if job.smoke else 100,
        fit_steps=5 if job.smoke else 200,
        samples=4 if job.smoke else 64,
        batch=8192,
    )
    rounded = cost(codec, codec.quantize(codec.infer(images)), images, lmbda).lagrangian_nats
    excess = PIXEL * gaps.neg_log_gamma_upper_bpp - hardness(x)
    ideal_stderr = PIXEL * gaps.mean("neg_log_gamma_upper").estimator_stderr_bpp
    stderr = math.hypot(float(excess.std()) / number**0.5, found.stderr_nats, ideal_stderr)
    slack = SIGMAS * stderr

    def on_these_samples(interval: tuple[float, float]) -> tuple[float, float]:
        return max(0.0, interval[0] + luck - slack) / PIXEL, (interval[1] + luck + slack) / PIXEL

    irreducible, fixed_decoder = on_these_samples((lower, upper)), on_these_samples(fixed)
    gaps = replace(
        gaps,
        equilibrium_lower_bpp=gaps.equilibrium_lower_bpp if own_of_samples is None else own_of_samples / PIXEL,
        source=SourceBounds(
            irreducible_lower_bpp=irreducible[0],
            irreducible_upper_bpp=irreducible[1],
            fixed_decoder_lower_bpp=fixed_decoder[0],
            fixed_decoder_upper_bpp=fixed_decoder[1],
        ),
    )

    def nats(name: str, less: float = 0.0) -> dict[str, float]:
        mean = gaps.mean(name)
        short = name.removesuffix("_lower").removesuffix("_upper")
        return {
            f"{short}_nats": PIXEL * mean.mean_bpp - less,
            f"{short}_stderr_nats": PIXEL * mean.estimator_stderr_bpp,
        }

    row: dict[str, object] = {
        "source": plan.source,
        "lmbda": plan.lmbda,
        "latents": plan.latents,
        "samples": number,
        "measured_nats": nats("encoder", luck)["encoder_nats"],
        "measured_stderr_nats": math.hypot(stderr, nats("encoder")["encoder_stderr_nats"]),
        "luck_nats": luck,
        "rounded_nats": float(rounded.mean()) - luck,
        "irreducible_lower_nats": lower,
        "irreducible_upper_nats": upper,
        "vacuous": int(vacuous),
        "fixed_decoder_lower_nats": fixed[0],
        "fixed_decoder_upper_nats": fixed[1],
        **nats("neg_log_gamma_upper", luck),
    }
    for term in ("modeling", "prior", "transform"):
        low, high = (PIXEL * each for each in getattr(gaps, f"{term}_gap_interval_bpp"))
        row |= {f"{term}_gap_lower_nats": low, f"{term}_gap_upper_nats": high}
    row |= nats("inference_gap_lower") | nats("amortization_gap_lower") | nats("approximation_gap")
    truths = dict.fromkeys(("neg_log_gamma", "inference_gap", "modeling_gap", "modeling_gap_stderr"), math.nan)
    if own_of_samples is not None and own_of_fresh is not None:
        integral = float(own_of_samples.mean()) - luck
        truths |= {"neg_log_gamma": integral, "inference_gap": float(row["measured_nats"]) - integral}  # pyright: ignore[reportArgumentType]
        if upper - lower < 1e-9:
            beyond = own_of_fresh - hardness(fresh)
            truths["modeling_gap"] = float(beyond.mean()) + found.f_nats - lower
            truths["modeling_gap_stderr"] = math.hypot(float(beyond.std()) / many**0.5, found.stderr_nats)
    row |= {f"{name}_truth_nats": value for name, value in truths.items()}
    row["seconds"] = round(time.perf_counter() - began)
    labels: dict[str, object] = {"source": plan.source, "lmbda": plan.lmbda, "table": "refits"}
    return [row | {"table": "sources"}, *(labels | each for each in refits)]


def refit(
    codec: NTCCodec,
    own: GridPrior,
    source: VectorSource,
    lmbda: float,
    fresh: Tensor,
    own_of_fresh: Tensor,
    number: int,
    generator: torch.Generator,
) -> list[dict[str, float]]:
    """Return the bounds of F_g as the codec's prior moves towards the best one for some samples.

    `fitted` ones are those of these very samples, where the best prior makes them meet; `fresh` ones are of others.
    """
    fitted_to = as_images(source.sample(2 * number, generator))
    best, _ = own.refitted(codec, fitted_to, lmbda, tolerance_nats=1e-3)
    rows = []
    for share in (0.0, 0.5, 0.8, 0.9, 0.99):
        prior = GridPrior(
            latents=own.latents, log_shares=((1 - share) * own.log_shares.exp() + share * best.log_shares.exp()).log()
        )
        fitted = prior.neg_log_gamma(codec, fitted_to, lmbda)
        costs = prior.neg_log_gamma(codec, fresh, lmbda) if share else own_of_fresh
        bounds = fixed_decoder_bounds(codec, fresh, costs, lmbda, generator=generator, batches=8)
        rows.append(
            {
                "share_of_best_prior": share,
                "fitted_upper_nats": float(fitted.mean()),
                "fitted_width_nats": certificate(codec, prior, fitted_to, fitted, lmbda),
                "fresh_upper_nats": bounds.upper.f_nats,
                "fresh_upper_stderr_nats": bounds.upper.stderr_nats,
                "fresh_lower_nats": bounds.lower.f_nats,
                "fresh_lower_stderr_nats": bounds.lower.stderr_nats,
            }
        )
    return rows


def certificate(codec: NTCCodec, prior: GridPrior, images: Tensor, costs: Tensor, lmbda: float) -> float:
    """Return `log max w` over the grid: how far the two bounds of F_g of these very images are apart."""
    best = -math.inf
    for latents in prior.latents[0].split(2048):
        table = distortions_nats(codec, (latents,), images, lmbda)
        best = max(best, float(torch.logsumexp(costs - table, 1).max()))
    return best - math.log(len(images))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment."""
    arguments = parser(__doc__, smoke="four sources and hardly any work")
    arguments.add_argument("--images", type=Path, help="folder of photographs for the patches (Kodak)")
    arguments.add_argument("--only", choices=("estimates", "codecs"), help="only this part")
    return _cli.run(_tables, arguments, argv)


def _tables(options: argparse.Namespace) -> None:
    check_smoke(options)
    began = time.perf_counter()
    torch.set_num_threads(1)
    smoke = {"gaussian-2", "sphere-2", "patches-8", "binary"}

    def jobs(plans: Sequence[Estimation | Coding], seeds: Sequence[int]) -> list[Job]:
        wanted = [plan for plan in plans if (plan.source in smoke if options.smoke else True)]
        if options.images is None:
            wanted = [plan for plan in wanted if not plan.source.startswith("patches")]
        every = [
            Job(plan=plan, seed=seed, images=options.images, smoke=options.smoke)
            for seed in seeds[: 1 if options.smoke else None]
            for plan in wanted
            if seed == seeds[0] or not plan.source.startswith("patches")  # whose F nobody knows
        ]
        return sorted(every, key=lambda job: job.plan.source.startswith("patches"))  # the slow ones last

    if options.only != "codecs":
        _complete(options.tables / "known_estimates.csv", jobs(ESTIMATIONS, SEEDS), measure_estimates, "estimates")
    if options.only != "estimates":
        _complete(options.tables / "known_sources.csv", jobs(CODINGS, (0,)), measure_coding, "codecs")
    if options.only:
        return
    check(options.tables)
    origin = provenance("python analysis/known_sources.py --images KODAK")
    origin |= {
        "settings": {
            "seeds": SEEDS,
            "sigmas": SIGMAS,
            "estimations": [vars(plan) | {"effort": vars(plan.effort)} for plan in ESTIMATIONS],
            "codings": [vars(plan) for plan in CODINGS],
        },
        "seconds_of_last_run": round(time.perf_counter() - began),
    }
    write_json(options.tables / "known_sources.json", origin)
    print(markdown(options.tables))
    fill_readme(BEGIN, END, markdown(options.tables), tables=options.tables)


def _complete(
    path: Path, jobs: Sequence[Job], measure: Callable[[Job], list[dict[str, object]]], description: str
) -> None:
    """Measure what has no row yet; every finished job is written at once."""
    frames = {path: pd.read_csv(path)} if path.exists() else {}
    refits = path.with_name("known_refits.csv")
    if description == "codecs" and refits.exists():
        frames[refits] = pd.read_csv(refits)
    done = {
        (row["source"], row["lmbda"], row.get("seed", 0))
        for row in (frames[path].to_dict("records") if path in frames else [])
    }
    missing = [job for job in jobs if job.key not in done]
    for rows in map_images(measure, missing, description=description):
        for file in (path, refits):
            mine = [
                {name: entry for name, entry in row.items() if name != "table"}
                for row in rows
                if (row.get("table") == "refits") == (file == refits)
            ]
            if mine:
                earlier = [frames[file]] if file in frames else []
                frames[file] = pd.concat([*earlier, pd.DataFrame(mine)], ignore_index=True)
                with replacing(file) as temporary:
                    frames[file].to_csv(temporary, index=False, lineterminator="\n")


def check(tables: Path) -> None:
    """Raise `RuntimeError` where the terms of a codec do not add up to its cost."""
    for row in pd.read_csv(tables / "known_sources.csv").to_dict("records"):
        parts = row["neg_log_gamma_nats"] + row["inference_gap_nats"]
        if abs(parts - row["measured_nats"]) > 1e-9 * abs(parts):
            raise RuntimeError(f"{row['source']}: the terms must add up to {row['measured_nats']}, got {parts}.")


def markdown(tables: Path) -> str:
    """Return the tables of the README."""
    rows = pd.read_csv(tables / "known_estimates.csv")
    lines = ["| F(lmbda), nats | lmbda | truth or bounds | method | side | estimates, three seeds |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for _, group in rows.groupby(["source", "lmbda", "method", "side"], sort=False):
        first, *_ = records = group.to_dict("records")
        known = interval(first["known_lower_nats"], first["known_upper_nats"])
        answers = [answer(row) for row in records]
        shown = answers[0] if len(set(answers)) == 1 else ", ".join(answers)
        lines.append(
            f"| {first['source']} | {first['lmbda']:.3g} | {known} | {first['method']} | {first['side']} | {shown} |"
        )
    columns = (
        "nats per sample",
        "measured",
        "irreducible",
        "modeling gap",
        "prior",
        "transform",
        "inference gap",
        "truth",
    )
    lines += ["", f"| {' | '.join(columns)} |", "| --- " * len(columns) + "|"]
    for row in pd.read_csv(tables / "known_sources.csv").to_dict("records"):
        gaps = [interval(row[f"{term}_gap_lower_nats"], row[f"{term}_gap_upper_nats"]) for term in
                ("modeling", "prior", "transform")]  # fmt: skip
        truth = row["inference_gap_truth_nats"]
        lines.append(
            f"| {row['source']}{', vacuous sandwich' if row['vacuous'] else ''} | {row['measured_nats']:.3f} "
            f"| {interval(row['irreducible_lower_nats'], row['irreducible_upper_nats'])} | {' | '.join(gaps)} "
            f"| {row['inference_gap_nats']:.3f} ± {row['inference_gap_stderr_nats']:.1g} "
            f"| {'' if math.isnan(truth) else f'{truth:.3f}'} |"
        )
    return "\n".join(lines)


def answer(row: dict[Any, Any]) -> str:
    """Return an estimate with its error, or that there is none."""
    if row["refused"]:
        return "refused"
    return f"{row['f_nats']:.4g} ± {row['stderr_nats']:.1g}" if row["stderr_nats"] else f"{row['f_nats']:.5g}"


def interval(lower: float, upper: float) -> str:
    """Return an interval, or a number where it is one."""
    return f"{lower:.3f}" if upper - lower < 5e-4 else f"{lower:.3f} .. {upper:.3f}".replace("inf", "?")


if __name__ == "__main__":
    sys.exit(main())
