"""Command: `F(lmbda)` and the R-D function of a source, by closed forms, estimators and bounds of either side."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import fields, replace

import torch

from .. import _cli, _files, _plots
from ..parallel import map_images
from ..schemas import RATE_DISTORTION
from ..tables import write_table
from .estimate import Estimate
from .methods import METHODS, Effort, check_methods, estimates, suitable
from .named import NAMES, named_source
from .report import draw, format_table

_LMBDAS = [1.0]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _cli.parser(
        "rate_distortion",
        "Estimate F(lmbda) = inf I(X;Y) + lmbda E rho(X,Y) of a source, and with it the R-D function.\n\n"
        f"Sources: {', '.join(NAMES)} (N: dimensions or symbols);\n"
        "a folder of images (patches, luma 0..255); a .csv file of a discrete source (a row per symbol: its\n"
        "probability, then the distortion of each reproduction).\n\n"
        "Methods: known (closed form or bounds), ba (Blahut-Arimoto; on a grid for one or two coordinates),\n"
        "upper bounds mixture (variational), wgd (particles), nerd and ntc (a codec, trained), lower bound dual.\n"
        "Rates are in nats, lmbda in nats per unit of the source's distortion.",
        "python -m rdgap.rate_distortion banana --lmbda 0.3 1 3 --csv banana.csv --plot banana.png",
    )
    add = arguments.add_argument
    add("source", metavar="SOURCE", help="name of a source, folder of images, or .csv file")
    add("--lmbda", nargs="+", type=_cli.positive_float, default=_LMBDAS, help="weights of the distortion (default: 1)")
    add("--method", nargs="+", choices=METHODS, help="default: those that suit the source")
    add("--patch", type=_cli.positive_int, default=8, help="side of the patches of a folder (default: 8)")
    for name, what in (
        ("samples", "fresh samples for the cost of an upper bound"),
        ("components", "of the mixture"),
        ("particles", "of wgd"),
        ("codewords", "m of nerd"),
    ):
        default = getattr(Effort(), name)
        add(f"--{name}", type=_cli.positive_int, default=default, help=f"{what} (default: {default})")
    _cli.add_seed(arguments)
    _cli.add_output(arguments, "--csv", "a table, one row per lmbda and method")
    _cli.add_output(arguments, "--json", "the same with the refusals")
    _cli.add_plot(arguments, "F over lmbda and the R-D function, shaded between the bounds")
    return _cli.run(_body, arguments, argv)


def _body(options: argparse.Namespace) -> None:
    if len(set(options.lmbda)) < len(options.lmbda):
        raise ValueError(f"--lmbda must be different numbers, got {' '.join(map(str, options.lmbda))}.")
    source = named_source(options.source, patch=options.patch)
    methods = options.method or suitable(source)
    check_methods(source, methods)
    sizes = {field.name for field in fields(Effort)} & set(vars(options))
    effort = replace(Effort(), **{name: getattr(options, name) for name in sizes})
    generator = torch.Generator().manual_seed(options.seed)

    found: list[Estimate] = []
    refusals: list[str] = []
    lmbdas = sorted(options.lmbda)
    for at_lmbda, refused in map_images(
        lambda lmbda: estimates(source, lmbda, methods, generator=generator, effort=effort),
        lmbdas,
        description=source.name,
    ):
        found += at_lmbda
        refusals += refused
    if not found:
        raise RuntimeError("; ".join(refusals))
    entropy = f", entropy {source.entropy_nats:.5g} nats" if math.isfinite(source.entropy_nats) else ""
    print(f"{source.name}{entropy}")
    print(format_table(found, source.distortion_unit))
    for refusal in refusals:
        print(f"refused: {refusal}")
    rows = [each.to_row() | {"source": source.name, "seed": options.seed} for each in found]
    if options.csv:
        import pandas as pd

        write_table(options.csv, pd.DataFrame(rows), RATE_DISTORTION)
    if options.json:
        cleaned = [{name: None if _is_nan(entry) else entry for name, entry in row.items()} for row in rows]
        _files.write_json(
            options.json, {"distortion_unit": source.distortion_unit, "estimates": cleaned, "refused": refusals}
        )
    if options.plot:
        _plots.save(draw(found, source.name, source.distortion_unit), options.plot)


def _is_nan(entry: object) -> bool:
    return isinstance(entry, float) and math.isnan(entry)


if __name__ == "__main__":
    sys.exit(main())
