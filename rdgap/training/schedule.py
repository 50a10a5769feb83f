"""The paper's schedule, scaled to the steps of a run: learning rate, warm-up of lmbda, rates per tensor."""

from __future__ import annotations

import math
from typing import Any

from ..ntc.codec import NTCCodec
from ..recipes import Training

_SMALLEST_SCALE = 3e-3  # of a relative learning rate, for tensors that start at zero


def learning_rate_factor(plan: Training, step: int, steps: int) -> float:
    """Return the learning rate of a step as a fraction of the recipe's: linear warm-up, then the recipe's decay."""
    warmup = max(1, round(plan.warmup_fraction * steps))
    rising = min(1.0, (step + 1) / warmup)
    if plan.decay == "step":
        return rising * (0.1 if step >= 0.8 * steps else 1.0)
    return rising * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def lmbda_boost(plan: Training, lmbda: float, step: int, steps: int) -> float:
    """Return the factor of lmbda: ten in the first part of the steps where lmbda is .01 or less."""
    return 10.0 if lmbda <= 0.01 and step < plan.boosted_fraction * steps else 1.0


def average_decay(plan: Training, step: int) -> float:
    """Return the weight of the running average's past at step number `step`, from 1; a young average forgets faster."""
    return min(plan.average_decay, (1 + step) / (10 + step))


def parameter_groups(plan: Training, codec: NTCCodec) -> list[dict[str, Any]]:
    """Return the parameters with the scale of each one's learning rate.

    Adam moves every weight by about the learning rate. The transforms' natural sizes differ a hundredfold between the
    first and the last layers, and with lmbda, so one rate for all either wrecks the small ones or leaves the large ones
    where they are; `relative` rates are in units of each tensor's root mean square at the start.
    """
    if not plan.relative_learning_rate:
        return [{"params": list(codec.parameters()), "scale": 1.0}]
    return [
        {"params": [parameter], "scale": max(_SMALLEST_SCALE, parameter.detach().square().mean().sqrt().item())}
        for parameter in codec.parameters()
    ]
