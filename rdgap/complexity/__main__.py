"""Multiply-accumulates per pixel, parameters and wall time of codecs: `python -m rdgap.complexity`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.nn.utils import convert_conv2d_weight_memory_format
from tqdm import tqdm

from .. import _cli
from .._files import replacing, write_json
from ..ntc import NTCCodec
from ..recipes import Recipe, build_codec, read_recipe
from ..zoo import is_own, read_codec, shipped_recipe, trained_codec
from .counting import COUNTED, Complexity, count
from .timing import TIMED, time_transforms

_WIDTH, _HEIGHT = 768, 512  # Kodak's


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = _cli.parser(
        "complexity",
        "Count the multiply-accumulates per pixel and the parameters of each transform of codecs, and time them.\n\n"
        f"{COUNTED}",
        "python -m rdgap.complexity two-layer jpeg-like mean-scale --csv complexity.csv",
    )
    arguments.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="name of a shipped recipe, .toml recipe, .safetensors file, or package.module:callable that returns a "
        "codec of rdgap.ntc",
    )
    arguments.add_argument(
        "--time",
        type=_cli.positive_int,
        nargs="?",
        const=5,
        metavar="RUNS",
        help="also time each transform on an image of 768 x 512 pixels, the median of RUNS (default: 5) runs",
    )
    _cli.add_device(arguments)
    _cli.add_seed(arguments)
    _cli.add_output(arguments, "--csv", "one row per codec and transform")
    _cli.add_output(arguments, "--json", "the same, with what is counted")
    return _cli.run(_count_models, arguments, argv)


def _count_models(options: argparse.Namespace) -> None:
    measured = [_Measured(count(model)) for model in map(_read, options.models)]
    timed = ""
    if options.time:
        device = _cli.device(options.device)
        for model, each in zip(tqdm(options.models, desc="timing", unit="codec", disable=None), measured, strict=True):
            codec = _build(_read(model), options.seed).to(device)
            generator = torch.Generator(device).manual_seed(options.seed)
            each.seconds = time_transforms(codec, height=_HEIGHT, width=_WIDTH, runs=options.time, generator=generator)
        where = f"a CPU with {torch.get_num_threads()} threads" if device.type == "cpu" else str(device)
        timed = TIMED.format(runs=options.time, width=_WIDTH, height=_HEIGHT, where=where)
    _print_table(measured, timed)
    if options.csv:
        _write_csv(options.csv, measured)
    if options.json:
        codecs = [
            asdict(each.complexity) | {"parameters": each.complexity.parameters, "seconds": each.seconds}
            for each in measured
        ]
        said = {"counted": " ".join(COUNTED.split()), "timed": " ".join(timed.split())}
        write_json(options.json, said | {"codecs": codecs})


@dataclass
class _Measured:
    """Complexity of a codec, and seconds of each of its transforms, none where they were not timed."""

    complexity: Complexity
    seconds: dict[str, float] = field(default_factory=dict)


def _read(model: str) -> Recipe | NTCCodec:
    if is_own(model):
        return trained_codec(model)
    if model.endswith(".safetensors"):
        return read_codec(Path(model))
    return read_recipe(Path(model)) if model.endswith(".toml") else shipped_recipe(model)


def _build(codec: Recipe | NTCCodec, seed: int) -> NTCCodec:
    """Build the codec of a recipe with random weights, which run as fast as others."""
    if isinstance(codec, NTCCodec):
        return codec
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = build_codec(codec)
    return convert_conv2d_weight_memory_format(built, torch.channels_last).eval()


def _print_table(measured: Sequence[_Measured], timed: str) -> None:
    print(f"{COUNTED}\n{timed}{chr(10) if timed else ''}")
    width = max(5, *(len(each.complexity.name) for each in measured))
    milliseconds = f"  {'ms':>8}" if timed else ""
    print(f"{'codec':{width}}  {'transform':15}  {'MAC/px':>9}  {'GDN MAC/px':>10}  {'parameters':>10}{milliseconds}")
    for each in measured:
        counted = each.complexity
        for name, part in counted.transforms.items():
            milliseconds = f"  {1e3 * each.seconds[name]:8,.1f}" if timed else ""
            print(
                f"{counted.name:{width}}  {name.replace('_', ' '):15}  {part.macs_per_pixel:9,.0f}  "
                f"{part.gdn_macs_per_pixel:10,.0f}  {part.parameters:10,}{milliseconds}"
            )
        print(f"{counted.name:{width}}  {'all to decode':15}  {counted.decoding_macs_per_pixel:9,.0f}")
        print(f"{counted.name:{width}}  {'all parameters':15}  {'':9}  {'':10}  {counted.parameters:10,}")


def _write_csv(path: Path, measured: Sequence[_Measured]) -> None:
    import pandas as pd

    tables = []
    for each in measured:
        table = each.complexity.to_frame()
        seconds = [each.seconds.get(name) for name in table["transform"]]
        tables.append(table.assign(seconds=seconds) if each.seconds else table)
    with replacing(path) as temporary:
        pd.concat(tables).to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    sys.exit(main())
