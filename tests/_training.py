"""A codec so small, and photographs so smooth, that training takes a fraction of a second."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rdgap.recipes import Recipe, parse_recipe

TWO_LAYER = 'kind = "two-layer"\nchannels = 6\nresidual = true'
JPEG_LIKE = 'kind = "jpeg-like"'
BALLE = 'kind = "balle2017"\nfilters = 8'
HYPERPRIOR = 'kind = "mean-scale"\nwidth = 8'
FACTORIZED = 'kind = "factorized"'


def recipe_text(
    name: str = "tiny",
    synthesis: str = TWO_LAYER,
    prior: str = HYPERPRIOR,
    filters: int = 8,
    latent_channels: int = 16,
    **training: object,
) -> str:
    options = {
        "quantization": '"mixed"', "steps": 8, "batch_size": 2, "crop_size": 64, "learning_rate": 0.02,
        "relative_learning_rate": "true", "decay": '"cosine"', "initialization": '"principal"',
    } | training  # fmt: skip
    return "\n".join(
        [
            f'name = "{name}"',
            'description = "Too small to be of use."',
            f"latent_channels = {latent_channels}",
            f'[analysis]\nkind = "balle2017"\nfilters = {filters}',
            f"[synthesis]\n{synthesis}",
            f"[prior]\n{prior}",
            "[training]",
            *(f"{key} = {value}" for key, value in options.items()),
        ]
    )


def tiny_recipe(**options: object) -> Recipe:
    return parse_recipe(recipe_text(**options), "tiny.toml")  # pyright: ignore[reportArgumentType]


def smooth_pixels(seed: int, height: int = 80, width: int = 96) -> np.ndarray:
    """Noise of 1/16 of the size, enlarged: uint8, (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def smooth_images(number: int, height: int = 64, width: int = 64) -> Tensor:
    pixels = np.stack([smooth_pixels(100 + seed, height, width) for seed in range(number)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255.0


def write_photographs(folder: Path, number: int = 5) -> list[Path]:
    """Write photographs of different sizes; the first is what the command holds out by default."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index}.png" for index in range(number)]
    for index, path in enumerate(paths):
        Image.fromarray(smooth_pixels(index, 80 + index, 97 - index)).save(path)
    return paths
