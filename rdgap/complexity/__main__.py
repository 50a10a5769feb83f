"""Multiply-accumulates per pixel and parameters of codecs: `python -m rdgap.complexity`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from .. import _cli
from .._files import replacing, write_json
from ..recipes import read_recipe
from ..zoo import read_codec, shipped_recipe
from .counting import COUNTED, Complexity, count


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = _cli.parser(
        "complexity",
        f"Count the multiply-accumulates per pixel and the parameters of each transform of codecs.\n\n{COUNTED}",
        "python -m rdgap.complexity two-layer jpeg-like mean-scale --csv complexity.csv",
    )
    arguments.add_argument(
        "models", nargs="+", metavar="MODEL", help="name of a shipped recipe, .toml recipe, or .safetensors file"
    )
    _cli.add_output(arguments, "--csv", "one row per codec and transform")
    _cli.add_output(arguments, "--json", "the same, with what is counted")
    return _cli.run(_count_models, arguments, argv)


def _count_models(options: argparse.Namespace) -> None:
    counts = [_count(model) for model in options.models]
    _print_table(counts)
    if options.csv:
        _write_csv(options.csv, counts)
    if options.json:
        codecs = [asdict(each) | {"parameters": each.parameters} for each in counts]
        write_json(options.json, {"counted": " ".join(COUNTED.split()), "codecs": codecs})


def _count(model: str) -> Complexity:
    if model.endswith(".safetensors"):
        return count(read_codec(Path(model)))
    return count(read_recipe(Path(model)) if model.endswith(".toml") else shipped_recipe(model))


def _print_table(counts: Sequence[Complexity]) -> None:
    print(f"{COUNTED}\n")
    width = max(5, *(len(each.name) for each in counts))
    print(f"{'codec':{width}}  {'transform':15}  {'MAC/px':>9}  {'GDN MAC/px':>10}  {'parameters':>10}")
    for each in counts:
        for name, part in each.transforms.items():
            print(
                f"{each.name:{width}}  {name.replace('_', ' '):15}  {part.macs_per_pixel:9,.0f}  "
                f"{part.gdn_macs_per_pixel:10,.0f}  {part.parameters:10,}"
            )
        print(f"{each.name:{width}}  {'all to decode':15}  {each.decoding_macs_per_pixel:9,.0f}")
        print(f"{each.name:{width}}  {'all parameters':15}  {'':9}  {'':10}  {each.parameters:10,}")


def _write_csv(path: Path, counts: Sequence[Complexity]) -> None:
    import pandas as pd

    with replacing(path) as temporary:
        table = pd.concat([each.to_frame() for each in counts])
        table.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    sys.exit(main())
