"""How quantization is imitated in training: what the rate sees and what the decoder sees."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Quantization = Literal["noise", "straight-through", "mixed"]
"""`noise`: rate and decoder see `y + u` (Balle et al. 2017). `straight-through`: both see rounded latents with the
gradient of the identity (Theis et al. 2017). `mixed`: the rate sees `y + u`, the decoder rounded ones
(Minnen & Singh 2020).
"""


def round_straight_through(latents: Tensor, offset: Tensor | float = 0.0) -> Tensor:
    """Round to the integers shifted by `offset`; the gradient is that of the identity in `latents`."""
    rounded = torch.round(latents - offset) + offset
    return latents + (rounded - latents).detach()


def unit_noise(latents: Tensor, generator: torch.Generator) -> Tensor:
    """Draw from the unit box about 0, shaped like `latents`."""
    return torch.rand(latents.shape, generator=generator, dtype=latents.dtype, device=latents.device) - 0.5


def imitate(
    latents: Tensor, quantization: Quantization, noise: Tensor, offset: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the latents that the rate sees and those that the decoder sees, each shaped like `latents`."""
    if quantization == "straight-through":
        rounded = round_straight_through(latents, offset)
        return rounded, rounded
    noisy = latents + noise
    return noisy, noisy if quantization == "noise" else round_straight_through(latents, offset)
