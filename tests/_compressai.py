"""Models with the parts that CompressAI's have, by the same names, small and slow: every latent is coded by itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Bound(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values, bound):
        return torch.max(values, bound)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None


class LowerBound(nn.Module):
    """A bound by an autograd function that forward mode does not know."""

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.register_buffer("bound", torch.tensor([bound]))

    def forward(self, values: Tensor) -> Tensor:
        return _Bound.apply(values, self.bound)


class EntropyModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.use_likelihood_bound = True
        self.likelihood_lower_bound = LowerBound(1e-9)


class EntropyBottleneck(EntropyModel):
    """A cumulative of two layers for each channel."""

    def __init__(self, channels: int, generator: torch.Generator) -> None:
        super().__init__()
        draw = {"generator": generator}
        self.matrices = nn.ParameterList(
            [nn.Parameter(torch.randn(channels, 3, 1, **draw)), nn.Parameter(torch.randn(channels, 1, 3, **draw))]
        )
        self.biases = nn.ParameterList(
            [nn.Parameter(torch.randn(channels, 3, 1, **draw)), nn.Parameter(torch.randn(channels, 1, 1, **draw))]
        )
        self.factors = nn.ParameterList([nn.Parameter(torch.randn(channels, 3, 1, **draw))])
        self.quantiles = nn.Parameter(torch.randn(channels, 1, 3, **draw))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        median = self.quantiles[:, 0, 1][:, None, None]
        rounded = torch.round(z - median) + median
        likelihood = torch.empty_like(z)
        for channel in range(z.shape[1]):
            ends = []
            for end in (rounded[:, channel] - 0.5, rounded[:, channel] + 0.5):
                logit = self.biases[1][channel, 0, 0]
                for unit in range(3):
                    inner = functional.softplus(self.matrices[0][channel, unit, 0]) * end
                    inner = inner + self.biases[0][channel, unit, 0]
                    inner = inner + torch.tanh(self.factors[0][channel, unit, 0]) * torch.tanh(inner)
                    logit = logit + functional.softplus(self.matrices[1][channel, 0, unit]) * inner
                ends.append(torch.sigmoid(logit))
            likelihood[:, channel] = ends[1] - ends[0]
        return rounded, self.likelihood_lower_bound(likelihood)


class GaussianConditional(EntropyModel):
    def __init__(self) -> None:
        super().__init__()
        self.lower_bound_scale = LowerBound(0.11)

    def forward(self, y: Tensor, scales: Tensor, means: Tensor | None = None) -> tuple[Tensor, Tensor]:
        means = torch.zeros_like(y) if means is None else means
        scales, rounded = self.lower_bound_scale(scales), torch.round(y - means) + means
        distance = (rounded - means).abs()
        upper, lower = (0.5 * torch.erfc(-(sign - distance) / scales / math.sqrt(2)) for sign in (0.5, -0.5))
        return rounded, self.likelihood_lower_bound(upper - lower)


class Divisive(nn.Module):
    """Divisive normalization with bounded parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lower_bound = LowerBound(0.1)
        self.gamma = nn.Parameter(0.3 * torch.eye(channels))

    def forward(self, values: Tensor) -> Tensor:
        gamma = self.lower_bound(self.gamma)[:, :, None, None]
        return values * functional.conv2d(values.square(), gamma, torch.ones(len(gamma), dtype=gamma.dtype)).rsqrt()


N, M = 3, 4


class Model(nn.Module):
    """A hyperprior; `with_means` or of scales alone, as its subclasses have it."""

    with_means = True

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.g_a = nn.Sequential(nn.Conv2d(3, N, 4, 4), Divisive(N), nn.Conv2d(N, M, 4, 4))
        self.g_s = nn.Sequential(
            nn.ConvTranspose2d(M, N, 4, 4), Divisive(N), nn.ReLU(inplace=True), nn.ConvTranspose2d(N, 3, 4, 4)
        )
        self.entropy_bottleneck = EntropyBottleneck(N, generator)
        self._build(generator)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 4 or name.endswith("bias"):
                    parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
                if name == "g_a.2.weight":
                    parameter.mul_(5)  # latents of several steps

    def _build(self, generator: torch.Generator) -> None:
        self.h_a = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(M, N, 4, 4))
        self.h_s = nn.ConvTranspose2d(N, 2 * M if self.with_means else M, 4, 4)
        self.gaussian_conditional = GaussianConditional()

    def forward(self, x: Tensor) -> dict:
        y = self.g_a(x)
        z_hat, z_likelihoods = self.entropy_bottleneck(self.h_a(y.clone() if self.with_means else y.abs()))
        side = self.h_s(z_hat)
        scales, means = side.chunk(2, 1) if self.with_means else (side, None)
        y_hat, y_likelihoods = self.gaussian_conditional(y, scales, means)
        return {"x_hat": self.g_s(y_hat), "likelihoods": {"y": y_likelihoods, "z": z_likelihoods}}


class Scales(Model):
    with_means = False


class Factorized(Model):
    def _build(self, generator: torch.Generator) -> None:
        self.entropy_bottleneck = EntropyBottleneck(M, generator)

    def forward(self, x: Tensor) -> dict:
        y_hat, likelihoods = self.entropy_bottleneck(self.g_a(x))
        return {"x_hat": self.g_s(y_hat), "likelihoods": {"y": likelihoods}}


