"""The rate-distortion function of a Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor


def water_filling(variances: Tensor, water_level: float) -> tuple[float, float]:
    """Return rate in nats and distortion, the sum of squared errors, of independent Gaussians.

    Each variance above the water level is described down to it, the others not at all (Cover & Thomas, theorem 10.3.3).
    This is the point of slope `dR/dD = -1 / (2 water_level)`.

    Args:
        variances: (number,).
        water_level: Largest squared error of a component, positive.
    """
    above = variances.clamp(min=water_level)
    return float(0.5 * torch.log(above / water_level).sum()), float(variances.clamp(max=water_level).sum())
