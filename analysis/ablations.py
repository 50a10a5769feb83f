"""The paper's ablations on Kodak: pairs of models that differ in one part, and iterative encoding beside none.

python analysis/ablations.py      # reads the tables that kodak.py, sga_kodak.py and complexity.py have made; seconds

Each pair is compared where both are trained, at the size of the paper and as "lite" models; those without weights yet
are named in one line, and are added by the same command when they have some. Writes

- tables/ablations.csv: BD-rate of each variant over its reference (curve of mean PSNR, PCHIP) with a bootstrap interval
  over images, where they have two lmbdas in common, and the MACs per pixel of the part that differs;
- tables/ablations_lagrangian.csv: the change of L = bpp + lmbda * mse at each lmbda, which tells low from high rates;
- tables/sga_bd_rate.csv: BD-rate of each model with iterative encoding over itself without, on the crops of
  sga_kodak.csv, in all ways of averaging;

with provenance beside them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from _experiment import check_smoke, parser, provenance
from scipy.stats import t as student

from rdgap import _cli
from rdgap._files import sha256, write_json
from rdgap.bdrate import CodecGrid, codec_grids, compare
from rdgap.bdrate.report import frame
from rdgap.schemas import ABLATIONS, ABLATIONS_LAGRANGIAN, BD, COMPLEXITY, ENCODED, EVALUATION
from rdgap.tables import read_table, write_table
from rdgap.zoo import model_directory

RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A reference and the variants that differ from it in one part, by the names of their recipes."""

    name: str
    part: str  # the transform that differs, as complexity.csv calls it
    reference: str
    variants: tuple[str, ...]


PAIRS = (
    Ablation(name="two layers for one", part="synthesis", reference="jpeg-like", variants=("two-layer",)),
    Ablation(name="residual connection", part="synthesis", reference="two-layer-no-residual", variants=("two-layer",)),
    Ablation(name="deep synthesis", part="synthesis", reference="two-layer", variants=("mean-scale",)),
    Ablation(name="scaled-down baseline", part="synthesis", reference="two-layer", variants=("cenic", "elic-xs")),
    Ablation(name="CNN analysis", part="analysis", reference="two-layer", variants=("cnn-analysis",)),
    Ablation(name="CNN for ELIC analysis", part="analysis", reference="two-layer-elic", variants=("cnn-analysis",)),
    Ablation(
        name="cheap hyper synthesis", part="hyper_synthesis", reference="jpeg-like", variants=("jpeg-like-hyper",)
    ),
)
"""What the appendix compares. A variant also stands for recipes of its name and a width, as `cnn-analysis-96`.

The analysis of `two-layer` is ELIC's at the paper's size; small, `two-layer-elic-lite` has that.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the experiment."""
    return _cli.run(_run, parser(__doc__, smoke="20 resamples"), argv)


def _run(options: argparse.Namespace) -> None:
    check_smoke(options)
    tables: Path = options.tables
    resamples = 20 if options.smoke else RESAMPLES
    measured = read_table(tables / "kodak_learned.csv", EVALUATION)
    counted = read_table(tables / "complexity.csv", COMPLEXITY).to_dict("records")
    macs = {(row["codec"], row["transform"]): row["macs_per_pixel"] for row in counted}
    rows, costs, missing = [], [], []
    for pair in PAIRS:
        for size in ("", "-lite"):
            names = set(measured["codec"])
            there = [name for name in sorted(names) if _is_variant(name, pair.variants, size)]
            wanted = {f"{name}{size}" for name in (pair.reference, *pair.variants)}
            missing += sorted(name for name in wanted - names if (model_directory() / f"{name}.toml").exists())
            for variant in there if f"{pair.reference}{size}" in names else []:
                row, of_pair = _compare(measured, pair, f"{pair.reference}{size}", variant, resamples)
                costs += of_pair
                if row:
                    sides = {"reference": f"{pair.reference}{size}", "variant": variant}
                    of_part = {side: macs.get((name, pair.part), np.nan) for side, name in sides.items()}
                    rows.append(row | {f"{side}_macs_per_pixel": count for side, count in of_part.items()})
    if missing:
        print(f"no trained weights yet: {', '.join(sorted(set(missing)))}")
    sources = [tables / name for name in ("kodak_learned.csv", "sga_kodak.csv", "complexity.csv")]
    origin = provenance("python analysis/ablations.py")
    origin |= {"tables_sha256": {path.name: sha256(path) for path in sources}, "resamples": resamples, "seed": 0}
    for name, table, schema in (
        ("ablations", pd.DataFrame(rows), ABLATIONS),
        ("ablations_lagrangian", pd.DataFrame(costs), ABLATIONS_LAGRANGIAN),
        ("sga_bd_rate", sga_bd_rates(read_table(tables / "sga_kodak.csv", ENCODED), resamples), BD),
    ):
        if table.empty:
            print(f"{name}: nothing to compare yet")
            continue
        write_table(tables / f"{name}.csv", table, schema)
        write_json(tables / f"{name}.json", origin)
        print(table.to_string(index=False, max_colwidth=24, float_format=lambda number: f"{number:.3f}"))


