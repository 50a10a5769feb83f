"""The claims of the paper's appendix, held against the committed tables: the block of the top-level README.

python analysis/claims.py      # reads tables, seconds; judges anew whatever they hold by now

A claim is confirmed where the 95 % interval of its number lies on its side, not confirmed where it does not, and out of
reach where models that it speaks of have no trained weights yet. Variants have had fewer steps than the models that
they are compared with; where one of these was trained again as its variant was (controls/trained-alike), it must be
better than the variant there as well, and by as much where the claim says by how much. Writes `tables/claims.csv`, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from _experiment import ROOT, check_smoke, fill_readme, parser
from ablations import PAIRS
from scipy.stats import t as student

from rdgap import _cli
from rdgap._files import replacing
from rdgap.bdrate import bd_rate, published_curve
from rdgap.schemas import ABLATIONS, ABLATIONS_LAGRANGIAN, COMPLEXITY, CURVATURE, ENCODED
from rdgap.tables import Schema, read_table
from rdgap.training.results import read_log
from rdgap.zoo import model_directory, weights_name

BEGIN, END = "<!-- claims: python analysis/claims.py -->", "<!-- end of claims -->"
CONFIRMED, NOT_CONFIRMED, OUT_OF_REACH = "confirmed", "not confirmed", "out of reach"
STRAIGHT = 1.01  # no model's median eta may be more
ABOUT_TEN_PERCENT = (5.0, 15.0)
RATE_PER_LAGRANGIAN = 2.0  # a percent of L is about two percent of the rate at equal quality
TRAINED_ALIKE = ROOT / "analysis" / "controls" / "trained-alike"
ALIKE_MARGIN_PERCENT = 0.5  # of L on the held-out images; less is taken for chance


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the tables say of a claim."""

    claim: str
    verdict: str
    here: str
    published: str
    tables: str


class OutOfReachError(ValueError):
    """The tables have no rows that could decide a claim; the message says which models they lack."""


def main(argv: Sequence[str] | None = None) -> int:
    """Judge."""
    return _cli.run(_run, parser(__doc__, smoke="the tables of a trial"), argv)


def _run(options: argparse.Namespace) -> None:
    check_smoke(options)
    table = pd.DataFrame([asdict(finding) for finding in findings(options.tables)])
    with replacing(options.tables / "claims.csv") as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    print(markdown(table))
    fill_readme(BEGIN, END, markdown(table), tables=options.tables)


def findings(tables: Path) -> list[Finding]:
    """Return what the tables say of each claim."""
    claims: dict[str, tuple[Callable[[Path], tuple[bool, str]], str, str]] = {
        "Decoded latent lines are nearly straight, eta near 1": (straight, "eta near 1", "latent_curvature.csv"),
        "Two layers are better than one": (two_layers, _published_two_layers(), "ablations.csv"),
        "The residual connection helps at low rate": (residual, "stated", "ablations_lagrangian.csv"),
        "ELIC's analysis is better than a CNN": (elic_analysis, "a figure", "ablations_lagrangian.csv, complexity.csv"),
        "Iterative encoding helps the hyperprior more": (sga, _published_sga(), "sga_kodak.csv"),
        "A JPEG-like hyper synthesis costs about 10 %": (hyper_synthesis, "+10 %", "ablations.csv, complexity.csv"),
        "Scaled-down baselines are worse at high rate": (scaled_down, "a figure", "ablations_lagrangian.csv"),
    }
    found = []
    for claim, (judge, published, sources) in claims.items():
        try:
            holds, here = judge(tables)
            verdict = CONFIRMED if holds else NOT_CONFIRMED
        except OutOfReachError as error:
            verdict, here = OUT_OF_REACH, str(error)
        found.append(Finding(claim=claim, verdict=verdict, here=here, published=published, tables=sources))
    return found


def straight(tables: Path) -> tuple[bool, str]:
    """Judge by the median over pairs of each trained model, lmbda and crop; JPEG-like decoders are straight anyway."""
    rows = _read(tables, "latent_curvature.csv", CURVATURE)
    control = rows["model"].str.endswith("-control")
    codecs = rows.loc[~control & ~rows["model"].str.startswith("jpeg-like"), :]
    random = rows.loc[rows["model"] == "random-control", "eta"]
    if codecs.empty or random.empty:
        raise OutOfReachError("needs a curved decoder and the control")
    worst = float(codecs.groupby(["model", "lmbda", "crop"])["eta"].median().max())
    here = (
        f"largest median eta {worst:.4f}, largest of {len(codecs)} lines {codecs['eta'].max():.3f}; "
        f"untrained control: median {random.median():.2f}"
    )
    return worst < STRAIGHT, here


