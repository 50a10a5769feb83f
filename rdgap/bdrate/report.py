"""Comparisons as tables: tidy rows for programs; text, Markdown and LaTeX with a caption that defines the numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .comparison import CONFIDENCE, Averaging, Comparison, Delta, Interval, QualityRange
from .measures import MEASURES, Measure

if TYPE_CHECKING:
    import pandas as pd

_INTERPOLATIONS = {
    "pchip": "PCHIP",
    "akima": "Akima",
    "cubic": "cubic (one least-squares cubic)",
}


def frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return the rows of a table of the schema `rdgap.schemas.BD`."""
    import pandas as pd

    return pd.DataFrame([_row(comparison, delta) for comparison in comparisons for delta in comparison.deltas.values()])


def _row(comparison: Comparison, delta: Delta) -> dict[str, str | int | float]:
    subset = comparison.subset_changes_percent
    has_subset = delta.averaging == "mean quality" and subset.size > 0
    return {
        "codec": comparison.test,
        "rate_kind": comparison.test_rate_kind,
        "anchor": comparison.anchor,
        "anchor_rate_kind": comparison.anchor_rate_kind,
        "dataset": comparison.dataset,
        "measure": comparison.measure,
        "interpolation": comparison.interpolation,
        "averaging": delta.averaging,
        "range": comparison.quality_range if isinstance(comparison.quality_range, str) else "given",
        "quality_low": delta.quality_low,
        "quality_high": delta.quality_high,
        "bd_rate_percent": delta.bd_rate_percent.value,
        "bd_rate_low_percent": delta.bd_rate_percent.low,
        "bd_rate_high_percent": delta.bd_rate_percent.high,
        "bd_quality": delta.bd_quality.value,
        "bd_quality_low": delta.bd_quality.low,
        "bd_quality_high": delta.bd_quality.high,
        "largest_subset_change_percent": float(np.abs(subset).max()) if has_subset else math.nan,
        "images": delta.images,
        "images_without_bd": comparison.num_images - delta.images,
        "resamples": comparison.resamples,
        "undefined_resamples": delta.undefined_resamples,
    }


def caption(comparisons: Sequence[Comparison], anchor: str) -> str:
    """Return one paragraph that defines every number of `cells`.

    Args:
        comparisons: Of one anchor, measure and rule for the range.
        anchor: What the anchor is.
    """
    one = comparisons[0]
    measure = MEASURES[one.measure]
    kinds = list(dict.fromkeys(_INTERPOLATIONS[comparison.interpolation] for comparison in comparisons))
    rates = " and ".join(sorted({comparison.test_rate_kind for comparison in comparisons}))
    images = f"{one.num_images} image{'s' if one.num_images > 1 else ''}"
    datasets = " and ".join(sorted({comparison.dataset for comparison in comparisons}))
    intervals = (
        f"In brackets: {CONFIDENCE:.0%} intervals of a paired bootstrap over images ({one.resamples} resamples). "
        if one.resamples
        else ""
    )
    return (
        f"BD-rate [%] over the anchor {one.anchor} ({anchor}; {one.anchor_rate_kind} rate), negative is better: "
        f"mean difference of ln(bpp) at equal {measure.label}, {rates} rates, {images} of {datasets}. "
        f"Range of {measure.label}: {_rule(one.quality_range, measure)}. "
        f"Interpolation of ln(bpp) over {measure.axis}: {', '.join(kinds)}. "
        f"Averaging: {_averagings(measure)}. {intervals}"
        "Subset: largest change of the BD-rate, in percentage points, when one inner point of either curve is left "
        f"out. BD-{measure.label}: mean difference of {_difference(measure)} at equal rate, positive is better; "
        f"{kinds[0]}."
    )


def _rule(rule: QualityRange, measure: Measure) -> str:
    if rule == "common":
        return "all that codec and anchor have in common, for each pair of curves"
    if rule == "aligned":
        return "what the anchor and all codecs of the table have in common, for each kind of curve"
    return f"{measure.span(*rule)}, given"


