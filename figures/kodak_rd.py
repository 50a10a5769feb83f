"""Rate-distortion curves on Kodak: the shipped models, JPEG, WebP, BPG, and the paper's published points.

python figures/kodak_rd.py        # reads analysis/tables, writes figures/out/kodak_rd.png and .pdf
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from rdgap._plots import COLUMN_WIDTH_INCHES, STYLE, save
from rdgap.bdrate import shipped_anchor_path
from rdgap.bdrate.published import IMAGES_TABLE
from rdgap.tables import EVALUATION, PUBLISHED_IMAGES, read_table

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "figures" / "out"
STYLES: dict[str, dict[str, Any]] = {
    "two-layer-lite": {"color": "#c1272d", "marker": "o"},
    "jpeg-like-lite": {"color": "#0072b2", "marker": "s"},
    "mean-scale-lite": {"color": "#009e73", "marker": "D"},
    "two-layer, paper": {"color": "#c1272d", "linestyle": ":"},
    "JPEG-like, paper": {"color": "#0072b2", "linestyle": ":"},
    "bpg": {"color": "0.2", "linestyle": "--"},
    "webp": {"color": "0.45", "linestyle": "-."},
    "jpeg": {"color": "0.65"},
}
PUBLISHED = {"2-layer_syn": "two-layer, paper", "JPEG-like_syn": "JPEG-like, paper"}


def curves() -> dict[str, list[tuple[float, float]]]:
    """Return (mean rate in bpp, mean PSNR in dB) at each setting of each codec, rising."""
    points: dict[tuple[str, float], list[tuple[float, float]]] = {}
    tables = [ROOT / "analysis" / "tables" / f"kodak_{kind}.csv" for kind in ("learned", "conventional")]
    for path in (*tables, shipped_anchor_path("bpg")):
        for row in read_table(path, EVALUATION).to_dict("records"):
            measured = (row["bits"] / row["num_pixels"], row["psnr_db"])
            points.setdefault((row["codec"], row["setting"]), []).append(measured)
    for row in read_table(IMAGES_TABLE, PUBLISHED_IMAGES).to_dict("records"):
        if row["codec"] in PUBLISHED and row["dataset"] == "kodak":
            points.setdefault((PUBLISHED[row["codec"]], row["lmbda"]), []).append((row["rate_bpp"], row["psnr_db"]))
    means: dict[str, list[tuple[float, float]]] = {}
    for (codec, _), measured in points.items():
        rate, psnr = (sum(column) / len(column) for column in zip(*measured, strict=True))
        means.setdefault(codec, []).append((rate, psnr))
    return {codec: sorted(curve) for codec, curve in means.items()}


def draw(of_codec: dict[str, list[tuple[float, float]]]) -> Figure:
    """Draw the curves; measured here solid with markers or gray, published dotted."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN_WIDTH_INCHES, 3.2), layout="constrained")
        axes = figure.subplots()
        for codec, style in STYLES.items():
            axes.plot(*zip(*of_codec[codec], strict=True), label=codec, **style)
        axes.set(xlim=(0, 1.8), ylim=(25.5, 38.5), xlabel="Rate [bpp], mean of 24", ylabel="PSNR [dB], mean of 24")
        axes.grid(color="0.9", linewidth=0.5)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, loc="lower right", handlelength=2.2, labelspacing=0.3)
    return figure


def main() -> None:
    """Write the figure."""
    for suffix in ("png", "pdf"):
        save(draw(curves()), OUT / f"kodak_rd.{suffix}")


if __name__ == "__main__":
    main()
