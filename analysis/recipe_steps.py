"""Thirty full-size training steps of every recipe on one crop: the cost must fall.

    python analysis/recipe_steps.py --images KODAK      # an hour on two cores; the same command resumes

Writes `tables/recipe_steps.csv`, one row per recipe, with provenance beside it. Every codec starts from random weights
and sees one and the same crop of 256 x 256 pixels, with the optimizer, gradient clipping and learning rate that its
recipe has after the warm-up. First and last cost are those before the first and after the last step, of the same noise.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pandas as pd
import torch
from _experiment import check_smoke, parser, provenance
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, convert_conv2d_weight_memory_format

from rdgap import _cli
from rdgap._files import write_json
from rdgap.images import center_crop, image_paths, read_image
from rdgap.ntc import NTCCodec
from rdgap.objective import nats_to_bpp
from rdgap.recipes import Recipe, build_codec
from rdgap.schemas import RECIPE_STEPS
from rdgap.tables import read_table, write_table
from rdgap.training.schedule import parameter_groups
from rdgap.zoo import model_directory, shipped_recipe

CROP, STEPS, LMBDA, SEED = 256, 30, 0.01, 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment."""
    arguments = parser(__doc__, smoke="two recipes, two steps on a crop of 64")
    arguments.add_argument("--images", type=Path, required=True, help="folder of images, of which the first is taken")
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    check_smoke(options)
    path: Path = options.tables / "recipe_steps.csv"
    image = image_paths([options.images])[0]
    rows = read_table(path, RECIPE_STEPS).to_dict("records") if path.exists() else []
    done = {row["codec"] for row in rows}
    found = (recipe.stem for recipe in model_directory().glob("*.toml"))
    names = sorted(found, key=lambda name: (name.endswith("-lite"), name))  # the paper's sizes first
    if options.smoke:
        names = names[-2:]
    crop, steps = (64, 2) if options.smoke else (CROP, STEPS)
    settings = {"image": image.name, "crop": crop, "lmbda": LMBDA, "seed": SEED, "threads": 1}
    origin = provenance("python analysis/recipe_steps.py --images KODAK", images=[image])
    write_json(path.with_suffix(".json"), origin | {"settings": settings})
    spawn = multiprocessing.get_context("spawn")
    for name in (name for name in names if name not in done):
        with ProcessPoolExecutor(1, spawn) as fresh:  # whose peak memory is that of one recipe
            rows.append(fresh.submit(measure, name, image, crop, steps).result())
        write_table(path, pd.DataFrame(rows), RECIPE_STEPS)
        print(rows[-1], flush=True)


def measure(name: str, image: Path, crop: int, steps: int) -> dict[str, object]:
    """Return the row of a recipe."""
    torch.set_num_threads(1)
    recipe = shipped_recipe(name)
    began = time.perf_counter()
    first, last = train(recipe, center_crop(read_image(image), crop)[None], steps)
    return {
        "codec": name,
        "steps": steps,
        "num_pixels": crop**2,
        "first_lagrangian_bpp": first,
        "last_lagrangian_bpp": last,
        "seconds_per_step": (time.perf_counter() - began) / steps,
        "peak_memory_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    }


def train(recipe: Recipe, images: Tensor, steps: int) -> tuple[float, float]:
    """Return the cost in bits per pixel before the first and after the last step on one batch."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        codec = build_codec(recipe)
    convert_conv2d_weight_memory_format(codec, torch.channels_last)
    images = images.contiguous(memory_format=torch.channels_last)
    plan = recipe.training
    groups = parameter_groups(plan, codec)
    optimizer = torch.optim.Adam([{**group, "lr": plan.learning_rate * group["scale"]} for group in groups])
    with torch.no_grad():
        first = float(_cost(codec, images, 0))
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        _cost(codec, images, step).backward()
        clip_grad_norm_(codec.parameters(), plan.gradient_clip, error_if_nonfinite=True)
        silent = [name for name, weight in codec.named_parameters() if weight.grad is None]
        if silent:
            raise RuntimeError(f"every parameter must have a gradient, got none for {', '.join(silent)}.")
        optimizer.step()
    with torch.no_grad():
        return first, float(_cost(codec, images, 0))


def _cost(codec: NTCCodec, images: Tensor, seed: int) -> Tensor:
    rate_nats, sse = codec(images, torch.Generator().manual_seed(seed))
    num_pixels = images.shape[-2] * images.shape[-1]
    return (nats_to_bpp(rate_nats, num_pixels) + LMBDA * sse / (3 * num_pixels)).mean()


if __name__ == "__main__":
    sys.exit(main())
