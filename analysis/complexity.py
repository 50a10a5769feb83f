"""Multiply-accumulates per pixel and parameters of every recipe.

    python analysis/complexity.py

Writes `tables/complexity.csv`, as `python -m rdgap.complexity` does, and of the paper's sizes the block between the
markers in the README.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from _experiment import check_smoke, fill_readme, parser

from rdgap import _cli
from rdgap.complexity.__main__ import main as complexity
from rdgap.zoo import model_directory

BEGIN, END = "<!-- complexity table: python analysis/complexity.py -->", "<!-- end of complexity table -->"
PARTS = ("analysis", "hyper_analysis", "synthesis", "hyper_synthesis", "context")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment."""
    arguments = parser(__doc__, smoke="two recipes")
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    check_smoke(options)
    path: Path = options.tables / "complexity.csv"
    names = sorted(found.stem for found in model_directory().glob("*.toml"))
    if complexity([*names[: 2 if options.smoke else None], "--csv", str(path)]):
        raise RuntimeError("the recipes could not be counted.")
    fill_readme(BEGIN, END, markdown(pd.read_csv(path)), tables=options.tables)


def markdown(table: pd.DataFrame) -> str:
    """Return what the README shows: the paper's sizes."""
    lines = [
        "| thousand MAC per pixel | analysis | hyper analysis | synthesis | hyper synthesis | context "
        "| all to decode | million parameters |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for codec, rows in table.loc[~table["codec"].str.endswith("-lite"), :].groupby("codec"):
        macs = dict(zip(rows["transform"], rows["macs_per_pixel"], strict=True))
        cells = [f"{macs[part] / 1e3:.1f}" if part in macs else "" for part in PARTS]
        decoding = sum(macs.get(part, 0.0) for part in PARTS[2:])
        lines.append(f"| {codec} | {' | '.join(cells)} | {decoding / 1e3:.1f} | {rows['parameters'].sum() / 1e6:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
