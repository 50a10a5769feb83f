"""`python -m benchmarks.codec IMAGE ...`: time of every stage of coding and decoding, and of the deep baseline's.

Both codecs run each stage in turn, several times; medians are quoted, and the median of the ratios of neighbouring
runs, at the number of threads that torch is set to. Codecs of the paper's size have random weights: their entropy
coding is easier than that of trained ones.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

from rdgap.codec import Coder, unpack
from rdgap.codec.entropy import SymbolReader, SymbolWriter
from rdgap.codec.tables import gaussian_tables, scale_index
from rdgap.images import read_image
from rdgap.ntc import MeanScaleHyperprior, NTCCodec
from rdgap.ntc.layers import Upsampling
from rdgap.recipes import build_codec
from rdgap.zoo import DEFAULT_LMBDA, load_codec, shipped_recipe

PAIRS = (("two-layer-lite", "mean-scale-lite"), ("two-layer", "mean-scale"))
REPEATS = 7

Stages = dict[str, Callable[[], object]]


def codec_named(name: str) -> NTCCodec:
    """Return a trained codec, or one of the paper's size with random weights."""
    if name.endswith("-lite"):
        return load_codec(name, DEFAULT_LMBDA)
    torch.manual_seed(0)
    codec = build_codec(shipped_recipe(name)).eval().requires_grad_(False)
    return convert_conv2d_weight_memory_format(codec, torch.channels_last)


def stages(codec: NTCCodec, image: Tensor) -> tuple[Stages, int]:
    """Return what codes an image, each stage of it, and the number of symbols of `y`."""
    coder = Coder(codec)
    exact, floating = coder.prior, codec.prior
    assert isinstance(exact, MeanScaleHyperprior)
    assert isinstance(floating, MeanScaleHyperprior)
    stream, y = coder.encode_with_latents(image)
    header, payload = unpack(stream)
    latents = codec.infer(image[None])
    offset = torch.from_numpy(coder.density.offset)[:, None, None]
    first = torch.round(latents[0].double() - offset) + offset
    mean, scale = exact.parameters_of(first)
    symbols = (y - mean).flatten().numpy().astype(np.int64)
    index = scale_index(scale.flatten()).numpy().astype(np.int64)

    def write() -> bytes:
        writer = SymbolWriter()
        writer.write(symbols, index, gaussian_tables())
        return writer.payload()

    written = write()
    assert np.array_equal(SymbolReader(written).read(index, gaussian_tables()), symbols)
    y_float = y.float().contiguous(memory_format=torch.channels_last)

    def plainly() -> Tensor:
        with mock.patch.object(Upsampling, "FEW", 0):
            return codec.synthesis(y_float)

    return {
        "encode": lambda: coder.encode(image),
        "  analyses": lambda: codec.infer(image[None]),
        "  hyper synthesis, exact": lambda: exact.parameters_of(first),
        "  entropy encoder": write,
        "decode": lambda: coder.decode(stream),
        "  latents": lambda: coder.read_latents(payload, header),
        "    hyper synthesis, exact": lambda: exact.parameters_of(first),
        "    entropy decoder": lambda: SymbolReader(written).read(index, gaussian_tables()),
        "  synthesis": lambda: coder.synthesis(y_float),
        "synthesis by torch's own layers": plainly,
        "hyper synthesis in floating point": lambda: floating.parameters_of(first.float()),
    }, len(symbols)


def milliseconds(runs: Sequence[Callable[[], object]]) -> list[tuple[float, ...]]:
    """Return the wall times of calls made in turn, several times after one to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        round_: list[float] = []
        for run in runs:
            began = time.perf_counter()
            run()
            round_.append(1e3 * (time.perf_counter() - began))
        times.append(tuple(round_))
    return times[1:]


@torch.inference_mode()
def compare(names: Sequence[str], image: Tensor) -> None:
    """Print the table of two codecs."""
    (first, num_symbols), (second, _) = (stages(codec_named(name), image) for name in names)
    print(f"{'milliseconds':34}" + "".join(f"{name:>18}" for name in names) + f"{'ratio':>8}")
    for stage in first:
        times = milliseconds([first[stage], second[stage]])
        medians = [statistics.median(column) for column in zip(*times, strict=True)]
        ratio = statistics.median(one / other for one, other in times)
        print(f"{stage:34}" + "".join(f"{each:18.1f}" for each in medians) + f"{ratio:8.3f}", flush=True)
        if "entropy" in stage:
            speeds = "".join(f"{num_symbols / each / 1e3:18.1f}" for each in medians)
            print(f"{'      million symbols per second':34}{speeds}", flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table for each pair of codecs and each image."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    for path in arguments.parse_args(argv).images:
        image = read_image(path)
        print(f"{path.name}, {image.shape[2]} x {image.shape[1]}, {torch.get_num_threads()} threads")
        for names in PAIRS:
            compare(names, image)


if __name__ == "__main__":
    sys.exit(main())
