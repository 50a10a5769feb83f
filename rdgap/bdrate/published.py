"""Published rate-distortion points: the paper's per image, its baselines' and conventional codecs' as averaged curves.

The tables lie beside the measured anchors, as `anchors/README.md` tells; each row names the file that it comes from.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..schemas import PUBLISHED_CURVES, PUBLISHED_IMAGES
from ..tables import read_table
from .delta import RDCurve
from .grid import CodecGrid
from .measures import MeasureName, measure_called, quality_of

if TYPE_CHECKING:
    import pandas as pd

ANCHORS = Path(__file__).parent / "anchors"
IMAGES_TABLE = ANCHORS / "published_images.csv"
CURVES_TABLE = ANCHORS / "published_curves.csv"


def published_grids(dataset: str, measure: MeasureName = "psnr") -> dict[str, CodecGrid]:
    """Return the paper's own methods on a data set, image by image, by name.

    Images of Kodak have their usual names; those of the others are numbered, and have an unknown number of pixels,
    written as 0. `2-layer_syn+SGA` on Tecnick was published in batches of five images: compare `in_batches`.

    Args:
        dataset: "kodak", "tecnick" or "clic2018-professional-valid".
        measure: What the quality is.

    Raises:
        ValueError: If there is no such data set.
    """
    table = _images()
    names = sorted(set(table["dataset"]))
    if dataset not in names:
        raise ValueError(f"The paper's points per image are of {', '.join(names)}, got {dataset!r}.")
    rows = table.loc[table["dataset"] == dataset, :]
    return {codec: _grid(codec, dataset, rows.loc[rows["codec"] == codec, :], measure) for codec in set(rows["codec"])}


def published_curve(codec: str, dataset: str, measure: MeasureName = "psnr") -> RDCurve:
    """Return a published curve, averaged over a data set.

    MS-SSIM in dB is that of the mean MS-SSIM, which is what was published.

    Raises:
        ValueError: If there is no such curve, or it was not published by `measure`.
    """
    table = _curves()
    codecs = sorted(set(table.loc[table["dataset"] == dataset, "codec"]))
    if codec not in codecs:
        known = ", ".join(codecs) or f"none on that data set, but on {', '.join(sorted(set(table['dataset'])))}"
        raise ValueError(f"The published curves on {dataset} are {known}; got {codec!r}.")
    rows = table.loc[(table["dataset"] == dataset) & (table["codec"] == codec), :]
    column = "psnr_db" if measure == "psnr" else measure_called(measure).column
    measured = rows[column].to_numpy(dtype=np.float64)
    quality = measured if measure == "psnr" else quality_of(measure, measure_called(measure).distortion(measured))
    return RDCurve(rate_bpp=rows["rate_bpp"].to_numpy(dtype=np.float64), quality=quality, measure=measure)


def in_batches(grid: CodecGrid, size: int) -> CodecGrid:
    """Average consecutive images, `size` at a time, to compare with points that were published so.

    As they were: of PSNR the mean of dB, of MS-SSIM (and LPIPS) the mean itself, of which dB are taken here.

    Raises:
        ValueError: If the images do not fill the batches.
    """
    count, rest = divmod(len(grid.images), size)
    if rest:
        raise ValueError(f"{grid.codec} must have a multiple of {size} images, got {len(grid.images)}.")

    def mean(values: np.ndarray) -> np.ndarray:
        return values.reshape(count, size, -1).mean(axis=1)

    return CodecGrid(
        codec=grid.codec,
        rate_kind=grid.rate_kind,
        dataset=grid.dataset,
        measure=grid.measure,
        images=tuple(f"{number:03d}" for number in range(count)),
        settings=grid.settings,
        num_pixels=np.zeros(count, dtype=np.int64),
        rate_bpp=mean(grid.rate_bpp),
        quality=mean(grid.quality) if grid.measure == "psnr" else quality_of(grid.measure, mean(grid.distortion)),
        distortion=mean(grid.distortion),
    )


def _grid(codec: str, dataset: str, rows: pd.DataFrame, measure: MeasureName) -> CodecGrid:
    rows = rows.sort_values(["instance_id", "lmbda"])
    settings = tuple(sorted(set(rows["lmbda"])))
    numbers = sorted(set(rows["instance_id"]))

    def column(name: str) -> np.ndarray:
        return rows[name].to_numpy(dtype=np.float64).reshape(len(numbers), len(settings))

    distortion = measure_called(measure).distortion(column(measure_called(measure).column))
    is_kodak = dataset == "kodak"
    return CodecGrid(
        codec=codec,
        rate_kind="estimated",
        dataset=dataset,
        measure=measure,
        images=tuple(f"kodim{number + 1:02d}" if is_kodak else f"{number:03d}" for number in numbers),
        settings=settings,
        num_pixels=np.full(len(numbers), 768 * 512 if is_kodak else 0),
        rate_bpp=column("rate_bpp"),
        quality=column("psnr_db") if measure == "psnr" else quality_of(measure, distortion),
        distortion=distortion,
    )


@cache
def _images() -> pd.DataFrame:
    return read_table(IMAGES_TABLE, PUBLISHED_IMAGES)


@cache
def _curves() -> pd.DataFrame:
    return read_table(CURVES_TABLE, PUBLISHED_CURVES)
