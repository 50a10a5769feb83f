"""Make the shipped tables of published points: `python -m rdgap.bdrate._convert_published FOLDER`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from .. import _cli
from ..schemas import PUBLISHED_CURVES, PUBLISHED_IMAGES
from ..tables import write_table
from .published import CURVES_TABLE, IMAGES_TABLE

DATASETS = {
    "kodak": ("kodak", 24),
    "tecnick": ("tecnick", 100),
    "clic_pval": ("clic2018-professional-valid", 41),
    "clic2020-pro-valid-41": ("clic2020-professional-valid", 41),
    "clic2020-professional": ("clic2020-professional-test", 250),
    "clic2020-mobile": ("clic2020-mobile-test", 178),
    "clic21_test": ("clic2021-test", 60),
}
"""Name of each data set in the sources; here, where a name says which of the CLIC sets it is; and its images."""

SGA_BATCH = 5
"""Images in a row of the SGA run on Tecnick (the source's own README)."""


def images(detailed: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's points per image."""
    batched = (detailed["dataset"] == "tecnick") & (detailed["codec"] == "2-layer_syn+SGA")
    return pd.DataFrame(
        {
            "codec": detailed["codec"],
            "dataset": [DATASETS[name][0] for name in detailed["dataset"]],
            "lmbda": detailed["rd_lambda"],
            "instance_id": detailed["instance_id"],
            "images": [SGA_BATCH if batch else 1 for batch in batched],
            "rate_bpp": detailed["bpp"],
            "mse": detailed["mse"],
            "psnr_db": detailed["psnr"],
            "ms_ssim": detailed["ms_ssim"],
            "lpips": detailed["lpips"],
            "source_path": detailed["source_path"],
        }
    )


def curves(compressai: pd.DataFrame, tfc: pd.DataFrame, others: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Return the published curves of codecs that were made for squared error, named by collection and codec."""
    compressai = compressai.loc[(compressai["opt_metric"] != "ms-ssim") & compressai["variant"].isna(), :]
    compressai = compressai.loc[~compressai["codec"].str.contains("_cpu"), :]  # the same points as _cuda
    others = others.loc[~others["source_path"].str.contains("InterDigitalInc/CompressAI"), :]  # copies of the above
    collections = {"compressai": compressai, "tfc": _wide(tfc), "others": others, "paper": paper}
    frames = []
    for collection, frame in collections.items():
        frame = frame.loc[frame["dataset"].isin(list(DATASETS)), :]
        columns = {"psnr_db": "psnr", "ms_ssim": "ms_ssim", "lpips": "lpips"}
        frames.append(
            pd.DataFrame(
                {
                    "codec": [f"{collection}/{codec}" for codec in frame["codec"]],
                    "dataset": [DATASETS[name][0] for name in frame["dataset"]],
                    "images": [DATASETS[name][1] for name in frame["dataset"]],
                    "rate_bpp": frame["bpp"].to_numpy(),
                    **{new: frame[old].to_numpy() if old in frame else float("nan") for new, old in columns.items()},
                    "source_path": frame["source_path"].to_numpy(),
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _wide(tfc: pd.DataFrame) -> pd.DataFrame:
    """Put PSNR and MS-SSIM over RGB, published in files of their own, side by side where their rates agree."""
    tfc = tfc.loc[~tfc["codec"].str.contains("msssim"), :]
    psnr = tfc.loc[tfc["metric"] == "PSNR_sRGB_RGB", :].rename(columns={"value": "psnr"})
    ms_ssim = tfc.loc[tfc["metric"] == "MS-SSIM_sRGB_RGB", :].rename(columns={"value": "ms_ssim"})
    keys = ["codec", "dataset", "bpp"]
    return psnr.drop_duplicates(keys).merge(ms_ssim.drop_duplicates(keys)[[*keys, "ms_ssim"]], on=keys, how="left")


def main(argv: Sequence[str] | None = None) -> int:
    """Convert the published points in a folder."""
    arguments = _cli.parser(
        "bdrate._convert_published",
        "Write the shipped tables of published points anew.",
        "python -m rdgap.bdrate._convert_published ../shared/data/published",
    )
    arguments.add_argument("folder", type=Path, help="folder of compressai.csv, tfc.csv, others.csv and shallow_ntc/")
    return _cli.run(_convert_folder, arguments, argv)


def _convert_folder(namespace: argparse.Namespace) -> None:
    folder = namespace.folder
    collections = [pd.read_csv(folder / f"{name}.csv") for name in ("compressai", "tfc", "others")]
    paper = pd.read_csv(folder / "shallow_ntc" / "aggregate.csv")
    write_table(CURVES_TABLE, curves(collections[0], collections[1], collections[2], paper), PUBLISHED_CURVES)
    write_table(IMAGES_TABLE, images(pd.read_csv(folder / "shallow_ntc" / "detailed.csv")), PUBLISHED_IMAGES)


if __name__ == "__main__":
    sys.exit(main())
