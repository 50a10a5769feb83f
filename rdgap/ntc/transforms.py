"""Analysis and synthesis transforms, and those of the hyperprior.

Every transform is a module that maps (batch, channels, height, width) and knows `factor`, by which it divides
(analysis) or multiplies (synthesis) height and width. Images enter an analysis, and leave a synthesis, less 0.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from torch import Tensor, nn

from .layers import GDN, Attention, ResidualBottleneck, down, up


class Transform(nn.Sequential):
    """A chain of layers with its sampling factor."""

    def __init__(self, layers: Iterable[nn.Module], factor: int) -> None:
        super().__init__(*layers)
        self.factor = factor


def balle2017_analysis(filters: int, latent_channels: int) -> Transform:
    """9x9/4, GDN, 5x5/2, GDN, 5x5/2 without bias (Balle, Laparra & Simoncelli 2017)."""
    return Transform(
        (
            down(3, filters, 9, 4),
            GDN(filters),
            down(filters, filters, 5, 2),
            GDN(filters),
            down(filters, latent_channels, 5, 2, bias=False),
        ),
        factor=16,
    )


def balle2017_synthesis(filters: int, latent_channels: int) -> Transform:
    """The mirror image of `balle2017_analysis`."""
    return Transform(
        (
            up(latent_channels, filters, 5, 2),
            GDN(filters, inverse=True),
            up(filters, filters, 5, 2),
            GDN(filters, inverse=True),
            up(filters, 3, 9, 4),
        ),
        factor=16,
    )


def minnen2018_analysis(filters: int, latent_channels: int) -> Transform:
    """Four 5x5/2 convolutions with GDN between them (Minnen, Balle & Toderici 2018)."""
    widths = (3, filters, filters, filters)
    layers = [layer for width in widths[:-1] for layer in (down(width, filters, 5, 2), GDN(filters))]
    return Transform((*layers, down(filters, latent_channels, 5, 2)), factor=16)


def minnen2018_synthesis(filters: int, latent_channels: int) -> Transform:
    """Four 5x5 transposed convolutions, stride 2, with inverse GDN between them (Minnen et al. 2018)."""
    widths = (latent_channels, filters, filters)
    layers = [layer for width in widths for layer in (up(width, filters, 5, 2), GDN(filters, inverse=True))]
    return Transform((*layers, up(filters, 3, 5, 2)), factor=16)


def cnn_analysis(filters: int, latent_channels: int) -> Transform:
    """Four 5x5/2 convolutions with leaky ReLU: the paper's ablation of the analysis (section 7.4.2)."""
    widths = (3, filters, filters)
    layers = [layer for width in widths for layer in (down(width, filters, 5, 2), nn.LeakyReLU(0.2))]
    return Transform((*layers, down(filters, latent_channels, 5, 2)), factor=16)


def elic_analysis(filters: int, latent_channels: int) -> Transform:
    """Strided convolutions, residual bottlenecks and two attentions (He et al. 2022)."""

    def blocks() -> list[nn.Module]:
        return [ResidualBottleneck(filters) for _ in range(3)]

    return Transform(
        (
            down(3, filters, 5, 2),
            *blocks(),
            down(filters, filters, 5, 2),
            *blocks(),
            Attention(filters),
            down(filters, filters, 5, 2),
            *blocks(),
            down(filters, latent_channels, 5, 2),
            Attention(latent_channels),
        ),
        factor=16,
    )


def elic_synthesis(filters: int, latent_channels: int) -> Transform:
    """The mirror image of `elic_analysis` (He et al. 2022): its first attention stays as wide as the latents."""

    def blocks() -> list[nn.Module]:
        return [ResidualBottleneck(filters) for _ in range(3)]

    return Transform(
        (
            Attention(latent_channels),
            up(latent_channels, filters, 5, 2),
            *blocks(),
            up(filters, filters, 5, 2),
            Attention(filters),
            *blocks(),
            up(filters, filters, 5, 2),
            *blocks(),
            up(filters, 3, 5, 2),
        ),
        factor=16,
    )


def jpeg_like_synthesis(latent_channels: int, kernel: int, stride: int) -> Transform:
    """One transposed convolution: a learned, lapped block transform, affine in the latents."""
    return Transform((up(latent_channels, 3, kernel, stride),), factor=stride)


Activation = Literal["gdn", "leaky-relu", "relu", "none"]


def _activation(name: Activation, channels: int) -> nn.Module:
    if name == "gdn":
        return GDN(channels, inverse=True)
    return {"leaky-relu": nn.LeakyReLU(0.2), "relu": nn.ReLU(), "none": nn.Identity()}[name]


class TwoLayerSynthesis(nn.Module):
    """`conv2(activation(conv1(y)) + conv_res(y))`, the paper's shallow synthesis; `conv_res` is optional.

    Both convolutions are transposed; `conv_res` is configured as `conv1`. The paper's activation is inverse GDN.
    """

    def __init__(
        self,
        latent_channels: int,
        channels: int,
        kernels: tuple[int, int],
        strides: tuple[int, int],
        *,
        residual: bool,
        activation: Activation = "gdn",
    ) -> None:
        super().__init__()
        self.factor = strides[0] * strides[1]
        self.conv1 = up(latent_channels, channels, kernels[0], strides[0])
        self.activation = _activation(activation, channels)
        self.conv_res = up(latent_channels, channels, kernels[0], strides[0]) if residual else None
        self.conv2 = up(channels, 3, kernels[1], strides[1])

    def forward(self, y: Tensor) -> Tensor:
        """Map latents (batch, latent_channels, h, w) to images (batch, 3, h * factor, w * factor) less 0.5."""
        hidden = self.activation(self.conv1(y))
        if self.conv_res is not None:
            hidden = hidden + self.conv_res(y)
        return self.conv2(hidden)


def hyper_analysis(latent_channels: int, widths: tuple[int, int, int]) -> Transform:
    """3x3, 5x5/2, 5x5/2 with ReLU between them (Balle et al. 2018)."""
    first, second, third = widths
    return Transform(
        (
            down(latent_channels, first, 3),
            nn.ReLU(),
            down(first, second, 5, 2),
            nn.ReLU(),
            down(second, third, 5, 2),
        ),
        factor=4,
    )


def hyper_synthesis(widths: tuple[int, int, int, int]) -> Transform:
    """5x5 up 2, 5x5 up 2, 3x3 with ReLU between them (Balle et al. 2018); the first width is that of the input."""
    entering, first, second, last = widths
    return Transform(
        (
            up(entering, first, 5, 2),
            nn.ReLU(),
            up(first, second, 5, 2),
            nn.ReLU(),
            down(second, last, 3),
        ),
        factor=4,
    )


def jpeg_like_hyper_synthesis(entering: int, leaving: int) -> Transform:
    """One transposed convolution with 6x6 kernels and stride 4: affine (Yang & Mandt 2023, section 7.4.2)."""
    return Transform((up(entering, leaving, 6, 4),), factor=4)