def _averagings(measure: Measure) -> str:
    of_mean = {"PSNR": "PSNR of the mean MSE", "MS-SSIM": "dB of the mean MS-SSIM"}.get(measure.label, "the same")
    mean = f"mean of {measure.unit}" if measure.unit else f"mean {measure.label}"
    return (
        f'"mean quality", curve of mean bpp and {mean} at each setting; "mean distortion", curve of mean bpp and '
        f'{of_mean}; "images", mean of the images\' own BD-rates, the range being the mean of theirs'
    )


def _difference(measure: Measure) -> str:
    return measure.axis if measure.unit else f"-{measure.label}"


def cells(comparisons: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Return a header and one row per codec and averaging, the interpolations side by side, as short texts.

    Args:
        comparisons: Of one anchor, measure and rule for the range, in any order.
    """
    kinds = list(dict.fromkeys(comparison.interpolation for comparison in comparisons))
    measure = MEASURES[comparisons[0].measure]
    header: tuple[str, ...] = ("codec", "rate", "averaging", "images", f"{measure.label} range", *kinds)
    rows: list[tuple[str, ...]] = [(*header, "subset", f"BD-{measure.label}")]
    by_codec: dict[tuple[str, str], dict[str, Comparison]] = {}
    for comparison in comparisons:
        of_codec = by_codec.setdefault((comparison.test, comparison.test_rate_kind), {})
        of_codec[comparison.interpolation] = comparison
    for (codec, rate_kind), of_kind in by_codec.items():
        first = of_kind[kinds[0]]
        ways: list[Averaging] = [*first.deltas]
        if first.measure == "lpips":
            ways.remove("mean distortion")  # LPIPS is its own distortion
        for way in ways:
            delta = first.deltas[way]
            subset = first.subset_changes_percent
            shows_subset = way == "mean quality" and subset.size
            rows.append(
                (
                    codec,
                    rate_kind,
                    way,
                    str(delta.images) if delta.images == first.num_images else f"{delta.images} of {first.num_images}",
                    measure.span(delta.quality_low, delta.quality_high, 2) if delta.images else "-",
                    *(_with_interval(of_kind[kind].deltas[way].bd_rate_percent, "+.2f", "+.1f") for kind in kinds),
                    f"{np.abs(subset).max():.2f}" if shows_subset else "",
                    _with_interval(delta.bd_quality, "+.3f", "+.2f"),
                )
            )
    return rows


def _with_interval(interval: Interval, form: str, ends: str) -> str:
    if math.isnan(interval.value):
        return "-"
    if math.isnan(interval.low):
        return format(interval.value, form)
    return f"{interval.value:{form}} [{interval.low:{ends}}, {interval.high:{ends}}]"


def text(rows: Sequence[Sequence[str]]) -> str:
    """Return rows in columns for a terminal."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]], caption: str) -> str:
    """Return rows as a Markdown table, with the caption above."""
    header, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
    return "\n".join([caption, "", header, "|" + " --- |" * len(rows[0]), *body]) + "\n"


def latex(rows: Sequence[Sequence[str]], caption: str) -> str:
    """Return rows as a LaTeX table environment, with the caption; it needs the package booktabs."""
    header, *body = (" & ".join(map(_escaped, row)) + r" \\" for row in rows)
    lines = [
        r"\begin{table}",
        rf"\caption{{{_escaped(caption)}}}",
        rf"\begin{{tabular}}{{{'l' * len(rows[0])}}}",
        r"\toprule",
        header,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


_LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def _escaped(text: str) -> str:
    """Escape for LaTeX; a row that starts with a bracket would be read as an argument of the line before."""
    escaped = "".join(_LATEX.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)
    return f"{{}}{escaped}" if escaped.startswith("[") else escaped
