"""Rate and distortion of every shipped model on Kodak, beside JPEG, WebP, BPG and the paper's two-layer model.

python analysis/kodak.py --images KODAK      # measures what is missing: a minute for each model and lmbda on a core
python analysis/kodak.py                     # only sums up the committed tables again

Models that the zoo has gained since are added; rows of weights that have changed are measured again. Writes
`tables/kodak_learned.csv`, `tables/kodak_conventional.csv` (where missing) with provenance beside them,
`tables/kodak_lagrangian.csv`, `tables/kodak_bd_rate.csv` (over BPG; a codec needs two lmbdas), the blocks between the
markers in the top-level README, and a row in the card of each model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from _experiment import TABLES, check_smoke, every_model, few_models, fill_readme, parser, provenance, weights_of

from rdgap import _cli
from rdgap._files import replacing, sha256, write_json, write_text
from rdgap.bdrate import CodecGrid, Interpolation, codec_grids, compare, shipped_anchor_path
from rdgap.bdrate.published import IMAGES_TABLE
from rdgap.bdrate.report import frame
from rdgap.evaluation import average, best_lagrangian, conventional_points, evaluate, learned_point
from rdgap.evaluation.measurement import METRICS
from rdgap.images import image_paths
from rdgap.schemas import BD, EVALUATION, PUBLISHED_IMAGES
from rdgap.tables import read_table, write_table
from rdgap.training.results import read_log
from rdgap.zoo import load_codec

BEGIN, END = "<!-- kodak table: python analysis/kodak.py -->", "<!-- end of kodak table -->"
BD_BEGIN, BD_END = "<!-- kodak BD-rate table: python analysis/kodak.py -->", "<!-- end of kodak BD-rate table -->"
COMMAND = "python analysis/kodak.py --images KODAK"
RESAMPLES = 1000


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment."""
    arguments = parser(__doc__, smoke="two images, two models at two lmbdas")
    arguments.add_argument("--images", type=Path, help="folder of the 24 Kodak images; without it nothing is measured")
    _cli.add_device(arguments)
    return _cli.run(_run, arguments, argv)


def _run(options: argparse.Namespace) -> None:
    check_smoke(options)
    if options.images:
        images = image_paths([options.images])[: 2 if options.smoke else None]
        codecs = few_models() if options.smoke else every_model()
        device = _cli.device(options.device)
        learned = options.tables / "kodak_learned.csv"
        measure_learned(learned, codecs, images, dataset="kodak", command=COMMAND, device=device)
        _measure_conventional(options.tables / "kodak_conventional.csv", images, stride=4 if options.smoke else 1)
    summary = summarize(options.tables)
    with replacing(options.tables / "kodak_lagrangian.csv") as temporary:
        summary.to_csv(temporary, index=False, lineterminator="\n")
    if options.smoke:  # whose images BPG has not coded
        anchor = codec_grids(read_table(options.tables / "kodak_conventional.csv", EVALUATION))["jpeg"]
    else:
        anchor = codec_grids(read_table(shipped_anchor_path("bpg"), EVALUATION))["bpg"]
    table = bd_rates(options.tables, anchor, resamples=20 if options.smoke else RESAMPLES)
    write_table(options.tables / "kodak_bd_rate.csv", table, BD)
    for begin, end, text in ((BEGIN, END, markdown(summary)), (BD_BEGIN, BD_END, bd_markdown(options.tables))):
        print(text)
        fill_readme(begin, end, text, tables=options.tables)
    if options.tables.resolve() == TABLES:
        for weights, row in card_rows(options.tables).items():
            card = weights.with_suffix(".md")
            write_text(card, with_row(card.read_text(encoding="utf-8"), row))


def measure_learned(
    path: Path,
    codecs: Sequence[tuple[str, float]],
    images: Sequence[Path],
    *,
    dataset: str,
    command: str,
    device: torch.device,
) -> None:
    """Measure what has no row of its present weights; every finished codec is kept at once, with its provenance.

    Args:
        path: The table, of the schema `rdgap.schemas.EVALUATION`.
        codecs: Models, each at an lmbda.
        images: Measured on, with all metrics.
        dataset: What the table calls them.
        command: For the provenance.
        device: Where.
    """
    record = path.with_suffix(".json")
    hashes: dict[str, str] = {}
    of_codec: dict[tuple[str, float], pd.DataFrame] = {}
    if path.exists():
        hashes = json.loads(record.read_text(encoding="utf-8"))["weights_sha256"]
        rows = read_table(path, EVALUATION)
        for codec, lmbda in sorted(set(zip(rows["codec"], rows["setting"], strict=True))):
            of_codec[codec, lmbda] = rows.loc[(rows["codec"] == codec) & (rows["setting"] == lmbda), :]
    for codec, lmbda in sorted(codecs, key=lambda pair: pair in of_codec):  # those without any row first
        weights = weights_of(codec, lmbda)
        kept = of_codec.get((codec, lmbda))
        is_measured = kept is not None and set(kept["image"]) == {image.stem for image in images}
        if is_measured and hashes.get(weights.stem) == sha256(weights):
            continue
        model = load_codec(codec, lmbda, device=device)
        point = learned_point(model, name=codec, lmbda=lmbda, device=device, metrics=METRICS)
        of_codec[codec, lmbda] = evaluate([point], images).assign(dataset=dataset)
        hashes[weights.stem] = sha256(weights)
        write_table(path, pd.concat(of_codec.values()), EVALUATION)
        write_json(record, provenance(command, images=images) | {"weights_sha256": dict(sorted(hashes.items()))})


