"""What the command prints: one pair in detail, or a line for each codec."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def format_pair(row: dict[Any, Any]) -> str:
    """Describe the row of one pair."""
    geodesic = () if math.isnan(row["zeta_lower"]) else (_geodesic_line(row),)
    lines = (
        ("length of the decoded curve", with_error(row["length"], row["length_error"]), "pixel values in [0, 1]"),
        ("chord between reconstructions", with_error(row["chord"], row["length_error"]).split()[0], "same unit"),
        ("eta = length / chord", with_error(row["eta"], row["eta_error"]), "1: straight"),
        *geodesic,
        ("speed variation", f"{100 * row['speed_variation']:.3g} %", "standard deviation / mean"),
        ("largest deviation / chord", f"{100 * row['max_deviation_over_chord']:.3g} %", "across the chord"),
        ("largest MSE to straight paths", "", "0..255 scale"),
        ("  between reconstructions", f"{row['max_mse_to_reconstructions']:.4g}", ""),
        ("  between originals", f"{row['max_mse_to_originals']:.4g}", ""),
    )
    return "\n".join(f"{label:<31}{quantity:<22}{remark}".rstrip() for label, quantity, remark in lines)


def _geodesic_line(row: dict[Any, Any]) -> tuple[str, str, str]:
    remark = "straight / shortest curve found; at most eta"
    if not row["geodesic_converged"]:
        remark = "search stopped before it converged; at most eta"
    return "zeta, lower bound", with_error(row["zeta_lower"], row["zeta_error"]), remark


def format_table(table: pd.DataFrame) -> str:
    """Describe many pairs: a line for each model and lmbda, medians over pairs."""
    with_geodesics = bool(table["zeta_lower"].notna().any())
    header = f"{'model':<24}{'lmbda':>8}{'pairs':>7}{'eta, median':>13}{'range':>18}{'error <':>10}{'speed var.':>12}"
    lines = [header + f"{'deviation':>11}" + (f"{'zeta >':>9}{'converged':>11}" if with_geodesics else "")]
    for row in summaries(table).to_dict("records"):
        lmbda = "-" if math.isnan(row["lmbda"]) else f"{row['lmbda']:g}"
        extent = f"{row['eta_min']:.4f}-{row['eta_max']:.4f}"
        line = f"{row['model']:<24}{lmbda:>8}{row['pairs']:>7}{row['eta_median']:>13.5f}{extent:>18}"
        line += f"{row['eta_error_max']:>10.1e}{100 * row['speed_variation_median']:>10.2f} %"
        line += f"{100 * row['max_deviation_over_chord_median']:>9.2f} %"
        if with_geodesics:
            line += f"{row['zeta_lower_median']:>9.5f}{row['geodesics_converged']:>11}"
        lines.append(line)
    return "\n".join(lines)


def summaries(table: pd.DataFrame) -> pd.DataFrame:
    """Return medians and ranges over pairs, one row for each model, lmbda, crop and treatment of hyper latents."""
    grouped = table.groupby(["model", "lmbda", "crop", "hyper"], dropna=False)
    return grouped.agg(
        pairs=("eta", "size"),
        eta_median=("eta", "median"),
        eta_min=("eta", "min"),
        eta_max=("eta", "max"),
        eta_error_max=("eta_error", "max"),
        speed_variation_median=("speed_variation", "median"),
        max_deviation_over_chord_median=("max_deviation_over_chord", "median"),
        zeta_lower_median=("zeta_lower", "median"),
        geodesics_converged=("geodesic_converged", lambda flags: int(flags.sum())),
    ).reset_index()


def with_error(number: float, error: float) -> str:
    """Format with as many decimals as the error, rounded up to one digit, supports: `1.0384 +- 0.0002`."""
    decimals = max(0, -math.floor(math.log10(error)))
    step = 10.0**-decimals
    return f"{number:.{decimals}f} +- {math.ceil(error / step) * step:.{decimals}f}"
