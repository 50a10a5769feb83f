"""Length of the decoded curve between two images: `python -m rdgap.curvature A.png B.png`."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from .. import _cli, zoo
from .._files import write_json, write_text
from ..images import random_crop, read_image
from ..model import Latents
from . import (
    CurveLength,
    Decode,
    PathDistances,
    curve_length,
    distances_to_straight_paths,
    image_decoder,
)
from .plot import FRAMES, draw, film_strip

_PIXELS_AT_ONCE = 2**18
"""Of the images that are decoded together: bounds the memory whatever the size of the images."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _cli.parser(
        "curvature",
        "Measure how straight the decoder keeps the line between the latents of two images: the length of the decoded\n"
        "curve, the chord between the two reconstructions, and eta = length / chord (1 for a straight segment).",
        "python -m rdgap.curvature A.png B.png --crop 256 --plot curve.png",
    )
    arguments.add_argument("images", nargs=2, type=Path, metavar="IMAGE", help="the two images at the ends")
    arguments.add_argument(
        "--model", default=zoo.DEFAULT_MODEL, help="trained model or .safetensors file (default: %(default)s)"
    )
    arguments.add_argument(
        "--lmbda",
        type=_cli.positive_float,
        help=f"trade-off that it was trained for (default: {zoo.DEFAULT_LMBDA}, or the one in the file)",
    )
    arguments.add_argument(
        "--crop",
        type=_cli.positive_int,
        metavar="SIZE",
        help="cut a random square of SIZE pixels from each image, by --seed",
    )
    arguments.add_argument("--points", type=_points, default=100, help="terms of the Riemann sum (default: 100)")
    arguments.add_argument(
        "--rule",
        choices=["midpoint", "left"],
        default="midpoint",
        help="where in its cell the speed is taken; the paper's is left (default: midpoint)",
    )
    _cli.add_plot(arguments, "distances to both straight paths and a film strip")
    _cli.add_output(arguments, "--json", "the result")
    _cli.add_output(arguments, "--csv", "speed and distances per t")
    _cli.add_device(arguments)
    _cli.add_seed(arguments)
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    first, last = _read_pair(options.images, options.crop, options.seed)
    height, width = first.shape[-2:]

    device = _cli.device(options.device)
    from_file = options.model.endswith(".safetensors")
    lmbda = options.lmbda or (None if from_file else zoo.DEFAULT_LMBDA)
    codec = zoo.load_codec(options.model, lmbda, device=device)
    originals = (first[None].to(device), last[None].to(device))
    with torch.no_grad():
        start, end = (codec.infer(image) for image in originals)

    chunk_size = max(1, min(options.points, _PIXELS_AT_ONCE // (height * width)))
    decodes = 2 * options.points + options.points // 2 + 4 + (FRAMES if options.plot else 0)
    with tqdm(total=decodes, unit="decode", disable=None, leave=False) as bar:
        decode = _counted(image_decoder(codec, (height, width)), bar)
        result = curve_length(decode, start, end, num_points=options.points, rule=options.rule, chunk_size=chunk_size)
        distances = distances_to_straight_paths(decode, start, end, originals, result.ts, chunk_size=chunk_size)
        strip = film_strip(decode, start, end, originals, chunk_size=chunk_size) if options.plot else None

    names = [str(path) for path in options.images]
    summary = _summary(result, distances)
    setup = {
        "images": names,
        "model": options.model,
        "lmbda": codec.lmbda,
        "crop": options.crop,
        "seed": options.seed,
        "height": height,
        "width": width,
        "rule": options.rule,
        "num_points": options.points,
    }
    if options.csv:
        write_text(options.csv, _csv(result, distances))
    if options.json:
        write_json(options.json, setup | summary)
    if strip is not None:
        from .._plots import save

        save(draw(result, distances, strip), options.plot)
    print(f"{names[0]} to {names[1]}, {width} x {height} pixels")
    print(f"{options.model}, lmbda {codec.lmbda:g}, {options.points} terms, {options.rule} rule\n")
    print(_report(result, distances))


def _read_pair(paths: Sequence[Path], crop: int | None, seed: int) -> tuple[Tensor, Tensor]:
    first, last = (read_image(path) for path in paths)
    if crop is not None:
        generator = torch.Generator().manual_seed(seed)
        first, last = (_crop(image, path, crop, generator) for image, path in zip((first, last), paths, strict=True))
    elif first.shape != last.shape:
        sizes = " and ".join(f"{image.shape[-1]} x {image.shape[-2]}" for image in (first, last))
        raise ValueError(
            f"Both images must have the same size, got {sizes} pixels; --crop SIZE cuts a square from each."
        )
    if torch.equal(first, last):
        raise ValueError(
            "The two images must differ, because eta divides by the distance of their reconstructions; "
            f"got the same pixels from {paths[0]} and {paths[1]}."
        )
    return first, last


def _crop(image: Tensor, path: Path, size: int, generator: torch.Generator) -> Tensor:
    if size > min(image.shape[-2:]):
        raise ValueError(
            f"`--crop` must fit into the image, got {size} for {path} of {image.shape[-1]} x {image.shape[-2]} pixels."
        )
    return random_crop(image, size, generator)


def _counted(decode: Decode, bar: tqdm) -> Decode:
    """Let `bar` follow the decodes, so that the computations know of no progress bar."""

    def counted(latents: Latents) -> Tensor:
        images = decode(latents)
        bar.update(len(latents[0]))
        return images

    return counted


def _summary(result: CurveLength, distances: PathDistances) -> dict[str, float]:
    return {
        "length": result.length,
        "length_error": result.length_error,
        "chord": result.chord,
        "eta": result.eta,
        "eta_error": result.eta_error,
        "polyline_length": result.polyline_length,
        "speed_variation": result.speed_variation,
        "max_deviation_over_chord": result.max_deviation_over_chord,
        "max_mse_to_reconstructions": float(distances.mse_to_reconstructions.max()),
        "max_mse_to_originals": float(distances.mse_to_originals.max()),
    }


def _report(result: CurveLength, distances: PathDistances) -> str:
    rows = (
        ("length of the decoded curve", _with_error(result.length, result.length_error), "pixel values in [0, 1]"),
        ("chord between reconstructions", _with_error(result.chord, result.length_error).split()[0], "same unit"),
        ("eta = length / chord", _with_error(result.eta, result.eta_error), "1: straight"),
        ("speed variation", f"{100 * result.speed_variation:.3g} %", "standard deviation / mean"),
        ("largest deviation / chord", f"{100 * result.max_deviation_over_chord:.3g} %", "across the chord"),
        ("largest MSE to straight paths", "", "0..255 scale"),
        ("  between reconstructions", f"{distances.mse_to_reconstructions.max():.4g}", ""),
        ("  between originals", f"{distances.mse_to_originals.max():.4g}", ""),
    )
    return "\n".join(f"{label:<31}{quantity:<22}{remark}".rstrip() for label, quantity, remark in rows)


def _with_error(number: float, error: float) -> str:
    """Format with as many decimals as the error, rounded up to one digit, supports: `1.0384 +- 0.0002`."""
    decimals = max(0, -math.floor(math.log10(error)))
    step = 10.0**-decimals
    return f"{number:.{decimals}f} +- {math.ceil(error / step) * step:.{decimals}f}"


def _csv(result: CurveLength, distances: PathDistances) -> str:
    columns = (result.ts, result.speed, distances.mse_to_reconstructions, distances.mse_to_originals)
    lines = [",".join(map(repr, row)) for row in torch.stack(columns, dim=1).tolist()]
    return "\n".join(["t,speed,mse_to_reconstructions,mse_to_originals", *lines]) + "\n"


def _points(text: str) -> int:
    number = int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
