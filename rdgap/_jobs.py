"""What commands share that measure many images under many codecs: jobs, and tables that go on where they were."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from . import _cli
from ._files import replacing
from .images import image_paths
from .model import Codec
from .parallel import map_images
from .tables import Schema, append_rows, read_table, write_table
from .zoo import DEFAULT_LMBDA, DEFAULT_MODEL, NAMES

if TYPE_CHECKING:
    import pandas as pd

LABELS = ["model", "lmbda", "image"]
"""The columns that tell the rows of such a table apart."""

AnyCodec = TypeVar("AnyCodec", bound=Codec)
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


def kept_rows(
    path: Path | None, settings: Mapping[str, object], schema: Schema, labels: Sequence[str] = LABELS
) -> pd.DataFrame | None:
    """Return the rows of an earlier run, if there was one.

    Args:
        path: Its table.
        settings: What this run has, a value per column.
        schema: Columns of the table.
        labels: Columns that tell its rows apart.

    Raises:
        ValueError: If its settings were others, or a row is there twice.
    """
    if path is None or not path.exists():
        return None
    table = read_table(path, schema, growing=True)
    for name, setting in settings.items():
        others = [found for found in table[name] if found != setting]
        if others:
            raise ValueError(
                f"{path} has rows with {name} {others[0]}, this run has {setting}: write it to another file."
            )
    if table.duplicated(list(labels)).any():
        raise ValueError(f"{path} must have one row per {', '.join(labels[:-1])} and {labels[-1]}, got several.")
    return table


class GrowingTable:
    """Rows that are written as they come, and sorted at the end."""

    def __init__(self, file: Path | None, kept: pd.DataFrame | None, schema: Schema) -> None:
        self._frames = [] if kept is None else [kept]
        self._file, self._schema, self._is_growing = file, schema, False

    def add(self, frame: pd.DataFrame) -> None:
        """Add some rows; when this returns they are in the file."""
        self._frames.append(frame)
        if self._file is None:
            return
        if not self._is_growing:
            with replacing(self._file) as temporary:
                for rows in self._frames:
                    append_rows(temporary, rows, self._schema)
            self._is_growing = True
        else:
            append_rows(self._file, frame, self._schema)

    @property
    def rows(self) -> pd.DataFrame:
        """All rows, as they came."""
        import pandas as pd

        return pd.concat(self._frames, ignore_index=True)

    def sort(self) -> None:
        """Give the file its final form."""
        if self._file and self._is_growing:
            write_table(self._file, self.rows, self._schema)


def placed(codec: AnyCodec, device: torch.device) -> AnyCodec:
    """Return a codec, brought to a device: the torch module that it is, or those that are its attributes."""
    for part in (codec, *getattr(codec, "__dict__", {}).values()):
        if isinstance(part, torch.nn.Module):
            part.to(device)
    return codec


@contextmanager
def growing(file: Path | None, kept: pd.DataFrame | None, schema: Schema) -> Iterator[GrowingTable]:
    """Yield a table that goes on with the rows kept, in `file` if there is one; it is sorted however the block ends."""
    table = GrowingTable(file, kept, schema)
    try:
        yield table
    finally:
        table.sort()


def complete(
    kept: pd.DataFrame | None,
    models: Sequence[str],
    lmbdas: Sequence[float],
    groups: Sequence[tuple[Path, ...]],
    job_of: Callable[[str, float, tuple[Path, ...]], Job],
    measure: Callable[[Job], Any],
    *,
    rows_of: Callable[[Any], pd.DataFrame] = lambda rows: rows,
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
        measure: Returns the rows of a job, or something with more in it.
        rows_of: Returns the rows of what `measure` returned; called here, wherever that was.
        executor: Where to measure.
        schema: Columns of the rows.
        file: Where rows are written whenever a job is finished, if anywhere.
        description: Label of the progress bar.
    """
    done = set() if kept is None else set(kept[LABELS].itertuples(index=False, name=None))
    jobs = []
    for group, model, lmbda in product(groups, models, lmbdas):  # an image's jobs together, so that it may be forgotten
        missing = tuple(path.absolute() for path in group if (model, lmbda, path.stem) not in done)
        if missing:
            jobs.append(job_of(model, lmbda, missing))
    with growing(file, kept, schema) as table:
        for result in map_images(measure, jobs, executor=executor, in_order=False, description=description):
            table.add(rows_of(result))
    paths = sorted(path for group in groups for path in group)
    rows = list(product(models, lmbdas, [path.stem for path in paths]))
    return table.rows.set_index(LABELS).loc[rows].reset_index()