def _is_variant(name: str, variants: Sequence[str], size: str) -> bool:
    """Whether a model is one of the variants, perhaps of another width, and of that size."""
    if name.endswith("-lite") != (size == "-lite"):
        return False
    base = name.removesuffix("-lite")
    return any(base == variant or base.removeprefix(f"{variant}-").isdecimal() for variant in variants)


def _compare(
    measured: pd.DataFrame, pair: Ablation, reference: str, variant: str, resamples: int
) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Return the row of a pair, none where its curves allow no BD-rate, and its change of L at each common lmbda."""
    labels: dict[str, object] = {"ablation": pair.name, "part": pair.part, "reference": reference, "variant": variant}
    both = measured.loc[measured["codec"].isin([reference, variant]), :]
    both = both.assign(lagrangian_bpp=both["bits"] / both["num_pixels"] + both["setting"] * both["mse"])
    costs = both.pivot(index=["setting", "image"], columns="codec", values="lagrangian_bpp").dropna()
    changes: list[dict[str, object]] = []
    for lmbda, of_image in costs.groupby("setting"):
        change = 100 * (of_image[variant] / of_image[reference] - 1).to_numpy()
        half = student.ppf(0.975, len(change) - 1) * change.std(ddof=1) / len(change) ** 0.5
        mean = float(change.mean())
        changes.append(
            labels
            | {"lmbda": lmbda, "images": len(change)}
            | {"reference_lagrangian_bpp": float(of_image[reference].mean())}
            | {"variant_lagrangian_bpp": float(of_image[variant].mean())}
            | {"change_percent": mean, "change_low_percent": mean - half, "change_high_percent": mean + half}
        )
    lmbdas = sorted(set(costs.index.get_level_values("setting")))
    if len(lmbdas) < 2:
        print(f"{variant} over {reference}: no BD-rate, because they have {len(lmbdas)} lmbda in common")
        return {}, changes
    grids = codec_grids(both.loc[both["setting"].isin(lmbdas), :].drop(columns="lagrangian_bpp"))
    rate, low, high = _bd_rate(grids[reference], grids[variant], resamples)
    return labels | {"lmbdas": len(lmbdas), "quality_low": low, "quality_high": high, **rate}, changes


def _bd_rate(reference: CodecGrid, variant: CodecGrid, resamples: int) -> tuple[dict[str, float], float, float]:
    """Return the BD-rate of the curves of mean PSNR with its interval, and the range that it is over."""
    (comparison,) = compare(
        reference, [variant], interpolation="pchip", resamples=resamples, generator=np.random.default_rng(0)
    )
    delta = comparison.deltas["mean quality"]
    interval = delta.bd_rate_percent
    rates = {"": interval.value, "_low": interval.low, "_high": interval.high}
    named = {f"bd_rate{end}_percent": rate for end, rate in rates.items()}
    return named | {"images": delta.images}, delta.quality_low, delta.quality_high


def sga_bd_rates(encoded: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Return what iterative encoding saves each model at equal quality, on the same crops."""
    common = {"dataset": "kodak crops", "rate_kind": "estimated", "ms_ssim": np.nan, "lpips": np.nan}
    before, after = (
        encoded.rename(columns={"model": "codec", "lmbda": "setting"})
        .assign(bits=encoded[f"{kind}bits"], mse=encoded[f"{kind}mse"], **common)
        .assign(psnr_db=lambda rows: 10 * np.log10(255**2 / rows["mse"]), encoder=name)
        .assign(encoder_steps=steps, encoder_seed=seed, encoder_bf16=bf16)
        .loc[:, list(EVALUATION)]
        for kind, name, steps, seed, bf16 in (
            ("encoder_", "own", 0, 0, 0),
            ("", encoded["method"], encoded["steps"], encoded["seed"], encoded["bf16"]),
        )
    )
    own, found = codec_grids(before), codec_grids(after)
    frames = []
    for name, grid in found.items():
        reference = own[name.split(" (")[0]]
        try:
            comparisons = compare(
                reference, [grid], interpolation="pchip", resamples=resamples, generator=np.random.default_rng(0)
            )
            frames.append(frame(comparisons))
        except ValueError as error:
            print(f"{name}: no BD-rate: {error}")
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


if __name__ == "__main__":
    sys.exit(main())