def _measure_conventional(path: Path, images: Sequence[Path], *, stride: int) -> None:
    if not path.exists():
        points = [point for name in ("jpeg", "webp") for point in conventional_points(name)]
        write_table(path, evaluate(points[::stride], images).assign(dataset="kodak"), EVALUATION)
        write_json(path.with_suffix(".json"), provenance(COMMAND, images=images))


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


def card_rows(tables: Path) -> dict[Path, str]:
    """Return the row of each model's card, by its weights."""
    learned = read_table(tables / "kodak_learned.csv", EVALUATION)
    of_cards = {}
    for row in average(learned).to_dict("records"):
        of_cards[weights_of(row["codec"], row["setting"])] = (
            f"| Kodak | L {row['lagrangian_bpp']:.4f}, {row['rate_bpp']:.4f} bpp, {row['psnr_db']:.2f} dB (mean PSNR), "
            f"MS-SSIM {row['ms_ssim']:.4f}, LPIPS {row['lpips']:.3f}, {row['images']} images |"
        )
    return of_cards


def with_row(card: str, row: str) -> str:
    """Return the text of a card with the row on Kodak behind that on the held-out images."""
    lines = [line for line in card.split("\n") if not line.startswith("| Kodak |")]
    (place,) = (index for index, line in enumerate(lines) if line.startswith("| validation |"))
    return "\n".join([*lines[: place + 1], row, *lines[place + 1 :]])


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


def bd_rates(tables: Path, anchor: CodecGrid, *, resamples: int) -> pd.DataFrame:
    """Return the BD-rates over an anchor of every model that is trained at two lmbdas or more.

    One-line remarks say which models have none, and why. The range is what a model's own points cover.
    """
    grids = codec_grids(read_table(tables / "kodak_learned.csv", EVALUATION))
    frames = []
    for grid in grids.values():
        kinds: tuple[Interpolation, ...] = ("pchip", "akima", "cubic") if len(grid.settings) > 3 else ("pchip", "akima")
        try:
            for kind in kinds:
                comparisons = compare(
                    anchor.restricted_to(grid.images),
                    [grid],
                    interpolation=kind,
                    resamples=resamples,
                    generator=np.random.default_rng(0),
                )
                frames.append(frame(comparisons))
        except ValueError as error:
            print(f"{grid.codec} has no BD-rate: {error}")
    if not frames:
        raise RuntimeError(f"no model has a BD-rate over {anchor.codec}.")
    return pd.concat(frames, ignore_index=True)


def bd_markdown(tables: Path) -> str:
    """Return the table of the README: BD-rate over BPG, and what the learning curves say of more training."""
    table = read_table(tables / "kodak_bd_rate.csv", BD)
    chosen = (table["interpolation"] == "pchip") & (table["averaging"] == "mean quality")
    lines = [
        "| over BPG on Kodak | lmbdas | BD-rate | 95 % interval | mean PSNR | steps | L in their second half |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    settings = read_table(tables / "kodak_learned.csv", EVALUATION).groupby("codec")["setting"]
    for row in table.loc[chosen, :].sort_values("bd_rate_percent").to_dict("records"):
        lmbdas = sorted(set(settings.get_group(row["codec"])))
        logs = [read_log(weights_of(row["codec"], lmbda).with_suffix(".csv")) for lmbda in lmbdas]
        steps = sorted({int(log[-1]["step"]) for log in logs})
        falls = sorted(_late_fall(log) for log in logs)
        lines.append(
            f"| {row['codec']} | {len(lmbdas)} | {row['bd_rate_percent']:+.0f} % "
            f"| [{row['bd_rate_low_percent']:+.0f}, {row['bd_rate_high_percent']:+.0f}] "
            f"| {row['quality_low']:.1f} to {row['quality_high']:.1f} dB "
            f"| {steps[0]} to {steps[-1]} | {-falls[-1]:+.1f} to {-falls[0]:+.1f} % |"
        )
    return "\n".join(lines)


def _late_fall(log: Sequence[dict[str, str]]) -> float:
    """Return by how many percent the validation cost fell in the second half of the steps."""
    costs = {int(row["step"]): float(row["validation_lagrangian_bpp"]) for row in log}
    last = max(costs)
    middle = min(costs, key=lambda step: abs(step - last / 2))
    return 100 * (1 - costs[last] / costs[middle])


if __name__ == "__main__":
    sys.exit(main())
