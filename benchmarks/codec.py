"""`python -m benchmarks.codec IMAGE ...`: time of every stage of coding and decoding, and of the deep baseline's.

Each stage is run several times and its median quoted, at the number of threads that torch is set to.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rdgap.codec import Coder, unpack
from rdgap.codec.entropy import SymbolReader, SymbolWriter
from rdgap.codec.tables import gaussian_tables, scale_index
from rdgap.images import read_image
from rdgap.ntc import MeanScaleHyperprior
from rdgap.zoo import DEFAULT_LMBDA, load_codec

MODELS = ("two-layer-lite", "mean-scale-lite")
REPEATS = 5


def milliseconds(run: Callable[[], object]) -> float:
    """Return the median wall time of a call after one to warm up."""
    times = []
    for _ in range(REPEATS + 1):
        began = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[1:])


def stages(model: str, image: Tensor) -> dict[str, float]:
    """Return the milliseconds of coding an image and of each stage, and millions of symbols per second."""
    coder = Coder(load_codec(model, DEFAULT_LMBDA))
    codec = coder.codec
    exact, floating = coder.prior, codec.prior
    assert isinstance(exact, MeanScaleHyperprior)
    assert isinstance(floating, MeanScaleHyperprior)
    stream, y = coder.encode_with_latents(image)
    header, payload = unpack(stream)
    with torch.no_grad():
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
        times = {
            "encode": milliseconds(lambda: coder.encode(image)),
            "  analyses": milliseconds(lambda: codec.infer(image[None])),
            "  hyper synthesis": milliseconds(lambda: exact.parameters_of(first)),
            "  entropy encoder": milliseconds(write),
            "decode": milliseconds(lambda: coder.decode(stream)),
            "  latents": milliseconds(lambda: coder.read_latents(payload, header)),
            "    hyper synthesis": milliseconds(lambda: exact.parameters_of(first)),
            "    entropy decoder": milliseconds(lambda: SymbolReader(written).read(index, gaussian_tables())),
            "  synthesis": milliseconds(lambda: coder.synthesize(y, header.height, header.width)),
            "hyper synthesis in floating point": milliseconds(lambda: floating.parameters_of(first.float())),
        }
    million = len(symbols) / 1e6
    times["M symbols/s, entropy encoder"] = million / times["  entropy encoder"] * 1e3
    times["M symbols/s, entropy decoder"] = million / times["    entropy decoder"] * 1e3
    return times


def main(argv: Sequence[str]) -> None:
    """Print a table per image."""
    for name in argv:
        image = read_image(Path(name))
        columns = [stages(model, image) for model in MODELS]
        print(f"{Path(name).name}, {image.shape[2]} x {image.shape[1]}, {torch.get_num_threads()} threads")
        print(f"{'milliseconds':34}" + "".join(f"{model:>18}" for model in MODELS) + f"{'ratio':>8}")
        for stage, times in zip(columns[0], zip(*(column.values() for column in columns), strict=True), strict=True):
            print(f"{stage:34}" + "".join(f"{each:18.1f}" for each in times) + f"{times[0] / times[1]:8.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
