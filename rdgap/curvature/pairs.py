"""Pairs of images at whose latents curves begin and end: two files, a list of pairs, or random crops of a folder."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..images import random_crop, read_image


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two images, or a random square of each.

    Attributes:
        first: File of the image at t = 0.
        second: File of the image at t = 1.
        crop: Side of the squares; 0 for whole images.
        seed: Of the places of the squares.
    """

    first: Path
    second: Path
    crop: int
    seed: int

    def read(self) -> tuple[Tensor, Tensor]:
        """Return both images, each (1, 3, height, width).

        Raises:
            ValueError: If a file is no image, one is smaller than the crop, or both differ in size or not at all.
            OSError: If a file cannot be read.
        """
        generator = torch.Generator().manual_seed(self.seed)
        first, second = (self._cut(path, generator) for path in (self.first, self.second))
        if first.shape != second.shape:
            sizes = " and ".join(f"{image.shape[-1]} x {image.shape[-2]}" for image in (first, second))
            raise ValueError(
                f"Both images must have the same size, got {sizes} pixels; --crop SIZE cuts a square from each."
            )
        if torch.equal(first, second):
            raise ValueError(
                "The two images must differ, because eta divides by the distance of their reconstructions; "
                f"got the same pixels from {self.first} and {self.second}."
            )
        return first[None], second[None]

    def _cut(self, path: Path, generator: torch.Generator) -> Tensor:
        image = read_image(path)
        if not self.crop:
            return image
        if self.crop > min(image.shape[-2:]):
            raise ValueError(
                f"`--crop` must fit into the image, got {self.crop} for {path} "
                f"of {image.shape[-1]} x {image.shape[-2]} pixels."
            )
        return random_crop(image, self.crop, generator)


def random_pairs(paths: Sequence[Path], number: int, *, crop: int, seed: int) -> list[Pair]:
    """Draw pairs of two different images each, the same ones for every size of the crop.

    Raises:
        ValueError: If there are not two images.
    """
    if len(paths) < 2:
        raise ValueError(f"Random pairs must be drawn from at least two images, got {len(paths)}.")
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randperm(len(paths), generator=generator)[:2].tolist() for _ in range(number)]
    return [
        Pair(first=paths[i], second=paths[j], crop=crop, seed=zlib.crc32(f"{seed} {index}".encode()))
        for index, (i, j) in enumerate(drawn)
    ]


def listed_pairs(path: Path, *, crop: int, seed: int) -> list[Pair]:
    """Read pairs from a CSV file with the columns `first` and `second`: file names, relative to its own folder.

    Raises:
        ValueError: If it has other columns or no row.
        OSError: If it cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, strict=True) if row]
    except (ValueError, csv.Error) as error:  # no line at all, not UTF-8, or a quote left open
        raise ValueError(f"{path}: not a CSV table: {error}.") from error
    if header != ["first", "second"] or not rows or any(len(row) != 2 for row in rows):
        raise ValueError(f"{path}: a list of pairs must have the columns first,second and at least one row.")
    return [
        Pair(first=path.parent / first, second=path.parent / second, crop=crop, seed=seed) for first, second in rows
    ]
