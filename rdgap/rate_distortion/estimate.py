"""The one result of every estimator: a point of a rate-distortion function, its side and its error."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Literal

from torch import Tensor

Side = Literal["exact", "upper", "lower", "estimate"]
"""Of `F`: `exact` closed forms, bounds (in expectation, where they are sampled), or an estimate without a side."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """`F(lmbda) = inf I(X;Y) + lmbda E rho(X,Y)` and where the curve has that slope.

    Attributes:
        method: What computed it.
        side: On which side of `F` it lies.
        lmbda: Nats per unit of the source's distortion.
        f_nats: `F(lmbda)`, in nats per sample of the source; equals `rate_nats + lmbda * distortion`.
        stderr_nats: Monte Carlo error of `f_nats`; 0 where nothing was drawn.
        rate_nats: Rate in nats; NaN where a bound belongs to no channel.
        distortion: Per sample, in the source's own unit; NaN where a bound belongs to no channel.
        seconds: Wall-clock time.
    """

    method: str
    side: Side
    lmbda: float
    f_nats: float
    stderr_nats: float = 0.0
    rate_nats: float = math.nan
    distortion: float = math.nan
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what is no number: a failed computation must not pass for a point."""
        if not (math.isfinite(self.f_nats) and math.isfinite(self.stderr_nats)):
            raise RuntimeError(
                f"{self.method}: F must be finite, got {self.f_nats} +- {self.stderr_nats} at lmbda {self.lmbda}."
            )

    def to_row(self) -> dict[str, object]:
        """Return the fields by name."""
        return asdict(self)


def check_counts(*counts: tuple[str, int, int]) -> None:
    """Raise `ValueError` unless every count, given with its name before it and its least value after it, is enough."""
    for name, count, least in counts:
        if count < least:
            raise ValueError(f"`{name}` must be at least {least}, got {count}.")


def from_samples(
    costs_nats: Tensor, distortions: Tensor, *, method: str, side: Side, lmbda: float, began: float
) -> Estimate:
    """Return the estimate whose `F` and distortion are means over independent samples, each (samples,).

    Args:
        costs_nats: Of each sample, rate and weighted distortion together.
        distortions: In the source's unit.
        method: Of the estimate.
        side: Of the estimate.
        lmbda: Of the estimate.
        began: `time.perf_counter()` when the work began.
    """
    cost, distortion = float(costs_nats.mean()), float(distortions.mean())
    return Estimate(
        method=method,
        side=side,
        lmbda=lmbda,
        f_nats=cost,
        stderr_nats=float(costs_nats.std()) / len(costs_nats) ** 0.5,
        rate_nats=cost - lmbda * distortion,
        distortion=distortion,
        seconds=time.perf_counter() - began,
    )
