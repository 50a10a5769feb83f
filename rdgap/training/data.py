"""Training crops and held-out images.

Batch number k is a pure function of (seed, k): nothing about the data needs to be remembered to resume a run.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..images import image_paths, read_rgb8
from ..parallel import map_images

_MOST_HELD_OUT = 64  # by default; more would make each validation long, not better


def seeded(device: torch.device | str, *key: int) -> torch.Generator:
    """Return a generator that is a pure function of `key`, independent for different keys of one length."""
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
        self.by_digest: dict[bytes, Path] = {}
        self.num_pixels, self.too_small = 0, 0
        self._paths: list[Path] = []
        self._cache: dict[Path, np.ndarray] = {}
        self._epoch, self._permutation = -1, np.arange(0)
        digest = hashlib.sha256()
        room = cache_mib * 2**20
        for path, image in _read(paths, "training images"):
            if min(image.shape[:2]) < crop_size:
                self.too_small += 1
                continue
            of_image = _digest(image)
            digest.update(of_image)
            self.by_digest[of_image] = path
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

    def batch(self, step: int, batch_size: int, samples: range | None = None) -> Tensor:
        """Return batch number `step`, (batch_size, 3, crop_size, crop_size) in [0, 1], or some samples of it."""
        crops = [self._crop(step * batch_size + sample) for sample in samples or range(batch_size)]
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
        if epoch != self._epoch:
            self._epoch = epoch
            self._permutation = np.random.default_rng((self.seed, 0, epoch)).permutation(len(self._paths))
        return self._permutation


class HeldOut:
    """Held-out images, whole, each (3, height, width) in [0, 1]; kept as the 8-bit pixels that they are.

    Raises:
        ValueError: If an image cannot be read, or is one of the training images, under whatever name.
    """

    def __init__(self, paths: Sequence[Path], crops: TrainingCrops) -> None:
        self._images: list[np.ndarray] = []
        digest = hashlib.sha256()
        for path, image in _read(paths, "held-out images"):
            of_image = _digest(image)
            if of_image in crops.by_digest:
                raise ValueError(
                    f"held-out images must not be trained on, got {path}, equal to {crops.by_digest[of_image]}."
                )
            digest.update(of_image)
            self._images.append(image)
        self.sha256 = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.from_numpy(image).permute(2, 0, 1).float() / 255.0 for image in self._images)


def split(images: Sequence[Path], validation: Sequence[Path] | None) -> tuple[list[Path], list[Path]]:
    """Return the training and the held-out images of two lists of files and folders.

    Without `validation` every 50th image is held out, or fewer, so that they are at most 64.

    Raises:
        ValueError: If there is nothing to hold out, or an image is in both lists.
        FileNotFoundError: If a file or folder does not exist.
    """
    found = image_paths(images)
    if validation:
        held_out = image_paths(validation)
        check_apart(found, held_out)
        return found, held_out
    if len(found) < 2:
        raise ValueError(f"training without `--validation` needs at least 2 images to hold one out, got {len(found)}.")
    held_out = found[:: max(50, math.ceil(len(found) / _MOST_HELD_OUT))]
    return sorted(set(found) - set(held_out)), held_out


def check_apart(images: Sequence[Path], held_out: Sequence[Path]) -> None:
    """Raise `ValueError` if a file is in both lists."""
    trained = {path.resolve() for path in images}
    for path in held_out:
        if path.resolve() in trained:
            raise ValueError(f"held-out images must not be trained on, got {path} in both.")


def fingerprint(images: Sequence[Path], held_out: Sequence[Path]) -> str:
    """Return a hash of the files' paths, sizes and times: while it is the same, the images need not be read again."""
    digest = hashlib.sha256()
    for paths in (images, held_out):
        for path in paths:
            status = path.stat()
            digest.update(repr((str(path.resolve()), status.st_size, status.st_mtime_ns)).encode())
        digest.update(b"|")
    return digest.hexdigest()


def _read(paths: Sequence[Path], description: str) -> Iterator[tuple[Path, np.ndarray]]:
    with ThreadPoolExecutor() as threads:
        yield from zip(paths, map_images(read_rgb8, paths, executor=threads, description=description), strict=True)


def _digest(image: np.ndarray) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()