def two_layers(tables: Path) -> tuple[bool, str]:
    """Judge by the BD-rate of two layers over one."""
    row = _pair(tables, "two layers for one", "two-layer")
    return row["bd_rate_high_percent"] < 0, f"BD-rate {_interval(row, 'bd_rate')}"


def residual(tables: Path) -> tuple[bool, str]:
    """Judge by L at the smallest lmbda that both are trained at."""
    low, high = _ends(tables, "residual connection", "two-layer")
    alike = trained_alike("two-layer-lite", "two-layer-no-residual-lite", 0.0025)
    holds = low["change_high_percent"] < 0 and alike > ALIKE_MARGIN_PERCENT
    return holds, f"{_changes(low, high)}; trained alike: L of the one without {alike:+.1f} %"


def trained_alike(model: str, variant: str, lmbda: float) -> float:
    """Return by how many percent the held-out L of a variant is above that of a model trained as it was.

    The control starts from trained weights, the part that differs afresh, and has as many steps, like the variant that
    its folder is named after.
    """
    logs = {
        name: read_log(folder / f"{weights_name(name, lmbda)}.csv")
        for name, folder in ((model, TRAINED_ALIKE / variant), (variant, model_directory()))
    }
    if not logs[model]:
        raise OutOfReachError(f"no {model} was trained as {variant} at lmbda {lmbda:g}")
    last = {name: log[-1] for name, log in logs.items()}
    if last[model]["step"] != last[variant]["step"]:
        raise ValueError(f"{model} and {variant} must have had as many steps to be compared at lmbda {lmbda:g}.")
    cost = "validation_lagrangian_bpp"
    return 100 * (float(last[variant][cost]) / float(last[model][cost]) - 1)


def elic_analysis(tables: Path) -> tuple[bool, str]:
    """Judge by L at every lmbda that the small models with ELIC's and with a CNN's analysis, trained alike, have."""
    name = "CNN for ELIC analysis"
    low, high = _ends(tables, name, "cnn-analysis")
    macs = _pair_macs(tables, "two-layer-elic-lite", "cnn-analysis-lite", "analysis")
    rows = [low] if low["lmbda"] == high["lmbda"] else [low, high]
    said = f"CNN for ELIC: {_changes(*rows)}; {macs}"
    return all(row["change_low_percent"] > 0 for row in rows), said


def sga(tables: Path) -> tuple[bool, str]:
    """Judge by the saving of L, crop by crop, over the lmbdas that both models have."""
    rows = _read(tables, "sga_kodak.csv", ENCODED)
    saved = rows.pivot_table(index="image", columns=["model", "lmbda"], values="saving_percent")
    models = ("mean-scale-lite", "two-layer-lite")
    lmbdas = sorted(set.intersection(*({lmbda for name, lmbda in saved if name == model} for model in models)))
    if not lmbdas or len(saved) < 2:
        raise OutOfReachError("needs both models at one lmbda")
    deep, shallow = (saved[model][lmbdas].mean(axis=1) for model in models)
    mean, low, high = _student((deep - shallow).to_numpy())
    here = (
        f"L saved: mean-scale-lite {deep.mean():.1f} %, two-layer-lite {shallow.mean():.1f} %, "
        f"difference {mean:+.1f} [{low:+.1f}, {high:+.1f}] points"
    )
    return low > 0, here


def hyper_synthesis(tables: Path) -> tuple[bool, str]:
    """Judge by the BD-rate over the full hyper synthesis."""
    counted = _pair_macs(tables, "jpeg-like", "jpeg-like-hyper", "hyper_synthesis")
    try:
        row = _pair(tables, "cheap hyper synthesis", "jpeg-like-hyper")
    except OutOfReachError as error:
        raise OutOfReachError(f"{error}; {counted}") from error
    low, high = ABOUT_TEN_PERCENT
    alike = trained_alike("jpeg-like-lite", "jpeg-like-hyper-lite", 0.0025)
    holds = all(low < percent < high for percent in (row["bd_rate_percent"], RATE_PER_LAGRANGIAN * alike))
    return holds, f"BD-rate {_interval(row, 'bd_rate')}; trained alike: L of the cheap one {alike:+.1f} %; {counted}"


