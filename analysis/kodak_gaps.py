"""Gaps of the shipped models on 64 x 64 crops of the Kodak images, and how far annealing is from the truth.

python analysis/kodak_gaps.py --images KODAK              # hours on two cores; the same command resumes
python analysis/kodak_gaps.py --images KODAK --smoke --tables FOLDER      # two images, short chains

Writes into analysis/tables:

- kodak_gaps.csv: every term of each crop, model and lmbda;
- kodak_gaps_means.csv, kodak_gaps_differences.csv: means of it, and paired differences of the inference gaps;
- kodak_gaps_bidirectional.csv: both sides of -log Gamma on crops simulated from the models themselves, for a few crops;
- kodak_gaps_doubled.csv: the gaps of those crops with twice the temperatures;
- kodak_gaps.json: settings and provenance;

and the block between the markers in the top-level README.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _experiment import check_smoke, fill_readme, forget_other_weights, parser, weights_of

from rdgap import _cli, _files, _jobs
from rdgap.gaps import report
from rdgap.gaps.ais import LEAPFROG_STEPS, TARGET_ACCEPTANCE
from rdgap.gaps.jobs import Job, Settings, measure, measure_both_sides
from rdgap.images import image_paths
from rdgap.schemas import BOTH_SIDES, GAPS
from rdgap.tables import read_table
from rdgap.zoo import weights_name

BEGIN, END = "<!-- gaps table: python analysis/kodak_gaps.py -->", "<!-- end of gaps table -->"
MODELS = ("two-layer-lite", "jpeg-like-lite", "mean-scale-lite")
BASELINE = "mean-scale-lite"
LMBDAS = (0.01, 0.0025, 0.04)
CROP, SEED = 64, 0
CHAINS, TEMPERATURES, FIT_STEPS = 8, 100, 300
CHECKED = 6  # crops of each codec whose -log Gamma is checked in two ways
KINDS = ("", "_doubled", "_bidirectional")  # of tables of one row per crop


def job_of(model: str, lmbda: float, paths: tuple[Path, ...], *, temperatures: int, fit_steps: int) -> Job:
    """What to measure of one model at one lmbda; one image at a time, so that no measurement depends on another."""
    settings = Settings(
        crop=CROP,
        seed=SEED,
        chains=CHAINS,
        temperatures=temperatures,
        leapfrog_steps=LEAPFROG_STEPS,
        target_acceptance=TARGET_ACCEPTANCE,
        fit_steps=fit_steps,
        samples=64,
        batch=16,
        bf16=not _cli.is_slow_in_bf16(torch.device("cpu")),  # of slopes alone; each row says what it was
    )
    return Job(model=model, lmbda=lmbda, paths=paths, settings=settings, device="cpu")


def gaps_of(job: Job) -> pd.DataFrame:
    """Decompose the cost of one crop, as `python -m rdgap.gaps` does, on one core."""
    torch.set_num_threads(1)
    return measure(job)


def both_sides_of(job: Job) -> pd.DataFrame:
    """Bound `-log Gamma` of a crop simulated from the model on both sides, on one core."""
    torch.set_num_threads(1)
    return measure_both_sides(job)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = parser(__doc__, smoke="two images, short chains")
    arguments.add_argument("--images", type=Path, required=True, help="folder of the Kodak images")
    arguments.add_argument("--jobs", type=_cli.positive_int, default=os.cpu_count() or 1, help="processes")
    return _cli.run(_tables, arguments, argv)


def _tables(options: argparse.Namespace) -> None:
    check_smoke(options)
    paths = image_paths([options.images])
    out: Path = options.tables
    models, lmbdas, temperatures, fit_steps = MODELS, LMBDAS, TEMPERATURES, FIT_STEPS
    if options.smoke:
        paths, models, lmbdas, temperatures, fit_steps = paths[:2], MODELS[:1], LMBDAS[:1], 3, 10

    forget_other_weights(out / "kodak_gaps.json", [out / f"kodak_gaps{kind}.csv" for kind in KINDS])
    _write_provenance(out, list(product(models, lmbdas)), temperatures, fit_steps)
    with ProcessPoolExecutor(options.jobs) as executor:
        for kind, work, schema, images, temperatures_of_kind in (
            ("_bidirectional", both_sides_of, BOTH_SIDES, paths[:CHECKED], temperatures),
            ("", gaps_of, GAPS, paths, temperatures),
            ("_doubled", gaps_of, GAPS, paths[:CHECKED], 2 * temperatures),
        ):
            table = out / f"kodak_gaps{kind}.csv"
            _jobs.complete(
                _jobs.kept_rows(table, {}, schema),
                models,
                lmbdas,
                [(path,) for path in images],
                partial(job_of, temperatures=temperatures_of_kind, fit_steps=fit_steps),
                work,
                executor=executor,
                schema=schema,
                file=table,
                description=table.stem,
            )
    _summarise(out)
    fill_readme(BEGIN, END, markdown(out), tables=out)
    print(f"tables in {out}")


def _write_provenance(out: Path, codecs: Sequence[tuple[str, float]], temperatures: int, fit_steps: int) -> None:
    """Say what rows are measured with, before they are: rows of other weights have gone by then."""
    provenance = {
        "command": "python analysis/kodak_gaps.py --images KODAK",
        "settings": {"crop": CROP, "seed": SEED, "chains": CHAINS, "temperatures": temperatures}
        | {"fit_steps": fit_steps, "energies": "float32, summed in float64"}
        | {"base": "half the fitted Gaussian, half the widened one"},
        "weights_sha256": {weights_name(*codec): _files.sha256(weights_of(*codec)) for codec in codecs},
        "torch": torch.__version__,
    }
    _files.write_json(out / "kodak_gaps.json", provenance)


def _summarise(out: Path) -> None:
    """Write means and differences of what is in the table."""
    gaps = read_table(out / "kodak_gaps.csv", GAPS)
    for name, frame in (("means", report.means(gaps)), ("differences", report.differences(gaps))):
        with _files.replacing(out / f"kodak_gaps_{name}.csv") as temporary:
            frame.to_csv(temporary, index=False, lineterminator="\n")


def markdown(tables: Path) -> str:
    """Return what the README shows: means of the terms, paired differences, and how far annealing is from the truth."""
    means = pd.read_csv(tables / "kodak_gaps_means.csv").sort_values(["lmbda", "model"])
    lines = [
        "| mean, bpp | lmbda | crops | encoder q | -log Gamma | approximation | amortization | inference gap |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in means.to_dict("records"):
        terms = ("encoder", "neg_log_gamma_upper", "approximation_gap", "amortization_gap_lower")
        cells = [f"{row[f'{term}_bpp']:.3f}" for term in terms]
        gap = f"{row['inference_gap_lower_bpp']:.3f} ± {row['inference_gap_lower_image_stderr_bpp']:.3f}"
        lines.append(f"| {row['model']} | {row['lmbda']:g} | {row['images']} | {' | '.join(cells)} | {gap} |")
    pairs = pd.read_csv(tables / "kodak_gaps_differences.csv").sort_values(["lmbda", "model", "other"])
    lines += ["", "| inference gaps, bpp | lmbda | difference | 95 % interval |", "| --- | --- | --- | --- |"]
    for row in pairs.to_dict("records"):
        bounds = (row["lower_95_bpp"], row["upper_95_bpp"])
        other, difference = row["other"], row["difference_bpp"]
        if other == BASELINE:  # the baseline comes first
            other, difference, bounds = row["model"], -difference, (-bounds[1], -bounds[0])
        elif row["model"] != BASELINE:
            continue
        interval = ", ".join(f"{bound:+.4f}" for bound in bounds)
        lines.append(f"| {BASELINE} less {other} | {row['lmbda']:g} | {difference:+.4f} | [{interval}] |")
    keys = ["model", "lmbda", "image"]
    single, doubled, sides = (pd.read_csv(tables / f"kodak_gaps{kind}.csv") for kind in KINDS)
    both = single.merge(doubled, on=keys, suffixes=("", "_doubled"))
    moved = both["neg_log_gamma_upper_bpp_doubled"] - both["neg_log_gamma_upper_bpp"]
    lines += ["", "| -log Gamma, bpp: mean, largest | lmbda | twice the temperatures | upper less lower bound |"]
    lines += ["| --- | --- | --- | --- |"]
    codecs = sorted({pair for frame in (both, sides) for pair in zip(frame["lmbda"], frame["model"], strict=True)})
    for lmbda, model in codecs:
        of_codec, simulated = ((rows["lmbda"] == lmbda) & (rows["model"] == model) for rows in (both, sides))
        cells = (
            _mean_and_largest(moved.loc[of_codec], "+.4f", "crop"),
            _mean_and_largest(sides.loc[simulated, "bidirectional_gap_bpp"], ".4f", "simulated crop"),
        )
        lines.append(f"| {model} | {lmbda:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean_and_largest(column: pd.Series, digits: str, what: str) -> str:
    values = column.to_numpy(np.float64)
    if not len(values):
        return ""
    largest = values[abs(values).argmax()]
    return f"{values.mean():{digits}}, {largest:{digits}} ({len(values)} {what}{'s' if len(values) > 1 else ''})"


if __name__ == "__main__":
    sys.exit(main())
