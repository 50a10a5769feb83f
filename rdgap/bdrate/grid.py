"""From evaluation tables to rate-distortion curves: per image, and averaged over images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..schemas import EVALUATION, curve_name
from .delta import RDCurve
from .measures import MeasureName, measure_called, quality_of

if TYPE_CHECKING:
    import pandas as pd

CurveAveraging = Literal["mean quality", "mean distortion"]
"""How images become one point: mean of their qualities (for PSNR, of dB), or the quality of their mean distortion
(for PSNR, of the mean MSE). Rates are averaged in bits per pixel either way."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CodecGrid:
    """Rates and qualities of one codec, for every image at every setting.

    Attributes:
        codec: Name of the codec; followed by the kind of rate where a table holds both kinds.
        rate_kind: "estimated" or "coded".
        dataset: Name of the data set.
        measure: What the quality is.
        images: Names of the images.
        settings: What moves the codec along its curve, ascending.
        num_pixels: Pixels of each image, (images,).
        rate_bpp: (images, settings).
        quality: (images, settings); dB of PSNR or MS-SSIM, or -LPIPS.
        distortion: (images, settings); MSE, `1 - MS-SSIM` or LPIPS.
    """

    codec: str
    rate_kind: str
    dataset: str
    measure: MeasureName
    images: tuple[str, ...]
    settings: tuple[float, ...]
    num_pixels: NDArray[np.int64]
    rate_bpp: NDArray[np.float64]
    quality: NDArray[np.float64]
    distortion: NDArray[np.float64]

    def averaged_curve(self, averaging: CurveAveraging) -> RDCurve:
        """Return the curve of mean bpp and average quality over the images, at each setting.

        Raises:
            ValueError: If it is not a curve, e.g. not monotone.
        """
        weights = np.full((1, len(self.images)), 1 / len(self.images))
        rate_bpp, quality = self.weighted_points(weights, averaging)
        try:
            return RDCurve(rate_bpp=rate_bpp[0], quality=quality[0], measure=self.measure)
        except ValueError as error:
            raise ValueError(f"{self.codec}, averaged over {len(self.images)} images: {error}") from error

    def weighted_points(
        self, weights: NDArray[np.float64], averaging: CurveAveraging
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return rates and qualities, (averages, settings), for rows of weights of the images that sum to one."""
        if averaging == "mean quality":
            return weights @ self.rate_bpp, weights @ self.quality
        return weights @ self.rate_bpp, quality_of(self.measure, weights @ self.distortion)

    def image_curve(self, image: str) -> RDCurve:
        """Return the curve of one image.

        Raises:
            ValueError: If it is not a curve, e.g. not monotone.
        """
        row = self.images.index(image)
        try:
            return RDCurve(rate_bpp=self.rate_bpp[row], quality=self.quality[row], measure=self.measure)
        except ValueError as error:
            raise ValueError(f"{self.codec}: {error}") from error

    def restricted_to(self, images: Collection[str]) -> CodecGrid:
        """Return the grid of those images only."""
        rows = [row for row, image in enumerate(self.images) if image in images]
        return replace(
            self,
            images=tuple(self.images[row] for row in rows),
            num_pixels=self.num_pixels[rows],
            rate_bpp=self.rate_bpp[rows],
            quality=self.quality[rows],
            distortion=self.distortion[rows],
        )


class _Row(NamedTuple):
    """What an evaluation table tells a grid; fields named as its columns, but for the measure's."""

    codec: str
    rate_kind: str
    dataset: str
    image: str
    setting: float
    num_pixels: int
    bits: float
    psnr_db: float
    measured: float


def codec_grids(table: pd.DataFrame, measure: MeasureName = "psnr") -> dict[str, CodecGrid]:
    """Split an evaluation table into one grid per codec, encoder and kind of rate, by name, in the table's order.

    Args:
        table: Columns of `rdgap.schemas.EVALUATION`.
        measure: What to compare at equal quality of.

    Raises:
        ValueError: If a codec has a row twice, lacks an image at some setting (its averages would be over different
            images), mixes data sets, has an image of changing size, or was not measured by `measure`.
    """
    of_measure = measure_called(measure)
    may_be_missing = EVALUATION[of_measure.column].default is not None
    if of_measure.column not in table or (may_be_missing and table[of_measure.column].isna().to_numpy().all()):
        raise ValueError(
            f"The table must have {of_measure.label} to compare it, got none; `python -m rdgap.evaluation --help` "
            "tells how to measure it."
        )
    if "encoder" in table:
        table = table.assign(codec=[curve_name(row) for row in table.to_dict("records")])
    columns = [table[name].tolist() for name in (*_Row._fields[:-1], of_measure.column)]
    rows_of: dict[tuple[str, str], list[_Row]] = {}
    for row in map(_Row._make, zip(*columns, strict=True)):
        rows_of.setdefault((row.codec, row.rate_kind), []).append(row)
    kinds = Counter(codec for codec, _ in rows_of)
    names = {key: key[0] if kinds[key[0]] == 1 else f"{key[0]} ({key[1]})" for key in rows_of}
    return {names[key]: _grid(names[key], rows, measure) for key, rows in rows_of.items()}


def _grid(name: str, rows: Sequence[_Row], measure: MeasureName) -> CodecGrid:
    datasets = sorted({row.dataset for row in rows})
    if len(datasets) > 1:
        raise ValueError(f"{name}: all rows of a codec must be of one data set, got {', '.join(datasets)}.")
    points: dict[tuple[str, float], _Row] = {}
    num_pixels: dict[str, int] = {}
    for row in rows:
        where = f"{row.image} at setting {row.setting:g}"
        if (row.image, row.setting) in points:
            raise ValueError(f"{name}: an image must have one row per setting, got two of {where}.")
        if num_pixels.setdefault(row.image, row.num_pixels) != row.num_pixels:
            raise ValueError(f"{name}: an image must keep its size, got another for {where}.")
        if np.isnan(row.measured):
            label = measure_called(measure).label
            raise ValueError(f"{name}: every image must have a {label}, got none for {where}.")
        points[row.image, row.setting] = row
    images, settings = sorted(num_pixels), sorted({row.setting for row in rows})
    lacking = [key for key in product(images, settings) if key not in points]
    if lacking:
        raise ValueError(
            f"{name}: every image must be there at every setting, got no {lacking[0][0]} at setting {lacking[0][1]:g} "
            f"({len(lacking)} of {len(images) * len(settings)} are missing)."
        )
    table = [[points[image, setting] for setting in settings] for image in images]
    distortion = measure_called(measure).distortion(np.array([[point.measured for point in line] for line in table]))
    # The PSNR of a table is taken as it stands: where a row is itself an average of images, it is their mean of dB.
    psnr_db = np.array([[point.psnr_db for point in line] for line in table])
    return CodecGrid(
        codec=name,
        rate_kind=rows[0].rate_kind,
        dataset=datasets[0],
        measure=measure,
        images=tuple(images),
        settings=tuple(settings),
        num_pixels=np.array([num_pixels[image] for image in images]),
        rate_bpp=np.array([[point.bits / point.num_pixels for point in line] for line in table]),
        quality=psnr_db if measure == "psnr" else quality_of(measure, distortion),
        distortion=distortion,
    )