def scaled_down(tables: Path) -> tuple[bool, str]:
    """Judge by L at the largest lmbda in common, of every baseline that is trained."""
    verdicts, said, missing = [], [], []
    for variant in ("cenic", "elic-xs"):
        try:
            low, high = _ends(tables, "scaled-down baseline", variant)
            alike = trained_alike("two-layer-lite", f"{variant}-lite", high["lmbda"])
        except OutOfReachError as error:
            missing.append(str(error))
            continue
        verdicts.append(high["change_low_percent"] > 0 and alike > ALIKE_MARGIN_PERCENT)
        said.append(f"{variant}-lite: {_changes(low, high)}; trained alike at lmbda {high['lmbda']:g}: {alike:+.1f} %")
    if not said:
        raise OutOfReachError("; ".join(missing))
    return all(verdicts), "; ".join(said + missing)


def _read(tables: Path, name: str, schema: Schema) -> pd.DataFrame:
    if not (tables / name).exists():
        raise OutOfReachError(f"no {name} yet")
    return read_table(tables / name, schema)


def _pair(tables: Path, ablation: str, variant: str) -> dict[str, float]:
    rows = _read(tables, "ablations.csv", ABLATIONS)
    rows = rows.loc[(rows["ablation"] == ablation) & (rows["variant"] == f"{variant}-lite"), :]
    if rows.empty:
        raise OutOfReachError(_untrained(ablation, variant))
    return rows.to_dict("records")[0]


def _pair_macs(tables: Path, reference: str, variant: str, transform: str) -> str:
    rows = _read(tables, "complexity.csv", COMPLEXITY)
    macs = rows.loc[rows["transform"] == transform, :].set_index("codec")["macs_per_pixel"] / 1e3
    if not {reference, variant} <= set(macs.index):
        return "MACs not counted"
    return f"{macs[reference]:.2f} to {macs[variant]:.2f} thousand MAC per pixel"


def _ends(tables: Path, ablation: str, variant: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the rows of the smallest and the largest lmbda that both are trained at."""
    rows = _read(tables, "ablations_lagrangian.csv", ABLATIONS_LAGRANGIAN)
    rows = rows.loc[(rows["ablation"] == ablation) & (rows["variant"] == f"{variant}-lite"), :]
    if rows.empty:
        raise OutOfReachError(_untrained(ablation, variant))
    ordered = rows.sort_values("lmbda").to_dict("records")
    return ordered[0], ordered[-1]


def _untrained(ablation: str, variant: str) -> str:
    (reference,) = (pair.reference for pair in PAIRS if pair.name == ablation)
    return f"{reference}-lite and {variant}-lite are not both trained yet"


def _changes(*rows: dict[str, float]) -> str:
    return ", ".join(f"L {_interval(row, 'change')} at lmbda {row['lmbda']:g}" for row in rows)


def _interval(row: dict[str, float], name: str) -> str:
    ends = ", ".join(f"{row[f'{name}_{end}_percent']:+.1f}" for end in ("low", "high"))
    return f"{row[f'{name}_percent']:+.1f} % [{ends}]"


def _student(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean and its 95 % interval."""
    half = float(student.ppf(0.975, len(values) - 1)) * values.std(ddof=1) / len(values) ** 0.5
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def _published_bd(anchor: str, test: str) -> str:
    curves = published_curve(anchor, "kodak"), published_curve(test, "kodak")
    return f"{bd_rate(*curves, interpolation='pchip').bd_rate_percent:+.1f} %"


def _published_two_layers() -> str:
    return f"BD-rate {_published_bd('paper/JPEG-like_syn', 'paper/2-layer_syn')}"


def _published_sga() -> str:
    deep = _published_bd("others/mbt2018", "others/sga")
    return f"BD-rate {deep} (Yang 2020) and {_published_bd('paper/2-layer_syn', 'paper/2-layer_syn+SGA')}"


def markdown(table: pd.DataFrame) -> str:
    """Return the table of the README."""
    lines = ["| claim | verdict | measured here | published | table |", "| --- | --- | --- | --- | --- |"]
    for row in table.to_dict("records"):
        lines.append(
            f"| {row['claim']} | **{row['verdict']}** | {row['here']} | {row['published']} | {row['tables']} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
