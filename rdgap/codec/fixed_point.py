"""Networks that have the same result on every machine, whatever the order of summation.

A decoder must arrive at the very means and scales that the encoder had, and the last digits of a floating-point
network depend on the device, the library and the number of threads. Here the weights are whole multiples of a power of
two, activations are rounded to multiples of `2^-FRACTION_BITS` before each convolution and after it, and everything is
scaled so that no sum of products can reach 2^53: the integers below that are exact in float64, hence so is each partial
sum, and any order, blocking or fused operation gives the same number.

Between convolutions, entries may be selected, joined, clipped and added. A hyperbolic tangent is fine, too: those of
multiples of `2^-FRACTION_BITS`, halved, lie at least 1e-9 steps of that grid away from where rounding to it turns, and
functions err by 1e-12 of them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..ntc.layers import CheckerboardConv2d, Convolution, Upsampling, as_convolution, checkerboard

FRACTION_BITS = 12
"""Activations, means and raw scales are multiples of `2^-FRACTION_BITS`."""

_ACTIVATION_BITS = 25  # of an activation as an integer: between -8192 and 8192, where it saturates
_SUM_BITS = 52  # one less than float64 holds, because rounding adds half a unit
_LEAST_WEIGHT_BITS = 10
_BLOCK_ENTRIES = 2**20  # of the matrix of patches: 8 MB


class FixedPointConvolution(nn.Module):
    """A convolution, or a transposed one, in integers; maps multiples of `2^-FRACTION_BITS` to such.

    A transposed convolution of stride s is a convolution to s^2 times the channels, one set for each phase, whose
    outputs are then interleaved. The kernels of a phase may begin and end with zeros, which are left out.

    Raises:
        ValueError: If the convolution is of a kind that the priors do not use, or its weights are too large.
    """

    bias: Tensor

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        weight = convolution.weight.detach().cpu().double()
        if isinstance(convolution, CheckerboardConv2d):
            weight = weight * ~checkerboard(weight)
        bias = weight.new_zeros(convolution.out_channels)
        if convolution.bias is not None:
            bias = convolution.bias.detach().cpu().double()
        self.out_channels = convolution.out_channels
        self.stride = 1
        if isinstance(convolution, nn.ConvTranspose2d):
            self.stride, size = convolution.stride[0], convolution.kernel_size[0]
            padding = _padding(convolution, self.stride)
            if convolution.output_padding[0] != self.stride + 2 * padding - size:
                raise ValueError(
                    "a transposed convolution must multiply height and width by its stride to be coded with."
                )
            weight, self.before, self.after = as_convolution(weight, self.stride, padding)
            bias = bias.repeat_interleave(self.stride**2)
        else:
            self.before = _padding(convolution, stride=1)
            self.after = convolution.kernel_size[0] - 1 - self.before
        self.kernel = weight.shape[-1]
        kernels = weight.permute(0, 2, 3, 1).flatten(1, 2)  # (outputs * stride^2, taps, inputs)
        self.weight_bits = _weight_bits(kernels.flatten(1), bias)
        phases = torch.round(kernels * 2.0**self.weight_bits).unflatten(0, (-1, self.stride**2)).unbind(1)
        supports = [_support(phase) for phase in phases]
        self._phases = [(taps, phase[:, taps].flatten(1)) for taps, phase in zip(supports, phases, strict=True)]
        self.register_buffer("bias", torch.round(bias * 2.0 ** (self.weight_bits + FRACTION_BITS))[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width), float64."""
        limit = 2.0**_ACTIVATION_BITS
        integers = _round_(x * 2.0**FRACTION_BITS).clamp_(-limit, limit)
        padded = functional.pad(integers, (self.before, self.after) * 2)
        sums = torch.stack([self._sums(image, x.shape[-2], x.shape[-1]) for image in padded])
        y = _round_(sums.add_(self.bias).mul_(2.0**-self.weight_bits)).mul_(2.0**-FRACTION_BITS)
        return functional.pixel_shuffle(y.unflatten(2, x.shape[-2:]), self.stride)

    def _sums(self, padded: Tensor, height: int, width: int) -> Tensor:
        """Return (outputs, height * width): one matrix product for each block of rows, which bounds the memory."""
        places = [(dy, dx) for dy in range(self.kernel) for dx in range(self.kernel)]
        rows = min(height, max(1, _BLOCK_ENTRIES // (len(places) * len(padded) * width)))
        sums = padded.new_empty(self.out_channels, len(self._phases), height, width)
        patches = padded.new_empty(len(places), len(padded), rows, width)
        for top in range(0, height, rows):
            block = patches[:, :, : min(rows, height - top)]
            for index, (dy, dx) in enumerate(places):
                block[index] = padded[:, top + dy : top + dy + block.shape[2], dx : dx + width]
            for index, (taps, weight) in enumerate(self._phases):
                products = weight @ block[taps].flatten(0, 1).flatten(1)
                sums[:, index, top : top + rows] = products.view(len(sums), -1, width)
        return sums.flatten(0, 1).flatten(1)


def _support(kernels: Tensor) -> slice:
    """Return from the first to the last tap, of (outputs, taps, inputs), at which any is not zero."""
    places = kernels.abs().sum((0, 2)).nonzero().flatten().tolist()
    return slice(places[0], places[-1] + 1) if places else slice(0, 1)


def _padding(convolution: Convolution, stride: int) -> int:
    """Return the padding on each side, after a look at all else."""
    padding = convolution.padding[0]
    square = len(set(convolution.kernel_size)) == 1 and len(set(convolution.padding)) == 1
    plain = convolution.groups == 1 and set(convolution.dilation) == {1} and convolution.padding_mode == "zeros"
    if not (square and plain and isinstance(padding, int) and set(convolution.stride) == {stride}):
        raise ValueError(f"only plain square convolutions can be evaluated in fixed point, got {convolution}.")
    return padding


def _weight_bits(weight: Tensor, bias: Tensor) -> int:
    """Return the most fractional bits of the weights at which no sum can reach 2^52."""
    # Sums of whole multiples of 2^-16, rounded up, are exact as well: the answer is the same everywhere.
    weights = torch.ceil(weight.abs() * 2.0**16).sum(1) * 2.0 ** (_ACTIVATION_BITS - 16)
    largest = float((weights + bias.abs() * 2.0**FRACTION_BITS).max())
    rounding = 0.5 * weight.shape[1] * 2.0**_ACTIVATION_BITS + 1.0  # adds at most half a unit to each weight and bias
    bits = math.frexp((2.0**_SUM_BITS - rounding) / max(largest, 1.0))[1] - 1
    if not bits >= _LEAST_WEIGHT_BITS:
        raise ValueError("the weights of the prior are too large, or not finite, to code with in fixed point.")
    return bits


def on_grid(x: Tensor) -> Tensor:
    """Round to multiples of `2^-FRACTION_BITS`."""
    return _round_(x * 2.0**FRACTION_BITS).mul_(2.0**-FRACTION_BITS)


def _round_(x: Tensor) -> Tensor:
    """Round in place, halves upwards."""
    return x.add_(0.5).floor_()


_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d, CheckerboardConv2d, Upsampling)
_EXACT_AS_THEY_ARE = (nn.ReLU, nn.LeakyReLU, nn.Identity)  # at most one operation for each entry


def in_fixed_point(network: nn.Module) -> nn.Module:
    """Return a copy of a network, on the CPU, whose convolutions are in fixed point, for float64 inputs.

    Raises:
        ValueError: If a layer cannot be evaluated in fixed point.
    """
    if isinstance(network, Convolution) and type(network) in _CONVOLUTIONS:
        return FixedPointConvolution(network)
    if isinstance(network, _EXACT_AS_THEY_ARE):
        return network
    children = dict(network.named_children())
    if not children or any(True for _ in network.parameters(recurse=False)):
        raise ValueError(f"a {type(network).__name__} cannot be evaluated in fixed point.")
    return with_children(network, {name: in_fixed_point(child) for name, child in children.items()})


def with_children(network: nn.Module, children: Mapping[str, nn.Module]) -> nn.Module:
    """Return a shallow copy of a network with other modules in it."""
    twin = copy.copy(network)
    twin._modules = {**network._modules, **children}
    return twin
