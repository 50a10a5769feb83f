"""What commands share that measure many images under many codecs: jobs, and tables that go on where they were."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from . import _cli
from .images import image_paths
from .parallel import map_images
from .tables import Schema, read_table, write_table
from .zoo import DEFAULT_LMBDA, DEFAULT_MODEL, NAMES

if TYPE_CHECKING:
    import pandas as pd

LABELS = ["model", "lmbda", "image"]
"""The columns that tell the rows of such a table apart."""

Job = TypeVar("Job")


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """Add the images, `--model` and `--lmbda`, checked by `checked_paths`."""
    arguments.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="image files, or folders of images")
    arguments.add_argument(
        "--model",
        nargs="+",
        default=[DEFAULT_MODEL],
        help=f"{NAMES} (default: {DEFAULT_MODEL})",
    )
    arguments.add_argument(
        "--lmbda",
        nargs="+",
        type=_cli.positive_float,
        default=[DEFAULT_LMBDA],
        help=f"weights of the MSE in bits per pixel (default: {DEFAULT_LMBDA})",
    )


def checked_paths(options: argparse.Namespace) -> list[Path]:
    """Return the files of the images.

    Raises:
        ValueError: If a model, an lmbda or an image's name is there twice, or a folder holds no images.
        FileNotFoundError: If a file or folder does not exist.
    """
    paths = image_paths(options.images)
    check_distinct("--model", options.model)
    check_distinct("--lmbda", options.lmbda)
    check_distinct("the names of the images", [path.stem for path in paths])
    return paths


def check_distinct(what: str, names: Sequence[object]) -> None:
    """Raise `ValueError` if a name is there twice."""
    for position, name in enumerate(names):
        if name in names[:position]:
            raise ValueError(f"{what} must be different from each other, got {name} twice.")


def equal_sizes(paths: Sequence[Path], size_of: Callable[[Path], torch.Size], most: int) -> Iterator[tuple[Path, ...]]:
    """Put up to `most` images of equal size together.

    Every image is read, so that one that cannot be used is found out before the work begins; errors as `size_of`.
    """
    by_size: dict[torch.Size, list[Path]] = {}
    for path in paths:
        by_size.setdefault(size_of(path), []).append(path)
    for equal in by_size.values():
        yield from (tuple(equal[start : start + most]) for start in range(0, len(equal), most))


def kept_rows(path: Path | None, settings: Mapping[str, object], schema: Schema) -> pd.DataFrame | None:
    """Return the rows of an earlier run, if there was one.

    Raises:
        ValueError: If its settings, a value per column, were others, or a row is there twice.
    """
    if path is None or not path.exists():
        return None
    table = read_table(path, schema)
    for name, setting in settings.items():
        others = [found for found in table[name] if found != setting]
        if others:
            raise ValueError(
                f"{path} has rows with {name} {others[0]}, this run has {setting}: write it to another file."
            )
    if table.duplicated(LABELS).any():
        raise ValueError(f"{path} must have one row per model, lmbda and image, got several.")
    return table


def complete(
    kept: pd.DataFrame | None,
    models: Sequence[str],
    lmbdas: Sequence[float],
    groups: Sequence[tuple[Path, ...]],
    job_of: Callable[[str, float, tuple[Path, ...]], Job],
    measure: Callable[[Job], pd.DataFrame],
    *,
    executor: Executor | None,
    schema: Schema,
    file: Path | None,
    description: str,
) -> pd.DataFrame:
    """Measure what has no row yet and return the rows that are wanted, in their order.

    Args:
        kept: Rows that are there.
        models: Wanted, each at each lmbda on each image.
        lmbdas: Wanted.
        groups: Wanted images, those together that may be measured together.
        job_of: Makes a job of a model, an lmbda and images that are missing.
        measure: Returns the rows of a job.
        executor: Where to measure.
        schema: Columns of the rows.
        file: Where all rows are written whenever a job is finished, if anywhere.
        description: Label of the progress bar.
    """
    import pandas as pd

    frames = [] if kept is None else [kept]
    done = set() if kept is None else set(kept[LABELS].itertuples(index=False, name=None))
    jobs = []
    for model, lmbda, group in product(models, lmbdas, groups):
        missing = tuple(path.absolute() for path in group if (model, lmbda, path.stem) not in done)
        if missing:
            jobs.append(job_of(model, lmbda, missing))
    for frame in map_images(measure, jobs, executor=executor, in_order=False, description=description):
        frames.append(frame)
        if file:
            write_table(file, pd.concat(frames), schema)
    paths = sorted(path for group in groups for path in group)
    rows = list(product(models, lmbdas, [path.stem for path in paths]))
    return pd.concat(frames, ignore_index=True).set_index(LABELS).loc[rows].reset_index()
