"""What the command shows of a table of gaps: means and differences, text for the terminal and a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .decomposition import COSTS, GAPS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_COSTS, _GAPS = (*COSTS, "equilibrium_lower"), GAPS
_HEADINGS = {  # name of a column: what it is, and its side
    "encoder": ("encoder q", ""),
    "fitted_box": ("fitted box", "(upper)"),
    "fitted_gaussian": ("fitted Gauss", "(upper)"),
    "neg_log_gamma_upper": ("-log Gamma", "(upper, E)"),
    "equilibrium_lower": ("-log Gamma", "(lower, eq.)"),
    "amortization_gap_lower": ("amortization", "(lower)"),
    "approximation_gap": ("approximation", "(no side)"),
    "inference_gap_lower": ("inference", "(lower, E)"),
}
_TERMS = {  # of the picture, which stacks them up to the cost of the encoder
    "neg_log_gamma_upper": ("$-\\log\\,\\Gamma$ (upper bound)", "#4c5b6b"),
    "approximation_gap": ("approximation gap", "#e0a458"),
    "amortization_gap_lower": ("amortization gap (lower bound)", "#b5443c"),
}
_DIAMOND: dict[str, Any] = {
    "marker": "D",
    "markersize": 4,
    "color": "white",
    "markeredgecolor": "black",
    "linestyle": "none",
}
_WIDTH = 15
_FEW_CHAINS = 2.0


def means(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per model and lmbda: means over images, equally weighted, of each cost and gap.

    `*_estimator_stderr_bpp` is the Monte Carlo error of that mean; `*_image_stderr_bpp` how far the mean of these
    images may be from the mean of all images like them (NaN for one image). The modeling gap is known to lie between
    `modeling_gap_lower_bpp` and `modeling_gap_upper_bpp`, because the irreducible term is only known not to be
    negative. `acceptance` is a mean, `divergent_share` and `effective_chains` are those of the worst image.
    """
    import pandas as pd

    return pd.DataFrame([_mean(group) for _, group in table.groupby(["lmbda", "model"], sort=False)])


def _mean(rows: pd.DataFrame) -> dict[str, Any]:
    number = len(rows)
    mean: dict[str, Any] = {"model": rows["model"].iloc[0], "lmbda": rows["lmbda"].iloc[0], "images": number}
    for name in (*_COSTS, *_GAPS, "rounded"):
        column = _column(rows, f"{name}_bpp")
        mean[f"{name}_bpp"] = float(column.mean())
        mean[f"{name}_image_stderr_bpp"] = float(column.std(ddof=1)) / number**0.5 if number > 1 else math.nan
        if name != "rounded":  # which is computed, not estimated
            mean[f"{name}_estimator_stderr_bpp"] = float(np.linalg.norm(_column(rows, f"{name}_stderr_bpp"))) / number
    return mean | {
        "modeling_gap_lower_bpp": 0.0,
        "modeling_gap_upper_bpp": mean["neg_log_gamma_upper_bpp"],
        "acceptance": float(_column(rows, "acceptance").mean()),
        "divergent_share": float(_column(rows, "divergent_share").max()),
        "effective_chains": float(_column(rows, "effective_chains").min()),
        "seconds": float(_column(rows, "seconds").mean()),
    }


def _column(rows: pd.DataFrame, name: str) -> np.ndarray:
    return np.asarray(rows[name], dtype=float)


