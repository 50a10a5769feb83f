"""Small evaluation tables and comparisons for the tests of BD-rate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from rdgap.bdrate import (
    CodecGrid,
    Comparison,
    Interpolation,
    MeasureName,
    QualityRange,
    codec_grids,
    compare,
    shipped_anchor_path,
)
from rdgap.schemas import EVALUATION
from rdgap.tables import read_table, write_table


def shipped(name: str, measure: MeasureName = "psnr") -> CodecGrid:
    return codec_grids(read_table(shipped_anchor_path(name), EVALUATION), measure)[name]


def evaluation(codec: str, factor: float = 1.0, images: tuple[str, ...] = ("a", "b", "c")) -> pd.DataFrame:
    """Return an evaluation table whose images have unlike curves and sizes, all rates scaled by `factor`."""
    rows = []
    for number, image in enumerate(images):
        for setting in range(5):
            num_pixels = 1000 * (number + 1)
            bits = factor * num_pixels * 0.1 * (1.8 + 0.1 * number) ** setting
            psnr_db = 27.0 + 0.7 * number + (2.6 + 0.2 * number) * setting - 0.05 * setting**2
            mse = 255**2 * 10 ** (-psnr_db / 10)
            rows.append((codec, float(setting), "small", image, num_pixels, bits, "coded", mse, psnr_db, 0.9))
    return pd.DataFrame(rows, columns=list(EVALUATION)[: len(rows[0])])


def saved(folder: Path, *tables: pd.DataFrame, name: str = "table.csv") -> str:
    write_table(folder / name, pd.concat(tables, ignore_index=True), EVALUATION)
    return str(folder / name)


def comparison(
    anchor: CodecGrid,
    test: CodecGrid,
    interpolation: Interpolation = "pchip",
    quality_range: QualityRange = "common",
    resamples: int = 50,
) -> Comparison:
    (only,) = compare(
        anchor,
        [test],
        interpolation=interpolation,
        quality_range=quality_range,
        resamples=resamples,
        generator=np.random.default_rng(0),
    )
    return only
