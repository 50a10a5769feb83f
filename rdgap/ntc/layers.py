"""Layers that the transforms are built of: strided convolutions, GDN, and ELIC's residual blocks."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

Convolution: TypeAlias = nn.Conv2d | nn.ConvTranspose2d


def down(in_channels: int, out_channels: int, kernel: int, stride: int = 1, *, bias: bool = True) -> nn.Conv2d:
    """Convolution that divides height and width (multiples of `stride`) by exactly `stride`."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=(kernel - 1) // 2, bias=bias)


class Upsampling(nn.ConvTranspose2d):
    """Transposed convolution that multiplies height and width by exactly its stride.

    One with few outputs runs as other operations on a CPU, equal up to rounding and two to five times as fast, because
    oneDNN's kernels work on blocks of sixteen channels: as a matrix product whose columns are added up where they
    overlap, or, where kernels overlap more than twice, as a convolution whose outputs are interleaved.

    Raises:
        ValueError: If the kernel is smaller than the stride, which would leave pixels that nothing reaches.
    """

    FEW = 4

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, *, bias: bool = True) -> None:
        if kernel < stride:
            raise ValueError(
                f"the kernel of a transposed convolution must cover its stride, got {kernel} for {stride}."
            )
        padding = (kernel - stride + 1) // 2
        surplus = 2 * padding - (kernel - stride)
        super().__init__(in_channels, out_channels, kernel, stride, padding, output_padding=surplus, bias=bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, height * stride, width * stride)."""
        if output_size is not None or input.device.type != "cpu" or self.out_channels > self.FEW:
            return super().forward(input, output_size)
        (kernel, _), (stride, _), (padding, _) = self.kernel_size, self.stride, self.padding
        assert isinstance(padding, int)
        if kernel > 2 * stride:
            weight, before, after = as_convolution(self.weight, stride, padding)
            bias = None if self.bias is None else self.bias.repeat_interleave(stride**2)
            if before != after:  # else the convolution pads by itself, without a copy
                input, before = functional.pad(input, (before, after) * 2), 0
            phases = functional.conv2d(input, weight, bias, padding=before)
            by_phase = phases.unflatten(1, (-1, stride, stride))  # `pixel_shuffle` does the same, more slowly
            return by_phase.permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
        columns = self.weight.flatten(1).T @ input.flatten(2)
        size = (input.shape[-2] * stride, input.shape[-1] * stride)
        output = functional.fold(columns, size, kernel, padding=padding, stride=stride)
        return output if self.bias is None else output + self.bias.to(output.dtype)[:, None, None]


def as_convolution(weight: Tensor, stride: int, padding: int) -> tuple[Tensor, int, int]:
    """Return the convolution whose outputs, once interleaved, are those of an `Upsampling`.

    Output `s q + r` of a transposed convolution sums `x[q + d] w[r + padding - s d]` over all d for which the kernel
    has that entry: a set of kernels for each phase r.

    Args:
        weight: (inputs, outputs, kernel, kernel), of the transposed convolution.
        stride: Likewise.
        padding: Likewise.

    Returns:
        The kernel, (outputs * stride^2, inputs, taps, taps), the phases innermost among the outputs, and the zeros
        that the input needs before and after it.
    """
    inputs, outputs, size, _ = weight.shape
    front = -padding % stride
    taps = -(-(size + front) // stride)
    back = taps * stride - size - front
    split = functional.pad(weight, (front, back) * 2).view(inputs, outputs, taps, stride, taps, stride)
    kernel = split.flip(2, 4).permute(1, 3, 5, 0, 2, 4).reshape(outputs * stride**2, inputs, taps, taps)
    after = (padding + front) // stride
    return kernel, taps - 1 - after, after


def up(in_channels: int, out_channels: int, kernel: int, stride: int, *, bias: bool = True) -> Upsampling:
    """Transposed convolution that multiplies height and width by exactly `stride`; errors as `Upsampling`."""
    return Upsampling(in_channels, out_channels, kernel, stride, bias=bias)


class CheckerboardConv2d(nn.Conv2d):
    """Convolution that sees only positions of the other color of a checkerboard (He et al. 2021).

    The kernel, of odd size, is zero wherever the distances to its middle, down and across, add up to an even number.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=kernel // 2)

    def forward(self, input: Tensor) -> Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, height, width)."""
        kernel = self.weight * ~checkerboard(self.weight)
        return functional.conv2d(input, kernel, self.bias, padding=self.kernel_size[0] // 2)


def checkerboard(like: Tensor) -> Tensor:
    """Return a mask of the last two dimensions of `like`, true where row and column add up to an even number."""
    rows, columns = (torch.arange(size, device=like.device) for size in like.shape[-2:])
    return (rows[:, None] + columns) % 2 == 0


class LowerBound(torch.autograd.Function):
    """`max(x, bound)`, letting the gradient through where it points back inside.

    A plain clamp has zero gradient below the bound, so that a parameter which once touched it stays there for ever.
    """

    @staticmethod
    def forward(x: Tensor, bound: float) -> Tensor:
        """Return `max(x, bound)`."""
        return x.clamp(min=bound)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Keep where the bound is active."""
        ctx.inside = inputs[0] >= inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Pass the gradient inside the bound, and outside where a descent step would raise `x`."""
        (gradient,) = gradients
        return torch.where(ctx.inside | (gradient < 0), gradient, torch.zeros_like(gradient)), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        """Forward-mode derivative: that of the clamp."""
        return torch.where(ctx.inside, tangents[0], torch.zeros_like(tangents[0]))


def lower_bound(x: Tensor, bound: float) -> Tensor:
    """Return `max(x, bound)` with the gradient of `LowerBound`."""
    result = LowerBound.apply(x, bound)
    assert isinstance(result, Tensor)
    return result


class GDN(nn.Module):
    """Generalised divisive normalisation with exponent one, `x / (beta + gamma |x|)`.

    The inverse multiplies instead of dividing. `beta` and `gamma` are squares of the stored parameters less a
    pedestal, so that they stay positive and small values still move (Balle 2018, "Efficient nonlinear transforms").
    """

    PEDESTAL = 2.0**-36
    SMALLEST_BETA = 1e-6

    def __init__(self, channels: int, *, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta_root = nn.Parameter(torch.full((channels,), 1.0 + self.PEDESTAL).sqrt())
        self.gamma_root = nn.Parameter((0.1 * torch.eye(channels) + self.PEDESTAL).sqrt())

    @property
    def beta(self) -> Tensor:
        """Offsets, (channels,), at least 1e-6."""
        bound = (self.SMALLEST_BETA + self.PEDESTAL) ** 0.5
        return lower_bound(self.beta_root, bound).square() - self.PEDESTAL

    @property
    def gamma(self) -> Tensor:
        """Weights, (channels, channels), not negative."""
        return lower_bound(self.gamma_root, self.PEDESTAL**0.5).square() - self.PEDESTAL

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (batch, channels, height, width)."""
        norm = functional.conv2d(x.abs(), self.gamma[:, :, None, None], self.beta)
        return x * norm if self.inverse else x / norm


class ResidualBottleneck(nn.Module):
    """ELIC's residual block: 1x1 to half the channels, 3x3, 1x1 back, and the skip (He et al. 2022)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            down(channels, channels // 2, 1),
            nn.ReLU(),
            down(channels // 2, channels // 2, 3),
            nn.ReLU(),
            down(channels // 2, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to the same shape."""
        return x + self.branch(x)


class Attention(nn.Module):
    """`x + trunk(x) * sigmoid(mask(x))`: the simplified attention of Cheng et al. 2020, as ELIC has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*(ResidualBottleneck(channels) for _ in range(3)))
        self.mask = nn.Sequential(*(ResidualBottleneck(channels) for _ in range(3)), down(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to the same shape."""
        return x + self.trunk(x) * torch.sigmoid(self.mask(x))
