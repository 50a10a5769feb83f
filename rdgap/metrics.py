"""Distortion of decoded images: squared error, PSNR and multi-scale structural similarity.

Images are float tensors, (batch, 3, height, width), in [0, 1]. Nothing is rounded here: evaluation passes what
`rdgap.images.to_8bit` returns, so that the numbers are those of a written file.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MS_SSIM_MIN_SIDE = 161
"""Shorter side of the smallest image whose fifth scale, 1/16 of the size, still holds the 11 x 11 window."""


def mse(images: Tensor, decoded: Tensor) -> Tensor:
    """Return the squared error averaged over pixels and channels on the 0..255 scale, (batch,), float64.

    Raises:
        ValueError: If the shapes differ.
    """
    _check_shapes(images, decoded)
    return ((decoded.double() - images.double()) * 255.0).square().mean(dim=(-3, -2, -1))


def psnr_db(mse: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio `10 log10(255^2 / mse)` in dB; `inf` where `mse` is zero."""
    return 20.0 * math.log10(255.0) - 10.0 * torch.log10(mse)


def ms_ssim(images: Tensor, decoded: Tensor) -> Tensor:
    """Return the multi-scale structural similarity of each image, averaged over the channels, (batch,), float64.

    Five scales with the weights of Wang, Simoncelli & Bovik (2003) and an 11 x 11 Gaussian window. The last scale
    needs a shorter side of at least 161 pixels: the result is NaN for smaller images. Double precision throughout,
    because variances cancel in flat areas: single precision moves the result of a clear sky by 2e-5.

    Raises:
        ValueError: If the shapes differ.
    """
    _check_shapes(images, decoded)
    if min(images.shape[-2:]) < MS_SSIM_MIN_SIDE:
        return torch.full(images.shape[:1], math.nan, dtype=torch.float64, device=images.device)
    from pytorch_msssim import ms_ssim as multi_scale

    return multi_scale(decoded.double(), images.double(), data_range=1.0, size_average=False)


def _check_shapes(images: Tensor, decoded: Tensor) -> None:
    if images.ndim != 4 or images.shape != decoded.shape:
        raise ValueError(
            "Images and decoded images must be (batch, channels, height, width) of one shape, "
            f"got {tuple(images.shape)} and {tuple(decoded.shape)}."
        )
