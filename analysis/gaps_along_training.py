"""Which gap does training close, and when? The decomposition of snapshots of one training run.

python analysis/gaps_along_training.py --images KODAK --train PHOTOS      # an hour on a core; the same command resumes
python analysis/gaps_along_training.py --images KODAK --snapshots A.safetensors B.safetensors ... --tables FOLDER
python analysis/gaps_along_training.py                                    # only sums up the committed table again

Trains `two-layer-lite` at lmbda 0.01 for 1000 steps, keeps the averaged weights on the way (step 0: the principal
components that training starts from), and decomposes each on every fourth crop of `analysis/kodak_gaps.py`, as that
does the shipped models, with half as many temperatures. `--snapshots` takes those of a run of yours, as
`python -m rdgap.training ... --snapshots` keeps them. Writes `tables/gaps_along_training.csv`, one row per snapshot and
crop, with provenance beside it, `tables/gaps_along_training_means.csv`, and the block between the markers in the
top-level README.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch
from _experiment import ROOT, check_smoke, fill_readme, parser, provenance
from kodak_gaps import FIT_STEPS, gaps_of, job_of
from safetensors import safe_open

from rdgap import _cli
from rdgap._files import replacing, sha256, write_json
from rdgap.gaps.report import means
from rdgap.images import image_paths
from rdgap.parallel import map_images
from rdgap.schemas import GAPS_ALONG_TRAINING
from rdgap.tables import read_table, write_table
from rdgap.training import train
from rdgap.training.data import split
from rdgap.training.loop import snapshot_path
from rdgap.zoo import read_codec, shipped_recipe

BEGIN = "<!-- gaps along training: python analysis/gaps_along_training.py -->"
END = "<!-- end of gaps along training -->"
MODEL, LMBDA, STEPS = "two-layer-lite", 0.01, (0, 60, 180, 500, 1000)
TEMPERATURES = 50
STRIDE = 4  # kodim01, 05, 09, 13, 17, 21
RUN = ROOT / "out" / "gaps_along_training"
TERMS = ("neg_log_gamma_upper", "approximation_gap", "amortization_gap_lower")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment."""
    arguments = parser(__doc__, smoke="two steps, one crop, short chains")
    arguments.add_argument("--images", type=Path, help="folder of the Kodak images; without it nothing is measured")
    source = arguments.add_mutually_exclusive_group()
    source.add_argument("--train", type=Path, help="folder of training photographs")
    source.add_argument("--snapshots", type=Path, nargs="+", help="weights of one run instead of training")
    arguments.add_argument("--validation", type=Path, help="held-out photographs (default: every 50th of `--train`)")
    arguments.add_argument("--out", type=Path, default=RUN, help="folder of the training (default: out/)")
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    check_smoke(options)
    table = options.tables / "gaps_along_training.csv"
    if options.images:
        paths = image_paths([options.images])
        paths = paths[:1] if options.smoke else paths[::STRIDE]
        if options.snapshots or not _is_complete(table, paths):
            _measure(table, _snapshots(options), paths, smoke=options.smoke)
    summary = summarize(read_table(table, GAPS_ALONG_TRAINING))
    with replacing(options.tables / "gaps_along_training_means.csv") as temporary:
        summary.to_csv(temporary, index=False, lineterminator="\n")
    print(markdown(summary))
    fill_readme(BEGIN, END, markdown(summary), tables=options.tables)


def _is_complete(table: Path, paths: Sequence[Path]) -> bool:
    """Whether every step has every crop, so that there is nothing to train for."""
    if not table.exists():
        return False
    rows = read_table(table, GAPS_ALONG_TRAINING)
    done = set(zip(rows["step"], rows["image"], strict=True))
    return all((step, path.stem) in done for step in STEPS for path in paths)


def _snapshots(options: argparse.Namespace) -> dict[int, Path]:
    """Return the snapshots by step, trained where they are not there yet.

    Raises:
        ValueError: If there is nothing to train on, or the snapshots are not of one run.
    """
    if options.snapshots:
        return _of_one_run(options.snapshots)
    if not options.train:
        raise ValueError("`--train PHOTOS` or `--snapshots FILE ...` must say where the snapshots come from, got none.")
    recipe, steps = shipped_recipe(MODEL), STEPS
    if options.smoke:
        small = recipe.training.model_copy(update={"crop_size": 64, "batch_size": 1})
        recipe, steps = recipe.model_copy(update={"training": small}), (0, 2)
    images, held_out = split([options.train], [options.validation] if options.validation else None)
    trained = train(
        recipe,
        images=images,
        validation_images=held_out,
        lmbda=LMBDA,
        out=options.out,
        steps=steps[-1],
        snapshots=steps,
        bf16=not _cli.is_slow_in_bf16(torch.device("cpu")),
        validate_every=500,
    )
    return _of_one_run([snapshot_path(trained.weights, step) for step in steps])


