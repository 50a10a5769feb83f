"""BD-rates of the paper's methods, computed again from the published points: over BPG on Kodak, and of SGA over none.

    python analysis/published_bd_rate.py

Reads only tables that travel with the library. Writes `tables/published_bd_rate.csv` (the schema `rdgap.schemas.BD`),
`tables/published_bd_rate.md` with a caption that defines each number, `tables/published_baselines_bd_rate.csv`
(codecs of which only averaged curves were published, so without intervals), `tables/published_savings.csv`, the rate
saved over BPG at each PSNR, and the block between the markers in the top-level README.
The anchor is BPG 4:4:4 at bpgenc's default `-m 8`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
from _experiment import check_smoke, fill_readme, parser

from rdgap import _cli
from rdgap._files import replacing, write_text
from rdgap.bdrate import (
    SHIPPED_ANCHORS,
    CodecGrid,
    Interpolation,
    MeasureName,
    RDCurve,
    bd_quality,
    bd_rate,
    codec_grids,
    common_quality_range,
    compare,
    in_batches,
    published_curve,
    published_grids,
    savings_percent,
    shipped_anchor_path,
)
from rdgap.bdrate.report import caption, cells, frame, markdown
from rdgap.schemas import BD, EVALUATION
from rdgap.tables import read_table, write_table

BEGIN = "<!-- published BD-rate table: python analysis/published_bd_rate.py -->"
END = "<!-- end of published BD-rate table -->"
RESAMPLES = 10000
NONE, SGA, JPEG_LIKE = "2-layer_syn", "2-layer_syn+SGA", "JPEG-like_syn"
CLIC = "clic2018-professional-valid"
INTERPOLATIONS: tuple[Interpolation, ...] = ("pchip", "akima", "cubic")
BASELINES = {
    "kodak": (
        "tfc/balle-2017-iclr-opt-mse",
        "tfc/balle-2018-iclr-opt-mse",
        "tfc/minnen-2018-neurips-no-context",
        "tfc/minnen-2018-neurips-opt-mse",
        "tfc/minnen-2020-icip",
        "compressai/paper-elic2022_mse",
        "others/sga",
        "compressai/vtm",
        "compressai/webp",
        "compressai/jpeg",
        "paper/JPEG-like_syn",
        "paper/2-layer_syn",
        "paper/2-layer_syn+SGA",
    ),
    "tecnick": (
        "tfc/balle-2017-iclr-opt-mse",
        "tfc/balle-2018-iclr-opt-mse",
        "tfc/minnen-2018-neurips-no-context",
        "tfc/minnen-2018-neurips-opt-mse",
        "tfc/minnen-2020-icip",
        "others/sga",
        "tfc/webp",
        "tfc/jpeg420",
        "paper/JPEG-like_syn",
        "paper/2-layer_syn",
        "paper/2-layer_syn+SGA",
    ),
}
"""Codecs on each data set of which averaged curves are published; the paper's own among them, for comparison."""

