"""One piece of the command's work, which any process of any machine can do: some images under one codec."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .. import _cli
from .._jobs import equal_sizes, placed
from ..images import random_crop, read_image
from ..model import Codec
from ..objective import nats_to_bpp
from ..zoo import named_codec
from .bidirectional import REVERSE_MOVES, both_sides
from .decomposition import decompose
from .lattice import decompose_rounded

if TYPE_CHECKING:
    import pandas as pd

_ANNEALING = ("chains", "temperatures", "fit_steps", "batch", "bf16")
_HAMILTONIAN = (*_ANNEALING, "leapfrog_steps", "target_acceptance")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What defines a measurement besides model, lmbda and image; see `decompose` and `rdgap.schemas.GAPS`."""

    crop: int  # 0: the whole image
    seed: int
    chains: int
    temperatures: int
    leapfrog_steps: int
    target_acceptance: float
    fit_steps: int
    samples: int
    batch: int
    bf16: bool

    @property
    def columns(self) -> dict[str, object]:
        """The settings as they stand in each row."""
        return {**vars(self), "bf16": int(self.bf16)}

    def chosen(self, names: Sequence[str]) -> dict[str, Any]:
        """Return some of the settings by name, as arguments."""
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True, repr=False)
class Job:
    """Images of equal size to be measured together under one codec.

    The random numbers depend on the seed and the names of the job's images, on nothing else: neither on the place where
    it runs, nor on the jobs before it, nor on the codec.

    Attributes:
        model: Name or file of the codec.
        lmbda: What it is trained for.
        paths: Image files.
        settings: What is measured.
        device: Where, as `rdgap._cli.device` reads it.
        codec: The codec itself, for a machine that may not have it; else it is loaded by its name.
    """

    model: str
    lmbda: float
    paths: tuple[Path, ...]
    settings: Settings
    device: str
    codec: Codec | None = None

    def __repr__(self) -> str:
        """Name the job, for the message of an error."""
        return f"{self.model}, lmbda {self.lmbda:g}, {', '.join(path.name for path in self.paths)}"


def measure(job: Job) -> pd.DataFrame:
    """Decompose the cost of the job's images; return one row per image with the columns `rdgap.schemas.GAPS`."""
    settings = job.settings
    codec, images, generator = _prepared(job)
    gaps = decompose(
        codec,
        images,
        job.lmbda,
        generator=generator,
        samples=settings.samples,
        **settings.chosen(_HAMILTONIAN),
    )
    return _labelled(gaps.to_frame(), job)


def measure_rounded(job: Job) -> pd.DataFrame:
    """Decompose the cost of the hard-rounded codec; one row per image with the columns `rdgap.schemas.ROUNDED`."""
    codec, images, generator = _prepared(job)
    gaps = decompose_rounded(
        codec,
        images,
        job.lmbda,
        generator=generator,
        **job.settings.chosen(_ANNEALING),
    )
    return _labelled(gaps.to_frame(), job)


def measure_both_sides(job: Job) -> pd.DataFrame:
    """Bound `-log Gamma` on both sides for images drawn from the codec, as many and of the size of the job's.

    One row per image with the columns `rdgap.schemas.BOTH_SIDES`; the photograph gives the row its name and its random
    numbers, nothing else.
    """
    import pandas as pd

    began = time.perf_counter()
    codec, images, generator = _prepared(job)
    sides = both_sides(
        codec,
        images,
        job.lmbda,
        generator=generator,
        **job.settings.chosen(_HAMILTONIAN),
    )
    num_pixels = images.shape[-2] * images.shape[-1]
    nats = {
        "neg_log_gamma_upper_bpp": sides.neg_log_gamma_upper_nats,
        "neg_log_gamma_lower_bpp": sides.neg_log_gamma_lower_nats,
        "bidirectional_gap_bpp": sides.gap_nats,
        "bidirectional_gap_stderr_bpp": sides.gap_stderr_nats,
    }
    frame = pd.DataFrame({name: nats_to_bpp(amount, num_pixels).cpu().numpy() for name, amount in nats.items()})
    frame["acceptance"] = sides.forward.acceptance.cpu().numpy()
    frame["reverse_acceptance"] = sides.reverse_acceptance.cpu().numpy()
    frame["reverse_moves"] = REVERSE_MOVES
    frame["num_pixels"], frame["lmbda"] = num_pixels, job.lmbda
    frame["seconds"] = (time.perf_counter() - began) / len(job.paths)
    return _labelled(frame, job)


def _prepared(job: Job) -> tuple[Codec, Tensor, torch.Generator]:
    device = _cli.device(job.device)
    images = torch.stack([read_crop(path, job.settings) for path in job.paths])
    generator = torch.Generator(device).manual_seed(_seed_of(job.settings.seed, job.paths))
    codec = placed(job.codec, device) if job.codec is not None else _loaded(job.model, job.lmbda, device)
    return codec, images.to(device), generator


def _labelled(frame: pd.DataFrame, job: Job) -> pd.DataFrame:
    labels = {"model": job.model, "image": [path.stem for path in job.paths], "device": _cli.device(job.device).type}
    return frame.assign(**labels, **job.settings.columns)


def read_crop(path: Path, settings: Settings) -> Tensor:
    """Read an image, (3, height, width); its crop depends on the seed and the file's name.

    Raises:
        ValueError: If the file is not an image, or smaller than the crop.
        OSError: If it cannot be read.
    """
    image = read_image(path)
    if not settings.crop:
        return image
    generator = torch.Generator().manual_seed(_seed_of(settings.seed, [path]))
    try:
        return random_crop(image, settings.crop, generator)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def groups(paths: Sequence[Path], settings: Settings) -> Iterator[tuple[Path, ...]]:
    """Put images of equal size together, as many as fill a batch with all their chains.

    Every image is read, so that one that cannot be used is found out before the work begins; errors as `read_crop`.
    """
    most = max(1, settings.batch // settings.chains)
    return equal_sizes(paths, lambda path: read_crop(path, settings).shape, most)


@cache
def _loaded(model: str, lmbda: float, device: torch.device) -> Codec:
    return named_codec(model, lmbda, device=device)


def _seed_of(seed: int, paths: Sequence[Path]) -> int:
    return seed + zlib.crc32("/".join(path.name for path in paths).encode())
