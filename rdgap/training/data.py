"""Training crops and validation images.

Batch number k is a pure function of (seed, k): nothing about the data needs to be remembered to resume a run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..images import read_rgb8


def seeded(device: torch.device | str, *key: int) -> torch.Generator:
    """Return a generator that is a pure function of `key`, independent for different keys."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> np.uint64(1)))


class TrainingCrops:
    """Random square crops, flipped left to right half of the time, each image once per epoch.

    Decoded images are kept in memory up to a limit; what lies beyond is decoded again when it is needed.

    Args:
        paths: Image files.
        crop_size: Side of the crops; smaller images are left out, and counted in `too_small`.
        seed: Seed of order, position and flip.
        cache_mib: Memory for decoded images.

    Raises:
        ValueError: If an image cannot be read, or none is large enough.
    """

    def __init__(self, paths: Sequence[Path], crop_size: int, seed: int, *, cache_mib: int = 4096) -> None:
        self.crop_size, self.seed = crop_size, seed
        self._paths: list[Path] = []
        self._cache: dict[Path, np.ndarray] = {}
        self.num_pixels, self.too_small = 0, 0
        digest = hashlib.sha256()
        room = cache_mib * 2**20
        with ThreadPoolExecutor() as pool:
            for path, image in zip(
                paths, tqdm(pool.map(read_rgb8, paths), "reading", len(paths), disable=None, leave=False), strict=True
            ):
                if min(image.shape[:2]) < crop_size:
                    self.too_small += 1
                    continue
                digest.update(hashlib.sha256(image.tobytes()).digest())
                self._paths.append(path)
                self.num_pixels += image.shape[0] * image.shape[1]
                if image.nbytes <= room:
                    room -= image.nbytes
                    self._cache[path] = image
        self.sha256 = digest.hexdigest()
        """Of the decoded pixels of all images, in order."""
        if not self._paths:
            raise ValueError(f"no training image holds a crop of {crop_size} x {crop_size}; {len(paths)} were read.")

    def __len__(self) -> int:
        return len(self._paths)

    def batch(self, step: int, batch_size: int) -> Tensor:
        """Return batch number `step`, (batch_size, 3, crop_size, crop_size) in [0, 1]."""
        crops = [self._crop(number) for number in range(step * batch_size, (step + 1) * batch_size)]
        return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255.0

    def _crop(self, number: int) -> np.ndarray:
        epoch, position = divmod(number, len(self._paths))
        path = self._paths[self._order(epoch)[position]]
        image = self._cache[path] if path in self._cache else read_rgb8(path)
        random = np.random.default_rng((self.seed, 1, number))
        top, left = (int(random.integers(0, side - self.crop_size + 1)) for side in image.shape[:2])
        crop = image[top : top + self.crop_size, left : left + self.crop_size]
        return crop[:, ::-1] if random.random() < 0.5 else crop

    def _order(self, epoch: int) -> np.ndarray:
        if getattr(self, "_epoch", None) != epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self._paths))
        return self._permutation
