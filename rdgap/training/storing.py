"""Storing trained weights in as few bits as hardly change what the codec costs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from .._kernels import steps_for
from ..ntc.codec import NTCCodec
from ..recipes import Recipe
from ..zoo import Kernels, read_codec, write_codec
from .data import TrainingCrops, seeded
from .validation import Validation, validate

_CROPS = 24
_LARGEST_LOSS = 1e-3  # relative change of L that storing kernels in fewer bits may cost
_AIM = 6e-4  # of the next trial, less than the above: what rounded latents cost jumps
_COARSEST, _TRIALS = -17.5, 5


def store(
    path: Path,
    recipe: Recipe,
    averaged: NTCCodec,
    origin: dict[str, str],
    crops: TrainingCrops,
    images: Iterable[Tensor],
    full: Validation,
) -> tuple[Validation, str]:
    """Write the weights, their kernels in as few bits as hardly change L.

    Args:
        path: A .safetensors file.
        recipe: Of the codec.
        averaged: The codec.
        origin: Metadata, with `lmbda`.
        crops: Training images, which tell the kernels' sensitivities.
        images: Held-out images.
        full: What `averaged` costs on them.

    Returns:
        What the codec costs as it is read back from the file, and how that holds the kernels.

    Raises:
        RuntimeError: If the codec does not cost what it did even in full precision.
    """
    device = next(averaged.parameters()).device
    lmbda = float(origin["lmbda"])
    sensitivities = kernel_sensitivities(averaged, lmbda, crops)
    stored, coarseness = full, _COARSEST

    def loss_as(kernels: Kernels) -> float:
        nonlocal stored
        write_codec(path, recipe, averaged.state_dict(), origin, kernels=kernels)
        stored = validate(read_codec(path).to(device), images, lmbda)
        return abs(stored.lagrangian_bpp / full.lagrangian_bpp - 1)

    for _ in range(_TRIALS):
        loss = loss_as({name: steps_for(each, coarseness) for name, each in sensitivities.items()})
        if loss < _LARGEST_LOSS:
            return stored, "rounded to steps by their sensitivity, compressed"
        coarseness -= max(0.5, 0.5 * math.log2(max(loss, _AIM) / _AIM))  # the loss grows with the square of the steps
    if loss_as("float16") < _LARGEST_LOSS:
        return stored, "stored as float16"
    if loss_as("float32") < _LARGEST_LOSS:
        return stored, "stored as float32"
    raise RuntimeError(f"the weights read back from {path} must cost what they did, got {stored} after {full}.")


def kernel_sensitivities(codec: NTCCodec, lmbda: float, crops: TrainingCrops) -> dict[str, Tensor]:
    """Return the mean squared gradients of L, in bpp, on single crops: for each kernel (rows, columns).

    Where training has come to rest they stand for the second derivatives, which say what rounding costs. The codec does
    not track gradients afterwards.
    """
    kernels = {name: kernel for name, kernel in codec.named_parameters() if kernel.ndim == 4}
    squares = {name: kernel.new_zeros(kernel.shape[:2], dtype=torch.float64) for name, kernel in kernels.items()}
    like = next(codec.parameters())
    codec.requires_grad_(True)
    for number in range(_CROPS):
        image = crops.batch(number, 1).to(like)
        rate_nats, squared_error = codec(image, seeded(like.device, number))
        cost = (rate_nats / math.log(2) + lmbda * squared_error).sum() / (image.shape[-2] * image.shape[-1])
        gradients = torch.autograd.grad(cost, list(kernels.values()), materialize_grads=True)
        for name, gradient in zip(kernels, gradients, strict=True):
            squares[name] += gradient.double().square().mean((2, 3)) / _CROPS
    codec.requires_grad_(False)
    return {name: square.cpu() for name, square in squares.items()}
