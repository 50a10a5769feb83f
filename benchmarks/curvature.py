"""Speed and memory of lengths of decoded curves, beside plain decodes, the full Jacobian and double backward.

python -m benchmarks.curvature                  # the table of benchmarks/README.md; minutes on two cores
python -m benchmarks.curvature --smoke          # the same on the smallest crops, in seconds
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from rdgap.curvature import curve_length, image_decoder, jacobian_vector
from rdgap.ntc import NTCCodec
from rdgap.zoo import DEFAULT_LMBDA, DEFAULT_MODEL, load_codec

Comparison = tuple[str, Callable[[], float], Callable[[], float], Callable[[float, float], float]]
POINTS = 8
MODELS = ("jpeg-like-lite", "two-layer-lite", "mean-scale-lite")


def comparisons() -> Iterator[Comparison]:
    """Yield the mean speed `||J v||` at eight points of one latent line against double backward.

    Only the Jacobian-vector products: `curve_length` also decodes a polyline and estimates its error.
    """
    codec = load_codec(DEFAULT_MODEL, DEFAULT_LMBDA)
    for size in (128, 256):
        start, end = _ends(codec, size, size)
        points = torch.cat(_midpoints(start, end))
        yield (
            f"J v along a curve, {size} x {size}; double backward",
            lambda points=points, v=end - start: _by_forward_mode(codec, points, v),
            lambda start=start, end=end: _by_double_backward(codec, start, end),
            lambda here, there: abs(here / there - 1),
        )


def _by_forward_mode(codec: NTCCodec, points: Tensor, direction: Tensor) -> float:
    velocities = jacobian_vector(lambda latents: codec.synthesis(latents[0]), (points,), (direction,))
    return velocities.flatten(1).norm(dim=1).mean().item()


def _midpoints(start: Tensor, end: Tensor, number: int = POINTS) -> list[Tensor]:
    return [start + (index + 0.5) / number * (end - start) for index in range(number)]


def _by_double_backward(codec: NTCCodec, start: Tensor, end: Tensor) -> float:
    """`J v` as the derivative of `u -> J^T u`, one point after the other (`torch.autograd.functional.jvp`)."""
    speeds = []
    for point in _midpoints(start, end):
        _, velocity = torch.autograd.functional.jvp(codec.synthesis, point, end - start)
        assert isinstance(velocity, Tensor)
        speeds.append(velocity.norm().item())
    return sum(speeds) / POINTS


def _ends(codec: NTCCodec, height: int, width: int) -> tuple[Tensor, Tensor]:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        start, end = (codec.infer(image[None])[-1] for image in images)
    return start, end


def over_decodes(codec: NTCCodec, size: int, number: int, batch: int, repeats: int) -> tuple[float, float]:
    """Return the seconds of `number` plain decodes and of as many products, `batch` at a time, medians in turn."""
    start, end = _ends(codec, size, size)
    points = torch.cat(_midpoints(start, end, number))

    def decode() -> None:
        with torch.no_grad():
            for chunk in points.split(batch):
                codec.synthesis(chunk)

    def products() -> None:
        for chunk in points.split(batch):
            values = 3 * size * size * len(chunk)
            jacobian_vector(lambda z: codec.synthesis(z[0]), (chunk,), (end - start,), values_at_once=values)

    return _medians(decode, products, repeats)


def over_jacobian(codec: NTCCodec, size: int, repeats: int) -> tuple[float, float]:
    """Return the seconds of one Jacobian by `torch.autograd.functional.jacobian`, times v, and of one product."""
    start, end = _ends(codec, size, size)
    direction = end - start

    def dense() -> Tensor:
        jacobian = torch.autograd.functional.jacobian(lambda z: codec.synthesis(z).flatten(), start)
        assert isinstance(jacobian, Tensor)
        return jacobian.flatten(1) @ direction.flatten()

    def product() -> Tensor:
        return jacobian_vector(lambda z: codec.synthesis(z[0]), (start,), (direction,)).flatten()

    torch.testing.assert_close(dense(), product(), rtol=1e-3, atol=1e-4)
    return _medians(dense, product, repeats)


def peak_of_length(codec: NTCCodec, height: int, width: int, num_points: int) -> tuple[float, float]:
    """Return the seconds of one `curve_length` and the peak memory of this process so far in GB."""
    first, last = torch.rand(2, 1, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        start, end = (codec.infer(image) for image in (first, last))
    began = time.perf_counter()
    curve_length(image_decoder(codec, (height, width)), start, end, num_points=num_points, originals=(first, last))
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _medians(first: Callable[[], object], second: Callable[[], object], repeats: int) -> tuple[float, float]:
    times: list[tuple[float, float]] = []
    for _ in range(repeats + 1):  # the first is the warm-up
        marks = [time.perf_counter()]
        for run in (first, second):
            run()
            marks.append(time.perf_counter())
        times.append((marks[1] - marks[0], marks[2] - marks[1]))
    one, other = (statistics.median(column) for column in zip(*times[1:], strict=True))
    return one, other


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--smoke", action="store_true", help="the smallest crops only, once")
    smoke = arguments.parse_args(argv).smoke
    names = MODELS[:1] if smoke else MODELS
    codecs = {name: load_codec(name, DEFAULT_LMBDA) for name in names}
    repeats = 1 if smoke else 5

    print("| T = 100 | crop | at a time | decodes | J v | ratio |\n| --- | --- | --- | --- | --- | --- |")
    for name, codec in codecs.items():
        for size, batch in ((16, 100),) if smoke else ((16, 100), (64, 42), (256, 2)):
            plain, products = over_decodes(codec, size, 100, batch, repeats)
            cells = f"{1e3 * plain:.0f} ms | {1e3 * products:.0f} ms | {products / plain:.2f}"
            print(f"| {name} | {size} | {batch} | {cells} |", flush=True)

    print("\n| 16 x 16 | full Jacobian | one J v | ratio |\n| --- | --- | --- | --- |")
    for name, codec in codecs.items():
        dense, product = over_jacobian(codec, 16, 1)  # minutes
        print(f"| {name} | {1e3 * dense:.0f} ms | {1e3 * product:.2f} ms | {dense / product:.0f} |", flush=True)

    height, width, num_points = (32, 48, 4) if smoke else (512, 768, 100)
    print(f"\n| {width} x {height}, T = {num_points} | seconds | peak memory |\n| --- | --- | --- |")
    for name, codec in codecs.items():
        seconds, peak_gb = peak_of_length(codec, height, width, num_points)
        print(f"| {name} | {seconds:.0f} | {peak_gb:.2f} GB |", flush=True)


if __name__ == "__main__":
    main()
