"""Command: the gaps between a codec's encoder and the ideal channel, image by image."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path

from .. import _cli, _files, _jobs, _plots
from ..model import Codec, GenerativeCodec
from ..schemas import BOTH_SIDES, GAPS, ROUNDED
from ..zoo import named_codec
from .ais import LEAPFROG_STEPS, TARGET_ACCEPTANCE
from .jobs import Job, Settings, groups, measure, measure_both_sides, measure_rounded
from .report import differences, draw, format_both_sides, format_report, format_rounded, means


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _cli.parser(
        "gaps",
        "Split the cost of each image, bpp + lmbda * mse, into the cost of the ideal channel (-log Gamma) and the\n"
        "amortization and approximation gap of the encoder; together they are the inference gap. Several models are\n"
        "compared image by image. With --csv every finished row is kept, and the same command goes on from there.",
        "python -m rdgap.gaps photo.png --model two-layer-lite --lmbda 0.01 --crop 64 --csv gaps.csv --plot gaps.png",
    )
    _jobs.add_arguments(arguments)
    add = arguments.add_argument
    add(
        "--crop",
        type=_cli.positive_int,
        default=0,
        metavar="SIZE",
        help="take a random square of each image (default: all of it)",
    )
    add("--chains", type=_cli.at_least_two, default=8, help="annealed chains per image (default: 8)")
    add("--temperatures", type=_cli.at_least_two, default=100, help="annealing steps (default: 100)")
    add(
        "--leapfrog-steps",
        type=_cli.positive_int,
        default=LEAPFROG_STEPS,
        help=f"of each HMC move (default: {LEAPFROG_STEPS})",
    )
    add(
        "--target-acceptance",
        type=_share,
        default=TARGET_ACCEPTANCE,
        help=f"that HMC's step sizes are tuned for (default: {TARGET_ACCEPTANCE})",
    )
    add("--fit-steps", type=_cli.positive_int, default=300, help="steps of each fit (default: 300)")
    add("--samples", type=_cli.at_least_two, default=64, help="draws for the cost of a q (default: 64)")
    add(
        "--batch",
        type=_cli.positive_int,
        default=16,
        help="latents decoded at a time, of images of equal size together; bounds memory (default: 16)",
    )
    add("--bf16", action="store_true", help="follow slopes in bfloat16; energies and bounds stay in full precision")
    _cli.add_seed(arguments)
    _cli.add_device(arguments)
    _cli.add_cluster(arguments)
    _cli.add_output(arguments, "--csv", "a table, one row per image; rows of the same settings in it are kept")
    _cli.add_output(
        arguments, "--rounded", "the gaps of the hard-rounded codec, a model of its own, as a second table like --csv"
    )
    _cli.add_output(
        arguments,
        "--both-sides",
        "how far -log Gamma may be off with these settings: bounds from both sides of images drawn from the codecs "
        "themselves, as many and of the size of the given ones, as a table like --csv",
    )
    _cli.add_output(arguments, "--json", "settings, images, means and differences")
    _cli.add_plot(arguments, "the costs as stacked bars: of each image, or means of several models or lmbdas")
    return _cli.run(_body, arguments, argv)


def _body(options: argparse.Namespace) -> None:
    settings = Settings(**{name: getattr(options, name) for name in Settings.__dataclass_fields__})
    paths = _jobs.checked_paths(options)
    codecs: dict[tuple[str, float], Codec] = {}  # for workers elsewhere
    for model, lmbda in product(options.model, options.lmbda):
        codec = named_codec(model, lmbda)
        if options.cluster:
            codecs[model, lmbda] = codec
        if options.both_sides and not isinstance(codec, GenerativeCodec):
            raise ValueError(f"`--both-sides` needs a codec with `sample_prior`, got {model}, which has none.")
    device = None if options.cluster else _cli.device(options.device)
    apart = {  # tables of models of their own, asked for by a file
        "rounded": (measure_rounded, ROUNDED, format_rounded),
        "both_sides": (measure_both_sides, BOTH_SIDES, format_both_sides),
    }
    files = {name: getattr(options, name) for name in apart}
    _jobs.check_distinct("output files", [file for file in (options.csv, *files.values()) if file])
    kept = _jobs.kept_rows(options.csv, settings.columns, GAPS)
    kept_apart = {
        name: _jobs.kept_rows(files[name], settings.columns, schema) for name, (_, schema, _) in apart.items()
    }

    together = list(groups(paths, settings))
    if device:
        _cli.note_slow_bf16(options.bf16, device)

    def job_of(model: str, lmbda: float, paths: tuple[Path, ...]) -> Job:
        codec = codecs.get((model, lmbda))
        return Job(model=model, lmbda=lmbda, paths=paths, settings=settings, device=options.device, codec=codec)

    records: dict[str, list[Mapping[str, object]]] = {name: [] for name in apart}
    with _cli.executor(options.cluster) as executor:
        complete = partial(_jobs.complete, executor=executor, description="gaps")
        wanted = (options.model, options.lmbda, together, job_of)
        table = complete(kept, *wanted, measure, schema=GAPS, file=options.csv)
        print(format_report(table))
        for name, (work, schema, formatted) in apart.items():
            if files[name]:
                measured = complete(kept_apart[name], *wanted, work, schema=schema, file=files[name])
                print(f"\n{formatted(measured)}")
                records[name] = _files.json_rows(measured)
    if options.json:
        content = {
            "settings": settings.columns,
            "images": _files.json_rows(table),
            "means": _files.json_rows(means(table)),
            "differences": _files.json_rows(differences(table)),
        } | records
        _files.write_json(options.json, content)
    if options.plot:
        _plots.save(draw(table), options.plot)


def _share(text: str) -> float:
    number = float(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"must lie between 0 and 1, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