BPG_CURVES = {"kodak": "compressai/bpg_444_x265_ycbcr", "tecnick": "tfc/bpg444"}
"""Published averaged curve of BPG on each data set."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """One table: an anchor, the codecs over it, and what to call the anchor."""

    title: str
    anchor: CodecGrid
    tests: tuple[CodecGrid, ...]
    what: str


def main(argv: Sequence[str] | None = None) -> int:
    """Compute the tables."""
    arguments = parser(__doc__, smoke="20 resamples")
    _cli.add_seed(arguments)
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    check_smoke(options)
    frames, texts = [], ["# BD-rates of the published points", "", "By `python analysis/published_bd_rate.py`."]
    for measure in get_args(MeasureName):
        for block in blocks(measure):
            comparisons = [
                comparison
                for kind in INTERPOLATIONS
                for comparison in compare(
                    block.anchor,
                    block.tests,
                    interpolation=kind,
                    resamples=20 if options.smoke else RESAMPLES,
                    generator=np.random.default_rng(options.seed),
                )
            ]
            frames.append(frame(comparisons))
            definition = caption(comparisons, block.what)
            texts += ["", f"## {block.title}", "", markdown(cells(comparisons), definition).rstrip()]
    write_table(options.tables / "published_bd_rate.csv", pd.concat(frames, ignore_index=True), BD)
    write_text(options.tables / "published_bd_rate.md", "\n".join(texts) + "\n")
    _write(options.tables / "published_baselines_bd_rate.csv", baselines())
    _write(options.tables / "published_savings.csv", savings())
    print("\n".join(texts))
    fill_readme(BEGIN, END, summary(options.tables), tables=options.tables)


def summary(tables: Path) -> str:
    """Return the table of the README: PSNR, PCHIP, every averaging with its interval."""
    table = read_table(tables / "published_bd_rate.csv", BD)
    table = table.loc[(table["measure"] == "psnr") & (table["interpolation"] == "pchip"), :]
    ways = {"mean quality": "mean PSNR", "mean distortion": "PSNR of mean MSE", "images": "mean of images' BD-rates"}
    lines = ["| BD-rate [%] | anchor | data set | range, mean PSNR | " + " | ".join(ways.values()) + " |"]
    lines.append("| --- |" + " --- |" * (3 + len(ways)))
    rows: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {}
    for row in table.to_dict("records"):
        rows.setdefault((row["codec"], row["anchor"], row["dataset"]), {})[row["averaging"]] = row
    for (codec, anchor, dataset), of_way in sorted(rows.items(), key=lambda item: (item[0][1] != "bpg", item[0])):
        numbers = [
            f"{of_way[way]['bd_rate_percent']:+.2f} "
            f"[{of_way[way]['bd_rate_low_percent']:+.1f}, {of_way[way]['bd_rate_high_percent']:+.1f}]"
            for way in ways
        ]
        first = of_way["mean quality"]
        span = f"{first['quality_low']:.2f}..{first['quality_high']:.2f} dB"
        lines.append(f"| {codec} | {anchor} | {dataset} | {span} | " + " | ".join(numbers) + " |")
    return "\n".join(lines)


def blocks(measure: MeasureName) -> list[Block]:
    """Return the comparisons of single images that a measure allows: over BPG there is no LPIPS."""
    found = []
    kodak = published_grids("kodak", measure)
    label = {"psnr": "PSNR", "ms-ssim": "MS-SSIM", "lpips": "LPIPS"}[measure]
    if measure != "lpips":
        bpg = codec_grids(read_table(shipped_anchor_path("bpg"), EVALUATION), measure)["bpg"]
        tests = tuple(kodak[name] for name in (NONE, SGA, JPEG_LIKE))
        title = f"Methods of the paper over BPG on Kodak, {label}"
        found.append(Block(title=title, anchor=bpg, tests=tests, what=SHIPPED_ANCHORS["bpg"]))
    for dataset in ("kodak", "tecnick", CLIC):
        grids = published_grids(dataset, measure)
        batched = dataset == "tecnick"
        anchor = in_batches(grids[NONE], 5) if batched else grids[NONE]
        what = "the same model without iterative encoding" + (
            "; SGA was published as means of five images in a row, each counted as one image here, and so is the anchor"
            if batched
            else ""
        )
        found.append(Block(title=f"SGA on {dataset}, {label}", anchor=anchor, tests=(grids[SGA],), what=what))
    return found


def baselines() -> pd.DataFrame:
    """Return PSNR BD-rates over BPG of averaged curves alone, as published: mean bpp and mean of dB."""
    rows = []
    for dataset, codecs in BASELINES.items():
        anchor = _averaged_bpg() if dataset == "kodak" else published_curve(BPG_CURVES[dataset], dataset)
        for codec in codecs:
            curve = published_curve(codec, dataset)
            for kind in INTERPOLATIONS:
                rate = bd_rate(anchor, curve, interpolation=kind)
                rows.append(
                    {
                        "codec": codec,
                        "anchor": "bpg" if dataset == "kodak" else BPG_CURVES[dataset],
                        "dataset": dataset,
                        "interpolation": kind,
                        "psnr_low_db": rate.quality_low,
                        "psnr_high_db": rate.quality_high,
                        "bd_rate_percent": rate.bd_rate_percent,
                        "bd_psnr_db": bd_quality(anchor, curve, interpolation=kind).bd_quality,
                    }
                )
    return pd.DataFrame(rows)


def savings() -> pd.DataFrame:
    """Return the rate saved over BPG on Kodak at each PSNR, every quarter of a dB and at a codec's own points."""
    anchor, rows = _averaged_bpg(), []
    for codec in BASELINES["kodak"]:
        curve = published_curve(codec, "kodak")
        low, high = common_quality_range(anchor, curve)
        own = curve.quality[(curve.quality >= low) & (curve.quality <= high)]
        grid = np.arange(np.ceil(4 * low), np.floor(4 * high) + 1) / 4
        for psnr_db in np.unique([*grid, *own]):
            saved = float(savings_percent(anchor, curve, psnr_db, interpolation="pchip"))
            rows.append(
                {"codec": codec, "psnr_db": psnr_db, "savings_percent": saved, "is_own_point": int(psnr_db in own)}
            )
    return pd.DataFrame(rows)


def _averaged_bpg() -> RDCurve:
    bpg = codec_grids(read_table(shipped_anchor_path("bpg"), EVALUATION))["bpg"]
    return bpg.averaged_curve("mean quality")


def _write(path: Path, table: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    sys.exit(main())
