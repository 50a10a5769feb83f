"""What the figures share: reading tables, how codecs look and what they are called, and writing pictures.

Points measured here are drawn solid with filled markers, published ones dotted with hollow markers, conventional codecs
in gray without markers. A codec has the same colour in every figure, whoever trained it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rdgap._plots import STYLE, look_of, save
from rdgap.bdrate import CodecGrid, RDCurve, codec_grids, published_curve, shipped_anchor_path
from rdgap.bdrate.measures import MeasureName
from rdgap.schemas import EVALUATION
from rdgap.tables import Schema, read_table

ROOT = Path(__file__).resolve().parent.parent
TABLES = ROOT / "analysis" / "tables"
OUT = ROOT / "figures" / "out"
DPI = 200  # of the pictures that are committed: sharp at column width

MAKERS = {
    "kodak_gaps_means.csv": "kodak_gaps",
    "kodak_gaps_differences.csv": "kodak_gaps",
    "known_estimates.csv": "known_sources",
    "known_refits.csv": "known_sources",
    "latent_curvature_paths.csv": "latent_curvature",
    "published_savings.csv": "published_bd_rate",
    "published_baselines_bd_rate.csv": "published_bd_rate",
    "kodak_learned.csv": "kodak",
    "kodak_conventional.csv": "kodak",
    "kodak_bd_rate.csv": "kodak",
    "tecnick_learned.csv": "tecnick_clic",
    "clic2018-professional-valid_learned.csv": "tecnick_clic",
    "ablations.csv": "ablations",
    "sga_bd_rate.csv": "ablations",
    "gaps_along_training_means.csv": "gaps_along_training",
}
"""Which experiment writes a table, where that has not its name."""

PUBLISHED: Mapping[str, tuple[str, str]] = {
    "paper/2-layer_syn": ("two-layer", "two-layer, paper"),
    "paper/2-layer_syn+SGA": ("two-layer", "two-layer + SGA, paper"),
    "paper/JPEG-like_syn": ("jpeg-like", "JPEG-like, paper"),
    "tfc/balle-2017-iclr-opt-mse": ("factorized", "factorized, Ballé 2017"),
    "tfc/balle-2018-iclr-opt-mse": ("balle2018", "hyperprior, Ballé 2018"),
    "tfc/minnen-2018-neurips-no-context": ("mean-scale", "mean-scale, Minnen 2018"),
    "tfc/minnen-2020-icip": ("charm", "CHARM, Minnen 2020"),
    "compressai/paper-elic2022_mse": ("elic", "ELIC, He 2022"),
    "others/mbt2018": ("mean-scale", "mean-scale, Yang 2020"),
    "others/sga": ("mean-scale", "mean-scale + SGA, Yang 2020"),
    "compressai/bpg_444_x265_ycbcr": ("bpg", "BPG 4:4:4"),
    "tfc/bpg444": ("bpg", "BPG 4:4:4"),
    "compressai/vtm": ("vtm", "VTM"),
    "compressai/webp": ("webp", "WebP"),
    "compressai/jpeg": ("jpeg", "JPEG"),
    "tfc/jpeg420": ("jpeg", "JPEG"),
}
"""Published codecs by the names of their tables: whose look they have, and what they are called."""

GAP_TERMS = {
    "neg_log_gamma_upper": ("$-\\log\\,\\Gamma$ (upper bound)", "#4c5b6b"),
    "approximation_gap": ("approximation gap", "#e0a458"),
    "amortization_gap_lower": ("amortization gap (lower bound)", "#b5443c"),
}
"""The terms of the decomposition, from below, with their labels and colours."""

CONVENTIONAL: Mapping[str, Any] = {"bpg": "--", "vtm": (0, (5, 1, 1, 1)), "webp": "-.", "jpeg": "-"}


class MissingTableError(ValueError):
    """A table that a figure reads has not been measured yet."""


def read(name: str, schema: Schema | None = None) -> pd.DataFrame:
    """Read a committed table.

    Raises:
        MissingTableError: If it is not there; the message says what makes it.
    """
    path = TABLES / name
    if not path.exists():
        maker = MAKERS.get(name, path.stem)
        raise MissingTableError(f"analysis/tables/{name} is not there yet; `python analysis/{maker}.py` makes it.")
    return read_table(path, schema) if schema else pd.read_csv(path)


def measured_grids(dataset: str = "kodak", measure: MeasureName = "psnr") -> dict[str, CodecGrid]:
    """Return every model's curve on a data set by name; none where it was not measured, or not by this measure.

    A model of one lmbda has no curve.
    """
    try:
        table = read(f"{dataset}_learned.csv", EVALUATION)
    except MissingTableError:
        return {}
    column = {"psnr": "psnr_db", "ms-ssim": "ms_ssim", "lpips": "lpips"}[measure]
    table = table.loc[table.groupby("codec")[column].transform(lambda values: values.notna().all()), :]
    table = table.loc[table.groupby("codec")["setting"].transform("nunique") > 1, :]
    return codec_grids(table, measure) if len(table) else {}


def bpg_curve(averaging: Any = "mean quality") -> RDCurve:
    """Return BPG (4:4:4, `-m 8`) on Kodak."""
    return codec_grids(read_table(shipped_anchor_path("bpg"), EVALUATION))["bpg"].averaged_curve(averaging)


def measured_style(codec: str, points: int = 3) -> dict[str, Any]:
    """Return the look of a codec measured here, without a line where it has too few points for a curve."""
    line = {"linestyle": "none"} if points < 3 else {}
    return {**look_of(codec), "label": codec, "zorder": 3, **line}


def published_style(codec: str) -> dict[str, Any]:
    """Return the look of published points."""
    family, label = PUBLISHED[codec]
    look = look_of(family)
    if family in CONVENTIONAL:
        return {"color": look["color"], "label": label, "linestyle": CONVENTIONAL[family], "linewidth": 1.0}
    marker = "*" if "SGA" in label else look["marker"]
    size = 6 if marker == "*" else None
    return {
        **look, "marker": marker, "markersize": size, "markerfacecolor": "white", "markeredgewidth": 0.8,
        "linestyle": ":", "linewidth": 1.0, "label": label,
    }  # fmt: skip


def draw_published(axes: Axes, codec: str, dataset: str, measure: MeasureName = "psnr") -> None:
    """Draw a published curve."""
    curve = published_curve(codec, dataset, measure)
    axes.plot(curve.rate_bpp, shown(curve.quality, measure), **published_style(codec))


def shown(quality: Any, measure: MeasureName) -> Any:
    """Return a quality as axes show it: LPIPS itself, less is better."""
    return -quality if measure == "lpips" else quality


def tidy(axes: Axes) -> None:
    """Give axes a pale grid behind the curves and no box."""
    axes.grid(color="0.9", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def write(draw: Callable[[], Figure], name: str, out: Path) -> None:
    """Draw a figure and write it as .png and .pdf.

    Raises:
        MissingTableError: If a table is not there.
    """
    with mpl.rc_context(STYLE):
        figure = draw()
        for suffix in (".png", ".pdf"):
            save(figure, out / f"{name}{suffix}", DPI)


def main(draw: Callable[[], Figure], file: str) -> int:
    """Write the figure of the script `file`; a table that is missing is one line and exit code 2."""
    arguments = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    arguments.add_argument("--out", type=Path, default=OUT, help="folder of the pictures")
    try:
        write(draw, Path(file).stem, arguments.parse_args().out)
    except MissingTableError as error:
        print(f"{Path(file).name}: {error}", file=sys.stderr)
        return 2
    return 0