def differences(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per lmbda and pair of models: the mean over images of the difference of their inference gaps.

    The 95 % interval is Student's for pairs, over images; NaN for one image. It holds the Monte Carlo errors as well,
    because they are part of the spread. A difference of two lower bounds has no side.
    """
    import pandas as pd
    from scipy.stats import t as student

    rows = []
    for lmbda, group in table.groupby("lmbda", sort=False):
        gaps = group.pivot(index="image", columns="model", values="inference_gap_lower_bpp")
        for model, other in combinations(group["model"].unique(), 2):
            difference = np.asarray(gaps[model] - gaps[other])
            number, mean = len(difference), float(difference.mean())
            half = math.nan
            if number > 1:
                half = float(student.ppf(0.975, number - 1) * difference.std(ddof=1) / number**0.5)
            rows.append((lmbda, model, other, number, mean, mean - half, mean + half))
    names = ("lmbda", "model", "other", "images", "difference_bpp", "lower_95_bpp", "upper_95_bpp")
    return pd.DataFrame(rows, columns=list(names))


def format_report(table: pd.DataFrame) -> str:
    """Return what the command prints: images where there is one codec, means, differences, diagnostics."""
    mean = means(table)
    sections = ["bits per pixel, ± one standard error of the estimate; below it over images"]
    for title, names, last in (
        (
            "cost (bpp + lmbda * mse) of the noise channel, and apart from it of the hard-rounded codec",
            _COSTS,
            _rounded,
        ),
        ("gaps: inference = encoder q - (-log Gamma) = amortization + approximation", _GAPS, _modeling),
    ):
        sections += ["", title, *_block(table, mean, names, last)]
    sections += [
        "",
        "(upper), (lower): a bound on the true value, (E): in expectation, (eq.): where the chains are in equilibrium;",
        "(no side): upper minus upper bound",
        "modeling gap: -log Gamma less the irreducible term, of which is only known that it is >= 0: hence an interval",
        "rounded codec: another model, the lattice, with a Gamma of its own; do not mix it with the gaps",
    ]
    if len(set(table["model"])) > 1:
        sections += ["", *_pairs(differences(table))]
    return "\n".join([*sections, "", *_diagnostics(table, mean)])


def _block(table: pd.DataFrame, mean: pd.DataFrame, names: Sequence[str], last: Any) -> list[str]:
    """Format one row per image where there is one codec, then two rows per codec and lmbda."""
    rows: list[tuple[str, list[str]]] = []
    headings, sides = zip(*(_HEADINGS.get(name, (name, "")) for name in names), strict=True)
    heading, side = last(None)
    rows += [("", [*headings, heading]), ("", [*sides, side])]
    if len(mean) == 1 and len(table) > 1:
        for row in table.to_dict(orient="records"):
            rows.append((str(row["image"]), [*_estimates(row, names, "stderr"), last(row)[0]]))
    for row in mean.to_dict(orient="records"):
        rows.append((_codec(row), [*_estimates(row, names, "estimator_stderr"), last(row)[0]]))
        if row["images"] > 1:
            spread = [f"±{row[f'{name}_image_stderr_bpp']:.4f}" for name in names]
            rows.append((f"  over {row['images']} images", [*spread, last(row)[1]]))
    width = max(len(label) for label, _ in rows) + 1
    return [f"{label:{width}}" + "".join(f"{cell:>{_WIDTH}}" for cell in cells) for label, cells in rows]


def _estimates(row: Mapping[Any, Any], names: Sequence[str], stderr: str) -> list[str]:
    return [f"{row[f'{name}_bpp']:.4f}±{row[f'{name}_{stderr}_bpp']:.4f}" for name in names]


def _rounded(row: Mapping[Any, Any] | None) -> tuple[str, str]:
    if row is None:
        return "|   rounded", ""
    return f"|    {row['rounded_bpp']:.4f}", f"|   ±{row.get('rounded_image_stderr_bpp', math.nan):.4f}"


def _modeling(row: Mapping[Any, Any] | None) -> tuple[str, str]:
    if row is None:
        return "modeling gap", "[lower, upper]"
    if "modeling_gap_upper_bpp" not in row:  # an image alone has none: the irreducible term belongs to the source
        return "", ""
    return f"[{row['modeling_gap_lower_bpp']:g}, {row['modeling_gap_upper_bpp']:.4f}]", ""


def _pairs(pairs: pd.DataFrame) -> list[str]:
    lines = ["difference of inference gaps over the same images, bpp: mean and 95 % interval (t, pairs; no side)"]
    for row in pairs.to_dict(orient="records"):
        label = f"{_short(row['model'])} - {_short(row['other'])}, lmbda {row['lmbda']:g}"
        interval = f"[{row['lower_95_bpp']:+.4f}, {row['upper_95_bpp']:+.4f}]"
        lines.append(f"{label}  {row['difference_bpp']:+.4f}  " + (interval if row["images"] > 1 else "(one image)"))
    return lines


def _diagnostics(table: pd.DataFrame, mean: pd.DataFrame) -> list[str]:
    first = table.iloc[0]
    lines = [f"annealing, {first['chains']} chains, {first['temperatures']} temperatures (worst image where not mean):"]
    for row in mean.to_dict(orient="records"):
        lines.append(
            f"  {_codec(row)}: mean acceptance {row['acceptance']:.2f}, divergent {row['divergent_share']:.1%}, "
            f"effective chains {row['effective_chains']:.1f}, mean {row['seconds']:.1f} s per image"
        )
    if _column(mean, "divergent_share").max() > 0:
        lines.append("note: divergent proposals are rejected, so bounds hold, but chains that stay make them loose")
    if _column(mean, "effective_chains").min() < _FEW_CHAINS:
        lines.append(
            "note: hardly more than one chain carries all the weight of an image: there -log Gamma is a loose bound\n"
            "and its error itself uncertain; more --temperatures tighten it"
        )
    return lines


def format_rounded(table: pd.DataFrame) -> str:
    """Return what the command prints of the hard-rounded codec: means per model and lmbda, in bits per pixel."""
    headings = {
        "rounded": "rounded",
        "best_point_upper": "best point (upper)",
        "neg_log_gamma_upper": "-log Gamma (upper, E)",
        "search_gap_lower": "search gap (lower)",
        "determinism_gap": "determinism gap",
    }
    lines = [
        "the hard-rounded codec, a lattice with a Gamma of its own:",
        "rounded = -log Gamma + determinism gap + search gap",
        "means ± standard error over images; -log Gamma also has an error of the estimate, in brackets",
        f"{'':32}" + "".join(f"{heading:>24}" for heading in headings.values()),
    ]
    for _, rows in table.groupby(["lmbda", "model"], sort=False):
        line = f"{_codec(rows.iloc[0].to_dict()):32}"
        for name in headings:
            column = _column(rows, f"{name}_bpp")
            cell = f"{column.mean():.4f}"
            if len(rows) > 1:
                cell += f"±{column.std(ddof=1) / len(rows) ** 0.5:.4f}"
            if name == "neg_log_gamma_upper":
                cell += f" ({np.linalg.norm(_column(rows, f'{name}_stderr_bpp')) / len(rows):.4f})"
            line += f"{cell:>24}"
        lines.append(line)
    return "\n".join(lines)


def format_both_sides(table: pd.DataFrame) -> str:
    """Return what the command prints of images drawn from the codecs: means of both bounds, mean and largest gap."""
    lines = [
        "how far -log Gamma may be off: images drawn from the codec itself, bounds of -log Gamma in bits per pixel",
        f"{'':32}{'upper (E)':>12}{'lower (E)':>12}{'mean gap':>16}{'largest gap':>16}",
    ]
    for _, rows in table.groupby(["lmbda", "model"], sort=False):
        upper, lower = (_column(rows, f"neg_log_gamma_{side}_bpp").mean() for side in ("upper", "lower"))
        gaps, stderrs = _column(rows, "bidirectional_gap_bpp"), _column(rows, "bidirectional_gap_stderr_bpp")
        mean = f"{gaps.mean():.4f}±{np.linalg.norm(stderrs) / len(rows):.4f}"
        largest = f"{gaps.max():.4f}±{stderrs[gaps.argmax()]:.4f}"
        lines.append(f"{_codec(rows.iloc[0].to_dict()):32}{upper:>12.4f}{lower:>12.4f}{mean:>16}{largest:>16}")
    return "\n".join(lines)


def draw(table: pd.DataFrame) -> Figure:
    """Draw costs as stacked bars, one per image for one codec at one lmbda, else means of each.

    Every term has the error bar of that term at its end: of its estimate for an image, over images for a mean. The
    rounded codec is a marker of its own.
    """
    from matplotlib.figure import Figure

    mean = means(table)
    if len(mean) == 1:
        rows = [(str(row["image"]), row, "stderr") for row in table.to_dict(orient="records")]
        errors, weight = "of the estimate", f"{mean['lmbda'][0]:g}"
    else:
        stderr = "image_stderr" if _column(mean, "images").min() > 1 else "estimator_stderr"
        rows = [(_codec(row), row, stderr) for row in mean.to_dict(orient="records")]
        errors, weight = ("over images" if stderr == "image_stderr" else "of the estimate"), "$\\lambda$"

    figure = Figure(figsize=(6.5, 1.8 + 0.32 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for position, (_, row, stderr) in enumerate(rows):
        left = 0.0
        for name, (_, colour) in _TERMS.items():
            axes.barh(position, row[f"{name}_bpp"], left=left, height=0.7, color=colour, linewidth=0)
            left += row[f"{name}_bpp"]
            error = row[f"{name}_{stderr}_bpp"]
            axes.errorbar(left, position - 0.1, xerr=error, fmt="none", ecolor="black", elinewidth=1, capsize=2)
        axes.plot(row["rounded_bpp"], position + 0.2, **_DIAMOND)  # clear of the error bars
    bars = [axes.bar(0, 0, color=colour, label=label) for label, colour in _TERMS.values()]
    markers = axes.plot([], [], **_DIAMOND, label="rounded codec (another model)")
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel(f"Cost, rate + {weight} MSE [bpp]\nerror bars: one standard error of each term, {errors}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    figure.legend(handles=[*bars, *markers], loc="outside upper center", ncols=2, frameon=False, fontsize="small")
    return figure


def _codec(row: Mapping[Any, Any]) -> str:
    return f"{_short(row['model'])}, lmbda {row['lmbda']:g}"


def _short(model: str) -> str:
    return Path(model).stem if model.endswith(".safetensors") else model
