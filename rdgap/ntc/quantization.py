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


class Share:
    """Random numbers for some samples of a batch: those that they would have if the whole batch were drawn for.

    Args:
        generator: The same for the whole batch.
        samples: Which of the batch's samples are asked for.
        batch_size: How many there are.
    """

    def __init__(self, generator: torch.Generator, samples: range, batch_size: int) -> None:
        self.generator, self.samples, self.batch_size = generator, samples, batch_size


def unit_noise(latents: Tensor, generator: torch.Generator | Share) -> Tensor:
    """Draw from the unit box about 0, shaped like `latents`."""
    draw = {"dtype": latents.dtype, "device": latents.device}
    if isinstance(generator, torch.Generator):
        return torch.rand(latents.shape, generator=generator, **draw) - 0.5
    whole = torch.rand((generator.batch_size, *latents.shape[1:]), generator=generator.generator, **draw) - 0.5
    return whole[generator.samples.start : generator.samples.stop]


def imitate(
    latents: Tensor, quantization: Quantization, noise: Tensor, offset: Tensor | float = 0.0
) -> tuple[Tensor, Tensor]:
    """Return the latents that the rate sees and those that the decoder sees, each shaped like `latents`."""
    if quantization == "straight-through":
        rounded = round_straight_through(latents, offset)
        return rounded, rounded
    noisy = latents + noise
    return noisy, noisy if quantization == "noise" else round_straight_through(latents, offset)
