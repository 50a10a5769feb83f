"""Codecs by the names that users give on command lines, and the options that go with them."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import _cli, conventional
from .._jobs import placed
from ..encoding.encoder import add_encoder, encoder
from ..images import image_paths, read_rgb8
from ..model import Latents
from .cache import MeasurementCache, default_cache_folder
from .points import IterativeChoice, OperatingPoint, coded_point, conventional_points, evaluate, learned_point

if TYPE_CHECKING:
    import pandas as pd

    from ..codec import Coder
    from ..ntc import NTCCodec

_MOST_CODERS = 32  # kept ready


def add_options(arguments: argparse.ArgumentParser) -> None:
    """Add the options that `measured` needs."""
    arguments.add_argument(
        "--lmbda", nargs="+", type=_cli.positive_float, help="only these of each model's trained lmbdas (default: all)"
    )
    arguments.add_argument(
        "--coded", action="store_true", help="write and read a bitstream of each image by each learned codec as well"
    )
    add_encoder(arguments)
    arguments.add_argument(
        "--jobs",
        type=_cli.positive_int,
        default=_processors(),
        help="images on which conventional codecs run at once (default: one per processor)",
    )
    arguments.add_argument(
        "--cache",
        type=Path,
        metavar="FOLDER",
        help="where what conventional codecs gave is kept and looked up (default: rdgap in the user's cache folder)",
    )
    _cli.add_device(arguments)
    _cli.add_cluster(arguments)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def measured(
    names: Sequence[str],
    images: Sequence[Path],
    options: argparse.Namespace,
    metrics: Collection[str],
    file: Path | None,
) -> pd.DataFrame:
    """Measure what a user calls by these names on images.

    Args:
        names: Shipped models, .safetensors files, and conventional codecs.
        images: Files, and folders of files.
        options: Those of `add_options`.
        metrics: What to measure beside the squared error.
        file: The table that `evaluate` goes on with, if there is one.

    Raises:
        ValueError: If a name is none of these, a model is not trained at a lmbda asked for, or an image is damaged.
        ModuleNotFoundError: If this machine lacks a conventional codec.
        OSError: If an image cannot be read, or the folder of the cache not be made.
    """
    paths = image_paths(images)
    device = options.device if options.cluster else _cli.device(options.device)
    for path in paths:
        read_rgb8(path)  # a damaged file ends the run now, not after an hour
    points = named_points(names, options, device, metrics)
    if file and file.exists():
        print(f"{file}: rows that are there are kept, not measured again", file=sys.stderr)
    with _cli.executor(options.cluster) as executor:
        return evaluate(points, paths, executor=executor, jobs=options.jobs, file=file)


def named_points(
    names: Sequence[str], options: argparse.Namespace, device: torch.device | str, metrics: Collection[str]
) -> list[OperatingPoint]:
    """Return the operating points of what a user calls by these names; arguments and errors as of `measured`."""
    cache = None
    if any(name in conventional.CODECS for name in names):
        folder = options.cache or default_cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        cache = MeasurementCache(folder)
    points: list[OperatingPoint] = []
    for name in names:
        if name in conventional.CODECS:
            points += conventional_points(name, metrics=metrics, cache=cache)
        else:
            points += _learned(name, options, device, metrics)
    return points


def _learned(
    name: str, options: argparse.Namespace, device: torch.device | str, metrics: Collection[str]
) -> list[OperatingPoint]:
    from .. import zoo

    own = [] if name.endswith(".safetensors") or zoo.is_own(name) else zoo.trained_lmbdas(name)
    lmbdas = options.lmbda or own or [None]  # None: its only one
    codecs = [zoo.named_codec(name, lmbda, device="cpu" if options.cluster else device) for lmbda in lmbdas]
    chosen, points = encoder(options), []
    for asked, codec in zip(lmbdas, codecs, strict=True):
        lmbda = asked or float(getattr(codec, "lmbda", math.nan))
        if math.isnan(lmbda):
            raise ValueError(f"`--lmbda` must be given for {name}, which does not say what it is trained for.")
        choice = chosen and IterativeChoice(codec, lmbda, chosen, device)
        called = name if zoo.is_own(name) else str(getattr(codec, "name", name))
        what = {"name": called, "lmbda": lmbda, "metrics": metrics, "choice": choice}
        points.append(learned_point(codec, device=device, **what))
        if options.coded:
            points.append(coded_point(_CoderOf(zoo.checked_ntc(codec, name), device), **what))
    return points


class _CoderOf:
    """Writes and reads bitstreams by a codec, on the device where it is used; errors as `rdgap.codec.Coder`."""

    def __init__(self, codec: NTCCodec, device: torch.device | str) -> None:
        self._codec, self._device = codec, device
        _coder(codec)  # what cannot be coded is found out now

    def encode(self, image: Tensor, symbols: Latents | None = None) -> bytes:
        return self._coder().encode(image, symbols)

    def decode(self, stream: bytes) -> Tensor:
        return self._coder().decode(stream)

    def _coder(self) -> Coder:
        return _coder(placed(self._codec, _cli.device(self._device)))


@lru_cache(_MOST_CODERS)
def _coder(codec: NTCCodec) -> Coder:
    from ..codec import Coder

    return Coder(codec)
