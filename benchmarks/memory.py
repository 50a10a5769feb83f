"""What keeping freed memory saves: the same steps in processes that keep it, as every command does, and that do not.

python -m benchmarks.memory

A step is the cost of eight random 256 x 256 images and its slopes in all parameters, in float32, on one thread.
Processes take turns; times are medians, of the processor, page faults included.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from rdgap import _cli
from rdgap._memory import keep_freed_memory
from rdgap.objective import cost, uniform_noise
from rdgap.zoo import load_codec

LMBDA, BATCH, SIZE, STEPS, REPEATS = 0.01, 8, 256, 4, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", nargs="+", default=["two-layer-lite", "mean-scale-lite"])
    return _cli.run(_measure, arguments, argv)


def _measure(options: argparse.Namespace) -> None:
    for model in options.model:
        turns = [(_in_a_process(model, True), _in_a_process(model, False)) for _ in range(REPEATS)]
        (kept, kept_mb), (returned, returned_mb) = (
            (statistics.median(column) for column in zip(*side, strict=True)) for side in zip(*turns, strict=True)
        )
        ratio = statistics.median(one[0] / other[0] for one, other in turns)
        print(
            f"{model}: a step {kept:.0f} ms with freed memory kept, {returned:.0f} ms without, ratio {ratio:.2f}; "
            f"peak {kept_mb:.0f} and {returned_mb:.0f} MB",
            flush=True,
        )


def _in_a_process(model: str, is_kept: bool) -> tuple[float, float]:
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:
        return executor.submit(_step_and_peak, model, is_kept).result()


def _step_and_peak(model: str, is_kept: bool) -> tuple[float, float]:
    """Return the milliseconds of a step and the largest memory of the process in MB."""
    if is_kept and not keep_freed_memory():
        raise RuntimeError("this C library cannot be told to keep memory.")
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    codec = load_codec(model, LMBDA)
    images = torch.rand(BATCH, 3, SIZE, SIZE, generator=generator)
    for parameter in codec.parameters():
        parameter.requires_grad_(True)

    def step() -> None:
        latents = uniform_noise(codec.infer(images), generator)
        cost(codec, latents, images, LMBDA).lagrangian_nats.sum().backward()

    step()
    began = time.process_time()
    for _ in range(STEPS):
        step()
    milliseconds = 1e3 * (time.process_time() - began) / STEPS
    return milliseconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
