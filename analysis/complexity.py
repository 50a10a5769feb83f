"""Multiply-accumulates per pixel and parameters of every recipe of the paper's size.

    python analysis/complexity.py

Writes `tables/complexity.csv`, as `python -m rdgap.complexity` does, and the block between the markers in the README.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from rdgap import _cli
from rdgap._files import write_text
from rdgap.complexity.__main__ import main as complexity
from rdgap.zoo import model_directory

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- complexity table: python analysis/complexity.py -->", "<!-- end of complexity table -->"
PARTS = ("analysis", "hyper_analysis", "synthesis", "hyper_synthesis", "context")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tables", type=Path, default=HERE / "tables", help="folder of the table")
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    path: Path = options.tables / "complexity.csv"
    names = sorted(found.stem for found in model_directory().glob("*.toml") if not found.stem.endswith("-lite"))
    if complexity([*names, "--csv", str(path)]):
        raise RuntimeError("the recipes could not be counted.")
    if options.tables == HERE / "tables":
        before, rest = README.read_text(encoding="utf-8").split(BEGIN)
        write_text(README, f"{before}{BEGIN}\n{markdown(pd.read_csv(path))}\n{END}{rest.split(END)[1]}")


def markdown(table: pd.DataFrame) -> str:
    """Return what the README shows."""
    lines = [
        "| thousand MAC per pixel | analysis | hyper analysis | synthesis | hyper synthesis | context "
        "| all to decode | million parameters |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for codec, rows in table.groupby("codec"):
        macs = dict(zip(rows["transform"], rows["macs_per_pixel"], strict=True))
        cells = [f"{macs[part] / 1e3:.1f}" if part in macs else "" for part in PARTS]
        decoding = sum(macs.get(part, 0.0) for part in PARTS[2:])
        lines.append(f"| {codec} | {' | '.join(cells)} | {decoding / 1e3:.1f} | {rows['parameters'].sum() / 1e6:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