def _of_one_run(paths: Sequence[Path]) -> dict[int, Path]:
    """Return the snapshots by step, rising."""
    found: dict[int, Path] = {}
    runs: set[tuple[str, ...]] = set()
    for path in paths:
        read_codec(path)  # what is no codec is found out now
        with safe_open(path, "pt") as file:
            metadata: Mapping[str, str] = file.metadata()
        runs.add(tuple(metadata.get(name, "") for name in ("recipe", "lmbda", "seed", "steps", "data")))
        step = int(metadata.get("step", -1))
        if step < 0 or step in found:
            raise ValueError(f"each snapshot must be of a step of its own, got {step} in {path}.")
        found[step] = path
    if len(runs) > 1:
        raise ValueError(f"the snapshots must be of one run, got {len(runs)} runs.")
    return dict(sorted(found.items()))


def _measure(table: Path, snapshots: Mapping[int, Path], paths: Sequence[Path], *, smoke: bool) -> None:
    """Decompose what has no row yet; every finished row is kept at once.

    Raises:
        ValueError: If the table holds other snapshots.
    """
    hashes = {str(step): sha256(path) for step, path in snapshots.items()}
    record = table.with_suffix(".json")
    if table.exists():
        before = json.loads(record.read_text(encoding="utf-8"))["snapshots_sha256"]
        if any(before.get(step, digest) != digest for step, digest in hashes.items()):
            raise ValueError(f"{table} holds other snapshots: remove it, or write to another `--tables FOLDER`.")
        hashes = before | hashes
    codec = read_codec(next(iter(snapshots.values())))
    settings = {"temperatures": 3, "fit_steps": 5} if smoke else {"temperatures": TEMPERATURES, "fit_steps": FIT_STEPS}
    command = "python analysis/gaps_along_training.py --images KODAK --train PHOTOS"
    known = {"model": codec.name, "lmbda": codec.lmbda, "snapshots_sha256": hashes, "settings": settings}
    write_json(record, provenance(command, images=paths) | known)
    frames = [read_table(table, GAPS_ALONG_TRAINING)] if table.exists() else []
    done = {key for frame in frames for key in zip(frame["step"], frame["image"], strict=True)}
    jobs = {
        job_of(str(snapshot), codec.lmbda, (path,), **settings): step
        for path in paths  # stopped early, it has measured all steps on the same crops
        for step, snapshot in snapshots.items()
        if (step, path.stem) not in done
    }
    for job, frame in zip(jobs, map_images(gaps_of, jobs, description="decomposing"), strict=True):
        frames.append(frame.assign(model=codec.name, step=jobs[job]))
        write_table(table, pd.concat(frames), GAPS_ALONG_TRAINING)


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per step: means of each cost and gap, with their errors, over the crops that all steps have."""
    steps = table["step"].nunique()
    table = table.loc[table.groupby("image")["step"].transform("nunique") == steps, :]
    if table.empty:
        raise ValueError("no crop has been decomposed at every step yet; the same command goes on.")
    return pd.concat([means(rows).assign(step=step) for step, rows in table.groupby("step")], ignore_index=True)


def markdown(summary: pd.DataFrame) -> str:
    """Return the table of the README: the terms at each step, and each one's share of what training has saved."""
    lines = [
        "| mean, bpp | crops | encoder q | -log Gamma | approximation | amortization | inference gap |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = summary.sort_values("step").to_dict("records")
    for row in rows:
        cells = [f"{row[f'{term}_bpp']:.3f}" for term in ("encoder", *TERMS)]
        gap = f"{row['inference_gap_lower_bpp']:.3f}"
        if row["images"] > 1:
            gap += f" ± {row['inference_gap_lower_image_stderr_bpp']:.3f}"
        lines.append(f"| step {row['step']} | {row['images']} | {' | '.join(cells)} | {gap} |")
    first, last = rows[0], rows[-1]
    saved = {term: first[f"{term}_bpp"] - last[f"{term}_bpp"] for term in ("encoder", *TERMS)}
    shares = [f"{100 * saved[term] / saved['encoder']:.0f} %" for term in TERMS]
    inference = 100 * (1 - saved["neg_log_gamma_upper"] / saved["encoder"])
    lines.append(f"| share of what {last['step']} steps save |  | 100 % | {' | '.join(shares)} | {inference:.0f} % |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
