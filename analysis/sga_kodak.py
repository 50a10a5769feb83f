"""What stochastic Gumbel annealing saves with every shipped model on six Kodak images.

python analysis/sga_kodak.py --images KODAK      # about an hour on one core; the same command resumes
python analysis/sga_kodak.py                     # only sums up the committed table again

Each image is the 256 x 256 square in its middle, searched for 500 steps, slopes in bfloat16, costs in float32. Writes
`tables/sga_kodak.csv` with provenance beside it, and the block between the markers in the top-level README. Models that
the zoo has gained since are added; rows of weights that have changed are measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from _experiment import check_smoke, every_model, fill_readme, forget_other_weights, parser, provenance, weights_of

from rdgap import _cli, _jobs
from rdgap._files import sha256, write_json
from rdgap.encoding import Encoder
from rdgap.encoding.__main__ import means
from rdgap.encoding.jobs import Job, measure, settings_of
from rdgap.images import image_paths
from rdgap.schemas import ENCODED
from rdgap.tables import read_table
from rdgap.zoo import weights_name

BEGIN, END = "<!-- sga table: python analysis/sga_kodak.py -->", "<!-- end of sga table -->"
STRIDE, CROP, STEPS = 4, 256, 500  # kodim01, 05, 09, 13, 17, 21


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment."""
    arguments = parser(__doc__, smoke="two images, one model, three steps")
    arguments.add_argument("--images", type=Path, help="folder of the 24 Kodak images; without it nothing is measured")
    _cli.add_device(arguments)
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    check_smoke(options)
    table = options.tables / "sga_kodak.csv"
    if options.images:
        _measure(table, options)
    summary = means(read_table(table, ENCODED))
    print(markdown(summary))
    fill_readme(BEGIN, END, markdown(summary), tables=options.tables)


def _measure(table: Path, options: argparse.Namespace) -> None:
    forget_other_weights(table.with_suffix(".json"), [table])
    paths = image_paths([options.images])
    paths = paths[:2] if options.smoke else paths[::STRIDE]
    crop = 32 if options.smoke else CROP
    encoder = Encoder(method="sga", steps=3 if options.smoke else STEPS, bf16=True)

    def job_of(model: str, lmbda: float, paths: tuple[Path, ...]) -> Job:
        return Job(model=model, lmbda=lmbda, paths=paths, encoder=encoder, crop=crop, device=options.device)

    pairs = every_model()
    pairs.sort(key=lambda pair: abs(math.log(pair[1] / 0.01)))  # stopped early, it has measured every model
    for model, lmbda in pairs[: 1 if options.smoke else None]:
        _jobs.complete(
            _jobs.kept_rows(table, settings_of(encoder) | {"crop": crop}, ENCODED),
            [model],
            [lmbda],
            [tuple(paths)],
            job_of,
            measure,
            rows_of=lambda encoded: encoded.table,
            executor=None,
            schema=ENCODED,
            file=table,
            description=f"{model} {lmbda:g}",
        )
        _write_provenance(table, model, lmbda, paths)


def _write_provenance(table: Path, model: str, lmbda: float, paths: Sequence[Path]) -> None:
    path = table.with_suffix(".json")
    known = json.loads(path.read_text(encoding="utf-8"))["weights_sha256"] if path.exists() else {}
    hashes = dict(sorted({**known, weights_name(model, lmbda): sha256(weights_of(model, lmbda))}.items()))
    origin = provenance("python analysis/sga_kodak.py --images KODAK", images=paths)
    write_json(path, origin | {"weights_sha256": hashes})


def markdown(summary: pd.DataFrame) -> str:
    """Return the table of the README."""
    lines = ["| mean over six crops | lmbda | L before | L after | saving | least saving |", "| --- |" + " --- |" * 5]
    lines += [
        f"| {row['model']} | {row['lmbda']:g} | {row['encoder_lagrangian_bpp']:.3f} | {row['lagrangian_bpp']:.3f} | "
        f"{row['saving_percent']:.1f} % | {row['least_saving_percent']:.1f} % |"
        for row in summary.to_dict("records")
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
