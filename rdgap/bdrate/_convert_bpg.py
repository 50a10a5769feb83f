"""Make the shipped BPG anchors from the measured points: `python -m rdgap.bdrate._convert_bpg FOLDER`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from .. import _cli
from ..schemas import EVALUATION
from ..tables import write_table
from .anchors import shipped_anchor_path

KODAK_PIXELS = 768 * 512
SOURCES = {"bpg": "kodak_m8.csv", "bpg-m9": "kodak.csv"}
"""Name of each shipped anchor and the measurement that it comes from."""


def convert(measured: pd.DataFrame, codec: str) -> pd.DataFrame:
    """Return measured BPG points of Kodak as an evaluation table.

    A file has a whole number of bytes, so six decimals of bpp determine its size exactly.

    Raises:
        ValueError: If a rate is not that of a file of whole bytes.
    """
    rate_bpp = measured["bpp"].to_numpy()
    num_bytes = np.round(rate_bpp * KODAK_PIXELS / 8)
    error = float(np.abs(num_bytes * 8 / KODAK_PIXELS - rate_bpp).max())
    if not error < 1e-6:
        raise ValueError(f"Rates must be those of files of whole bytes, got one that is {error:g} bpp off.")
    return pd.DataFrame(
        {
            "codec": codec,
            "setting": measured["qp"].astype(float),
            "dataset": measured["dataset"],
            "image": measured["image"],
            "num_pixels": KODAK_PIXELS,
            "bits": num_bytes * 8,
            "rate_kind": "coded",
            "mse": measured["mse"],
            "psnr_db": measured["psnr"],
            "ms_ssim": measured["ms_ssim"],
        }
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Convert the measurements in a folder."""
    arguments = _cli.parser(
        "bdrate._convert_bpg",
        "Write the shipped BPG anchors anew from the points measured with bpgenc.",
        "python -m rdgap.bdrate._convert_bpg ../shared/data/bpg",
    )
    arguments.add_argument("folder", type=Path, help="folder of " + " and ".join(sorted(SOURCES.values())))
    return _cli.run(_convert_folder, arguments, argv)


def _convert_folder(namespace: argparse.Namespace) -> None:
    for codec, name in SOURCES.items():
        write_table(shipped_anchor_path(codec), convert(pd.read_csv(namespace.folder / name), codec), EVALUATION)


if __name__ == "__main__":
    sys.exit(main())
