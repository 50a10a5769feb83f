"""BD-rates over BPG on Kodak beside complexities, of models measured here and of published ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from _figure import PUBLISHED, read

from rdgap.schemas import BD, COMPLEXITY


@dataclass(frozen=True, kw_only=True)
class Point:
    """A codec: its complexity and its BD-rate over BPG (curve of mean PSNR, PCHIP).

    Attributes:
        model: Its recipe.
        published: What its published points are called; empty where it was measured here.
        macs_per_pixel: Of the transforms asked for.
        bd_rate_percent: Its BD-rate.
        errors: Distances to the ends of the 95 % interval over images, below and above; None where there is none.
    """

    model: str
    published: str
    macs_per_pixel: float
    bd_rate_percent: float
    errors: Any


def bd_points(transforms: Sequence[str]) -> list[Point]:
    """Return every codec that has both, with the MACs of `transforms` together, as "synthesis"."""
    complexity = read("complexity.csv", COMPLEXITY)
    complexity = complexity.loc[complexity["transform"].isin(list(transforms)), :]
    macs: dict[str, float] = complexity.groupby("codec")["macs_per_pixel"].sum().to_dict()
    points = []
    for row in _chosen("kodak_bd_rate.csv"):
        if row["codec"] in macs:
            points.append(_point(row["codec"], "", macs[row["codec"]], row))
    of_paper: dict[str, dict[Any, Any]] = {
        f"paper/{row['codec']}": row for row in _chosen("published_bd_rate.csv") if row["anchor"] == "bpg"
    }
    averaged = read("published_baselines_bd_rate.csv")
    averaged = averaged.loc[(averaged["dataset"] == "kodak") & (averaged["interpolation"] == "pchip"), :]
    for row in averaged.to_dict("records"):
        model, _ = PUBLISHED.get(row["codec"], ("", ""))
        if model in macs:
            with_interval = {**row, **of_paper.get(row["codec"], {})}
            points.append(_point(model, row["codec"], macs[model], with_interval))
    return points


def _chosen(table: str) -> list[dict[Any, Any]]:
    rows = read(table, BD)
    of_kodak = (rows["dataset"] == "kodak") & (rows["measure"] == "psnr")
    return rows.loc[of_kodak & (rows["interpolation"] == "pchip") & (rows["averaging"] == "mean quality"), :].to_dict(
        "records"
    )


def _point(model: str, published: str, macs_per_pixel: float, row: dict[Any, Any]) -> Point:
    rate = row["bd_rate_percent"]
    ends = [row.get(f"bd_rate_{end}_percent", float("nan")) for end in ("low", "high")]
    errors = None if any(end != end for end in ends) else [[abs(rate - ends[0])], [abs(ends[1] - rate)]]
    return Point(model=model, published=published, macs_per_pixel=macs_per_pixel, bd_rate_percent=rate, errors=errors)
