"""Command: the gaps between a codec's encoder and the ideal channel, image by image."""

from __future__ import annotations

import argparse
import math
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from .. import _cli, _files, _plots
from ..images import image_paths, random_crop, read_image
from ..zoo import load_codec
from .decomposition import decompose
from .report import averages, draw, format_table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    arguments = _cli.parser(
        "gaps",
        "Split the cost of each image, bpp + lmbda * mse, into the cost of the ideal channel (-log Gamma) and the\n"
        "amortization and approximation gap of the encoder; together they are the inference gap.",
        "python -m rdgap.gaps photo.png --model two-layer-lite --lmbda 0.01 --crop 64",
    )
    arguments.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of images")
    arguments.add_argument(
        "--model", default="two-layer-lite", help="name or .safetensors file (default: two-layer-lite)"
    )
    arguments.add_argument(
        "--lmbda", type=_cli.positive_float, default=0.01, help="weight of the MSE in bits per pixel (default: 0.01)"
    )
    arguments.add_argument(
        "--crop", type=_cli.positive_int, metavar="SIZE", help="take a random square of each image (default: all of it)"
    )
    arguments.add_argument("--chains", type=_at_least_two, default=16, help="annealed chains per image (default: 16)")
    arguments.add_argument("--temperatures", type=_at_least_two, default=100, help="annealing steps (default: 100)")
    arguments.add_argument("--fit-steps", type=_cli.positive_int, default=500, help="steps of each fit (default: 500)")
    arguments.add_argument("--samples", type=_at_least_two, default=64, help="draws for the cost of a q (default: 64)")
    arguments.add_argument(
        "--batch", type=_cli.positive_int, default=16, help="latents decoded at a time; bounds memory (default: 16)"
    )
    _cli.add_seed(arguments)
    _cli.add_device(arguments)
    _cli.add_output(arguments, "--csv", "a table, one row per image")
    _cli.add_output(arguments, "--json", "settings, images and averages")
    _cli.add_plot(arguments, "the costs as stacked bars")
    return _cli.run(_body, arguments, argv)


def _body(options: argparse.Namespace) -> None:
    import pandas as pd

    device = _cli.device(options.device)
    paths = image_paths(options.images)
    images = [_read(path, options.crop, options.seed) for path in paths]
    model = load_codec(options.model, options.lmbda, device=device)
    generator = torch.Generator(device).manual_seed(options.seed)

    frames = []
    with tqdm(total=len(images), desc="images", disable=None) as progress:
        for group in _groups(images, max(1, options.batch // options.chains)):
            gaps = decompose(
                model,
                group.to(device),
                options.lmbda,
                generator=generator,
                chains=options.chains,
                temperatures=options.temperatures,
                fit_steps=options.fit_steps,
                samples=options.samples,
                batch=options.batch,
            )
            frames.append(gaps.to_frame())
            progress.update(len(group))
    table = pd.concat(frames, ignore_index=True)
    table.insert(0, "image", [str(path) for path in paths])
    table.insert(1, "model", options.model)

    print(format_table(table))
    if options.csv:
        with _files.replacing(options.csv) as temporary:
            table.to_csv(temporary, index=False, lineterminator="\n")
    if options.json:
        settings = ("model", "lmbda", "crop", "chains", "temperatures", "fit_steps", "samples", "batch", "seed")
        content = {
            "settings": {name: getattr(options, name) for name in settings} | {"device": str(device)},
            "images": table.to_dict(orient="records"),
            "average": {name: None if math.isnan(amount) else amount for name, amount in averages(table).items()},
        }
        _files.write_json(options.json, content)
    if options.plot:
        _plots.save(draw(table), options.plot)


def _at_least_two(text: str) -> int:
    number = _cli.positive_int(text)
    if number < 2:
        raise argparse.ArgumentTypeError(f"must be at least 2, got {text}")
    return number


def _read(path: Path, crop: int | None, seed: int) -> Tensor:
    """Read an image; its crop depends on the seed and the file's name, not on the other images."""
    image = read_image(path)
    if crop is None:
        return image
    generator = torch.Generator().manual_seed(seed + zlib.crc32(path.name.encode()))
    try:
        return random_crop(image, crop, generator)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _groups(images: Sequence[Tensor], most: int) -> Iterator[Tensor]:
    """Stack neighbours of equal size, at most `most` at a time."""
    start = 0
    for end in range(1, len(images) + 1):
        if end == len(images) or end - start == most or images[end].shape != images[start].shape:
            yield torch.stack(list(images[start:end]))
            start = end


if __name__ == "__main__":
    sys.exit(main())