class Masked(nn.Conv2d):
    """A convolution over the latents before this one in reading order."""

    def forward(self, values: Tensor) -> Tensor:
        mask = torch.zeros_like(self.weight)
        mask[:, :, : self.kernel_size[0] // 2] = 1
        mask[:, :, self.kernel_size[0] // 2, : self.kernel_size[1] // 2] = 1
        return functional.conv2d(values, self.weight * mask, self.bias, padding=self.padding)


class Serial(Model):
    """A serial context; its one-pass `forward` rounds to integers for the context and about the means for the rate."""

    def _build(self, generator: torch.Generator) -> None:
        super()._build(generator)
        self.context_prediction = Masked(M, 2 * M, 5, padding=2)
        self.entropy_parameters = nn.Conv2d(4 * M, 2 * M, 1)

    def scales_and_means(self, y_hat: Tensor, side: Tensor) -> tuple[Tensor, ...]:
        return self.entropy_parameters(torch.cat((side, self.context_prediction(y_hat)), 1)).chunk(2, 1)

    def forward(self, x: Tensor) -> dict:
        y = self.g_a(x)
        z_hat, z_likelihoods = self.entropy_bottleneck(self.h_a(y.clone()))
        y_hat = torch.round(y)
        _, y_likelihoods = self.gaussian_conditional(y, *self.scales_and_means(y_hat, self.h_s(z_hat)))
        return {"x_hat": self.g_s(y_hat), "likelihoods": {"y": y_likelihoods, "z": z_likelihoods}}

    def code(self, y: Tensor, side: Tensor) -> Tensor:
        """Round latents one by one in reading order, as a bitstream does."""
        y_hat = torch.zeros_like(y)
        for row in range(y.shape[2]):
            for column in range(y.shape[3]):
                mean = self.scales_and_means(y_hat, side)[1][:, :, row, column]
                y_hat[:, :, row, column] = torch.round(y[:, :, row, column] - mean) + mean
        return y_hat


# ---- models with a latent codec


class PlainCodec(nn.Module):
    def __init__(self, chunks: tuple[str, ...] = ("scales", "means")) -> None:
        super().__init__()
        self.gaussian_conditional, self.entropy_parameters, self.chunks = GaussianConditional(), nn.Identity(), chunks

    def forward(self, y: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        parts = dict(zip(self.chunks, params.chunk(2, 1), strict=True))
        return self.gaussian_conditional(y, parts["scales"], parts["means"])


class CheckerboardCodec(nn.Module):
    def __init__(self, channels: int, side_channels: int, parity: str) -> None:
        super().__init__()
        self.y = PlainCodec(("means", "scales"))
        self.anchor_parity = parity
        self.context_prediction = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.entropy_parameters = nn.Conv2d(2 * channels + side_channels, 2 * channels, 1)

    def merge(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)

    def forward(self, y: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Code the anchors, then the others, field by field."""
        y_hat, likelihoods = torch.zeros_like(y), torch.ones_like(y)
        for parity in (0, 1) if self.anchor_parity == "even" else (1, 0):
            context = self.context_prediction(y_hat)
            if not y_hat.any():
                context = torch.zeros_like(context)
            found, probable = self.y(y, self.entropy_parameters(self.merge(context, side)))
            now = y_hat.clone()
            for row in range(y.shape[2]):
                for column in range(y.shape[3]):
                    if (row + column) % 2 == parity:
                        now[:, :, row, column] = found[:, :, row, column]
                        likelihoods[:, :, row, column] = probable[:, :, row, column]
            y_hat = now
        return y_hat, likelihoods


class GroupsCodec(nn.Module):
    def __init__(self, side_channels: int) -> None:
        super().__init__()
        self.groups = [1, 3]
        self.channel_context = nn.ModuleDict({"y1": nn.Conv2d(1, 2, 3, padding=1)})
        self.latent_codec = nn.ModuleDict(
            {"y0": CheckerboardCodec(1, side_channels, "odd"), "y1": CheckerboardCodec(3, side_channels + 2, "even")}
        )

    def merge_y(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)

    def merge_params(self, *parts: Tensor) -> Tensor:
        return torch.cat(parts, 1)

    def forward(self, y: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        first, its = self.latent_codec["y0"](y[:, :1], side)
        second, others = self.latent_codec["y1"](y[:, 1:], torch.cat((self.channel_context["y1"](first), side), 1))
        return torch.cat((first, second), 1), torch.cat((its, others), 1)


class Hyper(nn.Module):
    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.entropy_bottleneck = EntropyBottleneck(N, generator)
        self.h_a = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(M, N, 4, 4))
        self.h_s = nn.ConvTranspose2d(N, 2 * M, 4, 4)


class WithLatentCodec(Model):
    def _build(self, generator: torch.Generator) -> None:
        del self.entropy_bottleneck
        self.latent_codec = nn.Module()
        self.latent_codec.hyper = Hyper(generator)
        self.latent_codec.y = self._codec()

    def _codec(self) -> nn.Module:
        return PlainCodec()

    def forward(self, x: Tensor) -> dict:
        y, hyper = self.g_a(x), self.latent_codec.hyper
        z_hat, z_likelihoods = hyper.entropy_bottleneck(hyper.h_a(y.clone()))
        y_hat, y_likelihoods = self.latent_codec.y(y, hyper.h_s(z_hat))
        return {"x_hat": self.g_s(y_hat), "likelihoods": {"y": y_likelihoods, "z": z_likelihoods}}


class Checkerboard(WithLatentCodec):
    def _codec(self) -> nn.Module:
        return CheckerboardCodec(M, 2 * M, "even")


class Groups(WithLatentCodec):
    def _codec(self) -> nn.Module:
        return GroupsCodec(2 * M)


ALL = (Factorized, Scales, Model, Serial, WithLatentCodec, Checkerboard, Groups)
