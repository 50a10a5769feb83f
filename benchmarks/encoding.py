"""What a step of iterative encoding costs beside one forward and backward pass of decoder and prior.

python -m benchmarks.encoding PHOTO

Both sides work on the same 256 x 256 crop, in turn; the ratio is the median over repeats. A step is a search of 300
steps over 300: relaxation, pass, Adam, and its share of the 25 times that rounded symbols are tried. Times are those of
the processor, which other processes do not lengthen much.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rdgap import _cli
from rdgap.encoding import Encoder
from rdgap.images import center_crop, read_image
from rdgap.ntc import NTCCodec
from rdgap.objective import cost
from rdgap.zoo import DEFAULT_LMBDA, load_codec

CROP, STEPS, PASSES, REPEATS = 256, 300, 30, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("photo", type=Path)
    arguments.add_argument("--model", nargs="+", default=["two-layer-lite", "mean-scale-lite"])
    return _cli.run(_measure, arguments, argv)


def _measure(options: argparse.Namespace) -> None:
    image = center_crop(read_image(options.photo), CROP)[None]
    for model in options.model:
        print(f"{model}: {_compare(load_codec(model, DEFAULT_LMBDA), image)}", flush=True)


def _compare(codec: NTCCodec, image: Tensor) -> str:
    latents = codec.infer(image)

    def passes() -> None:
        for _ in range(PASSES):
            points = tuple(latent.detach().requires_grad_() for latent in latents)
            torch.autograd.grad(cost(codec, points, image, DEFAULT_LMBDA).lagrangian_nats.sum(), points)

    def search(bf16: bool) -> None:
        Encoder(method="sga", steps=STEPS, bf16=bf16).encode(codec, image, DEFAULT_LMBDA)

    passes()
    times = [
        (_seconds(passes) / PASSES, _seconds(lambda: search(False)) / STEPS, _seconds(lambda: search(True)) / STEPS)
        for _ in range(REPEATS)
    ]
    plain, full, half = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
    ratio = statistics.median(step / one for one, step, _ in times)
    bf16_ratio = statistics.median(step / one for one, _, step in times)
    return (
        f"forward and backward {plain:.1f} ms, step {full:.1f} ms, ratio {ratio:.2f}; "
        f"slopes in bfloat16 {half:.1f} ms, ratio {bf16_ratio:.2f}"
    )


def _seconds(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


if __name__ == "__main__":
    sys.exit(main())
