"""Rate and distortion of every shipped model on Kodak, beside JPEG, WebP, BPG and the paper's two-layer model.

    python analysis/kodak.py --images KODAK      # measures: about 20 minutes on two cores
    python analysis/kodak.py                     # only sums up the committed tables again

Writes `tables/kodak_learned.csv`, `tables/kodak_conventional.csv` (where missing) with provenance beside them,
`tables/kodak_lagrangian.csv`, and the block between the markers in the top-level README.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from rdgap import _cli
from rdgap._files import replacing, sha256, write_json, write_text
from rdgap.bdrate import shipped_anchor_path
from rdgap.bdrate.published import IMAGES_TABLE
from rdgap.evaluation import OperatingPoint, average, best_lagrangian, conventional_points, evaluate, learned_point
from rdgap.images import image_paths
from rdgap.tables import EVALUATION, PUBLISHED_IMAGES, read_table, write_table
from rdgap.training.results import code_version
from rdgap.zoo import load_codec, model_directory, trained_lmbdas, trained_models, weights_name

HERE = Path(__file__).resolve().parent
README = HERE.parent / "README.md"
BEGIN, END = "<!-- kodak table: python analysis/kodak.py -->", "<!-- end of kodak table -->"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--images", type=Path, help="folder of the 24 Kodak images; without it nothing is measured")
    arguments.add_argument("--tables", type=Path, default=HERE / "tables", help="folder of the tables")
    arguments.add_argument("--smoke", action="store_true", help="two images and two settings, to try the whole path")
    _cli.add_device(arguments)
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    if options.smoke and options.tables == HERE / "tables":
        raise ValueError("`--smoke` needs `--tables FOLDER`, because it would overwrite the real tables.")
    if options.images:
        images = image_paths([options.images])[: 2 if options.smoke else None]
        device = _cli.device(options.device)
        _measure(options.tables / "kodak_learned.csv", _learned(device)[: 2 if options.smoke else None], images)
        if not (options.tables / "kodak_conventional.csv").exists():
            points = [point for name in ("jpeg", "webp") for point in conventional_points(name)]
            _measure(options.tables / "kodak_conventional.csv", points[:: 20 if options.smoke else 1], images)
    summary = summarize(options.tables)
    with replacing(options.tables / "kodak_lagrangian.csv") as temporary:
        summary.to_csv(temporary, index=False, lineterminator="\n")
    print(markdown(summary))
    if not options.smoke:
        before, rest = README.read_text(encoding="utf-8").split(BEGIN)
        write_text(README, f"{before}{BEGIN}\n{markdown(summary)}\n{END}{rest.split(END)[1]}")


def _learned(device: torch.device) -> list[OperatingPoint]:
    pairs = [(model, lmbda) for model in trained_models() for lmbda in trained_lmbdas(model)]
    return [
        learned_point(load_codec(model, lmbda, device=device), name=model, lmbda=lmbda, device=device)
        for model, lmbda in pairs
    ]


def _measure(path: Path, points: Sequence[OperatingPoint], images: Sequence[Path]) -> None:
    began = time.monotonic()
    table = evaluate(points, images).assign(dataset="kodak")
    write_table(path, table, EVALUATION)
    used = sorted({(point.codec, point.setting) for point in points})
    weights = [model_directory() / f"{weights_name(codec, setting)}.safetensors" for codec, setting in used]
    provenance = {
        "command": ["python", "analysis/kodak.py", "--images", "KODAK"],
        "commit": code_version(),
        "images_sha256": {image.name: sha256(image) for image in images},
        "weights_sha256": {file.name: sha256(file) for file in weights if file.exists()},
        "torch": torch.__version__,
        "machine": platform.machine(),
        "seconds": round(time.monotonic() - began),
    }
    write_json(path.with_suffix(".json"), provenance)


def summarize(tables: Path) -> pd.DataFrame:
    """Return L = bpp + lmbda * mse, mean over the images, of each method (rows) at each trained lmbda (columns).

    Conventional codecs choose for each image the quality that costs least at that lmbda.
    """
    learned = read_table(tables / "kodak_learned.csv", EVALUATION)
    costs = [
        {"method": row["codec"], "lmbda": row["setting"], "lagrangian_bpp": row["lagrangian_bpp"]}
        for row in average(learned).to_dict("records")
    ]
    lmbdas = sorted({row["lmbda"] for row in costs})
    bpg = read_table(shipped_anchor_path("bpg-m9"), EVALUATION)
    coded = pd.concat([read_table(tables / "kodak_conventional.csv", EVALUATION), bpg]).assign(dataset="kodak")
    coded = coded.loc[coded["image"].isin(list(learned["image"])), :]
    for lmbda in lmbdas:
        for row in best_lagrangian(coded, lmbda).to_dict("records"):
            costs.append({"method": row["codec"], "lmbda": lmbda, "lagrangian_bpp": row["lagrangian_bpp"]})
    published: dict[float, list[float]] = {}
    for row in read_table(IMAGES_TABLE, PUBLISHED_IMAGES).to_dict("records"):
        if row["codec"] == "2-layer_syn" and row["dataset"] == "kodak":
            published.setdefault(row["lmbda"], []).append(row["rate_bpp"] + row["lmbda"] * row["mse"])
    for lmbda in lmbdas:
        mean = sum(published[lmbda]) / len(published[lmbda])
        costs.append({"method": "two-layer of the paper", "lmbda": lmbda, "lagrangian_bpp": mean})
    return pd.DataFrame(costs)


def markdown(summary: pd.DataFrame) -> str:
    """Return the table of the README."""
    costs: dict[str, dict[float, float]] = {}
    for row in summary.to_dict("records"):
        costs.setdefault(row["method"], {})[row["lmbda"]] = row["lagrangian_bpp"]
    lmbdas = sorted(set(summary["lmbda"]))
    lines = ["| L = bpp + lmbda * mse on Kodak | " + " | ".join(f"lmbda {lmbda:g}" for lmbda in lmbdas) + " |"]
    lines.append("| --- |" + " --- |" * len(lmbdas))
    for method, row in costs.items():
        cells = [f"{row[lmbda]:.3f}" if lmbda in row else "" for lmbda in lmbdas]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
