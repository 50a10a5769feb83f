"""Least-squares fits of convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..ntc.layers import Convolution

SIGNS = torch.tensor([1.0, -1.0])
"""Of a value that passes rectifiers, a channel for each."""


def fit_outputs(layer: Convolution, outputs: slice, features: Tensor, target: Tensor, ridge: float = 1e-6) -> None:
    """Set some outputs of a layer to the least-squares fit of `target`, without overlap, in place.

    Args:
        layer: A transposed convolution, or a convolution of stride one, of which the middle of the kernel is used.
        outputs: As many channels as `target` has; all their weights are set.
        features: What enters the layer, (batch, in_channels, height, width).
        target: (batch, outputs, height * stride, width * stride).
        ridge: As in `least_squares`.
    """
    channels, is_up = target.shape[1], isinstance(layer, nn.ConvTranspose2d)
    stride = int(layer.stride[0]) if is_up else 1
    solution = least_squares(pixels_of(features), blocks_of(target, stride), ridge)
    kernels, offset = solution[:-1], solution[-1]
    start = int(layer.padding[0])
    inner = slice(start, start + stride)
    weight = layer.weight if is_up else layer.weight.transpose(0, 1)
    weight[:, outputs] = 0
    weight[:, outputs, inner, inner] = kernels.reshape(-1, channels, stride, stride)
    bias_of(layer)[outputs] = offset.reshape(channels, -1).mean(1)


def least_squares(inputs: Tensor, targets: Tensor, ridge: float = 1e-6) -> Tensor:
    """Return the affine map, the offset as its last row; `ridge` is in units of the inputs' mean variance."""
    inputs_mean, targets_mean = inputs.double().mean(0), targets.double().mean(0)
    centered = inputs.double() - inputs_mean
    gram = centered.T @ centered
    penalty = ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    linear = torch.linalg.solve(gram + penalty, centered.T @ (targets.double() - targets_mean))
    return torch.cat([linear, targets_mean[None] - inputs_mean[None] @ linear]).to(inputs.dtype)


def blocks_of(features: Tensor, stride: int) -> Tensor:
    """Cut (batch, channels, height, width) into vectors (number, channels * stride * stride), row by row."""
    return functional.pixel_unshuffle(features, stride).permute(0, 2, 3, 1).flatten(0, 2)


def pixels_of(features: Tensor) -> Tensor:
    """Return the vectors (number, channels) at all positions."""
    return features.permute(0, 2, 3, 1).flatten(0, 2)


def bias_of(layer: Convolution) -> Tensor:
    """Return the bias of a layer that has one."""
    assert layer.bias is not None  # only the last layer of Balle's analysis has none
    return layer.bias


def convolutions_of(transform: nn.Module) -> list[Convolution]:
    """Return the convolutions among the layers of a transform, in order."""
    return [layer for layer in transform.children() if isinstance(layer, Convolution)]
