"""Validation: what a codec costs on held-out images."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..images import to_8bit
from ..metrics import mse, psnr_db
from ..ntc.codec import NTCCodec
from ..objective import cost, reconstruct


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Means over validation images under hard rounding, with 8-bit reconstructions.

    Attributes:
        lagrangian_bpp: `rate_bpp + lmbda * mse`.
        rate_bpp: Bits per pixel.
        mse: On the 0..255 scale.
        psnr_db: Mean of the images' PSNRs.
    """

    lagrangian_bpp: float
    rate_bpp: float
    mse: float
    psnr_db: float

    def __str__(self) -> str:
        return f"L {self.lagrangian_bpp:.4f}, {self.rate_bpp:.4f} bpp, {self.psnr_db:.2f} dB"

    @property
    def is_finite(self) -> bool:
        """Whether rate and error are numbers; an error of zero has an infinite PSNR, which is fine."""
        return math.isfinite(self.lagrangian_bpp)


@torch.inference_mode()
def validate(codec: NTCCodec, images: Iterable[Tensor], lmbda: float) -> Validation:
    """Evaluate a codec under hard rounding with 8-bit reconstructions; means over the images.

    Args:
        codec: The codec, on any device.
        images: Each (3, height, width) in [0, 1], of any size, on any device.
        lmbda: Weight of the MSE.
    """
    device = next(codec.parameters()).device
    rates, errors = [], []
    for image in images:
        batch = image[None].to(device)
        height, width = image.shape[-2:]
        latents = codec.quantize(codec.infer(batch))
        rates.append(float(cost(codec, latents, batch, lmbda).rate_bpp))
        errors.append(float(mse(batch, to_8bit(reconstruct(codec, latents, (height, width))))))
    rate_bpp, mean_mse = sum(rates) / len(rates), sum(errors) / len(errors)
    return Validation(
        lagrangian_bpp=rate_bpp + lmbda * mean_mse,
        rate_bpp=rate_bpp,
        mse=mean_mse,
        psnr_db=float(psnr_db(torch.tensor(errors, dtype=torch.float64)).mean()),
    )
