"""Codecs by the names that users give on command lines, and the options that go with them."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Collection, Sequence
from pathlib import Path

import torch

from .. import _cli, conventional
from ..encoding.encoder import add_encoder, encoder
from .cache import MeasurementCache, default_cache_folder
from .points import IterativeChoice, OperatingPoint, coded_point, conventional_points, learned_point


def add_options(arguments: argparse.ArgumentParser) -> None:
    """Add the options that `named_points` and `rdgap.evaluation.evaluate` need."""
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


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def named_points(
    names: Sequence[str], options: argparse.Namespace, device: torch.device, metrics: Collection[str]
) -> list[OperatingPoint]:
    """Return the operating points of what a user calls by these names, loaded and ready.

    Args:
        names: Shipped models, .safetensors files, and conventional codecs.
        options: Those of `add_options`.
        device: Where learned codecs go.
        metrics: What to measure beside the squared error.

    Raises:
        ValueError: If a name is none of these, or a model is not trained at a lmbda asked for.
        ModuleNotFoundError: If this machine lacks a conventional codec.
        OSError: If the folder of the cache cannot be made.
    """
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
    name: str, options: argparse.Namespace, device: torch.device, metrics: Collection[str]
) -> list[OperatingPoint]:
    from .. import zoo
    from ..codec import Coder

    own = [] if name.endswith(".safetensors") or zoo.is_own(name) else zoo.trained_lmbdas(name)
    lmbdas = options.lmbda or own or [None]  # None: its only one
    codecs = [zoo.named_codec(name, lmbda, device=device) for lmbda in lmbdas]
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
            points.append(coded_point(Coder(zoo.checked_ntc(codec, name)), **what))
    return points
