"""Priors of the latents: the deep factorized density, box-convolved Gaussians, and the codecs' priors made of them.

All log-densities are box-convolved, `p(v) = c(v + 1/2) - c(v - 1/2)`: the density of `y + u`, and on any shifted
lattice a proper probability mass function.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..model import Latents
from .layers import lower_bound
from .quantization import Quantization, imitate
from .transforms import hyper_analysis, hyper_synthesis

SMALLEST_SCALE = 0.11
LARGEST_SCALE = 256.0


class DeepFactorized(nn.Module):
    """A univariate density per channel with a learned cumulative (Balle et al. 2018, appendix 6.1).

    The logits of the cumulative pass through layers `softplus(M) x + b`, each but the last followed by
    `x + tanh(a) tanh(x)`, hence rise monotonically.
    """

    def __init__(self, channels: int, filters: tuple[int, ...] = (3, 3), init_scale: float = 10.0) -> None:
        super().__init__()
        widths = (1, *filters, 1)
        scale = init_scale ** (1 / (len(widths) - 1))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in pairwise(widths):
            start = math.log(math.expm1(1 / scale / fan_out))
            self.matrices.append(nn.Parameter(torch.full((channels, fan_out, fan_in), start)))
            # Spread over [-1/2, 1/2]: equal biases would leave the units of a layer equal for ever.
            spread = (torch.arange(fan_out, dtype=torch.float32) + 0.5) / fan_out - 0.5
            self.biases.append(nn.Parameter(spread.repeat(channels, 1)[..., None].contiguous()))
        for width in filters:
            self.factors.append(nn.Parameter(torch.zeros(channels, width, 1)))

    def logits(self, values: Tensor) -> Tensor:
        """Return the logits of the cumulative at `values`, both (channels, 1, number)."""
        for index, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            values = functional.softplus(matrix) @ values + bias
            if index < len(self.factors):
                values = values + torch.tanh(self.factors[index]) * torch.tanh(values)
        return values

    def log_density(self, latents: Tensor) -> Tensor:
        """Return the box-convolved log-density of each entry of (batch, channels, height, width), in nats."""
        by_channel = latents.transpose(0, 1).flatten(1)[:, None]
        with torch.autocast(latents.device.type, enabled=False):  # matrix products of logits need their precision
            lower, upper = self.logits(by_channel - 0.5), self.logits(by_channel + 0.5)
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)): cancels in neither tail.
        log_density = (
            functional.logsigmoid(upper) + functional.logsigmoid(-lower) + torch.log(-torch.expm1(lower - upper))
        )
        return log_density.reshape(latents.transpose(0, 1).shape).transpose(0, 1)

    @torch.no_grad()
    def quantiles(self, logits: Tensor) -> Tensor:
        """Return where the cumulative before the convolution has `logits`, both (channels, 1, number), by bisection."""
        bound = torch.ones_like(self.matrices[0][:, :1])
        while bool((self.logits(bound) < logits).any() or (self.logits(-bound) > logits).any()):
            bound = bound * 2
        low, high = -bound, bound
        for _ in range(60):
            middle = (low + high) / 2
            above = self.logits(middle) > logits
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        return (low + high) / 2

    def medians(self) -> Tensor:
        """Return the median of each channel before the convolution, (channels,)."""
        return self.quantiles(torch.zeros_like(self.matrices[0][:, :1]))[:, 0, 0]

    @torch.no_grad()
    def sample(self, latents: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from the box-convolved density; (batch, channels, height, width) like `latents`."""
        by_channel = latents.transpose(0, 1).flatten(1)[:, None]
        draw = {"dtype": latents.dtype, "device": latents.device, "generator": generator}
        # Beyond the bounds lies what float32 cannot tell from probability 0 or 1.
        samples = self.quantiles(torch.rand(by_channel.shape, **draw).clamp(1e-7, 1 - 1e-7).logit())
        samples = samples + torch.rand(by_channel.shape, **draw) - 0.5
        return samples.reshape(latents.transpose(0, 1).shape).transpose(0, 1)


def gaussian_log_density(residual: Tensor, scale: Tensor) -> Tensor:
    """Return the log-density of `N(0, scale^2)` convolved with the unit box at `residual`, in nats, entry by entry.

    Computed on the negative side, where the difference of the two cumulatives does not cancel.
    """
    distance = residual.abs()
    upper = torch.special.log_ndtr((0.5 - distance) / scale)
    lower = torch.special.log_ndtr((-0.5 - distance) / scale)
    return upper + torch.log(-torch.expm1(lower - upper))


class FactorizedPrior(nn.Module):
    """Prior of codecs with one latent `(y,)`: a deep factorized density (Balle et al. 2017)."""

    factor = 1

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.density = DeepFactorized(latent_channels)

    def infer(self, y: Tensor) -> Latents:
        """Return the latents for the output of the analysis."""
        return (y,)

    def log_prior(self, latents: Latents) -> Tensor:
        """Return the log-density in nats, (batch,)."""
        return self.density.log_density(latents[0]).flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, latents: Latents, generator: torch.Generator) -> Latents:
        """Draw latents shaped like `latents`."""
        return (self.density.sample(latents[0], generator),)

    def to_symbols(self, latents: Latents, quantization: Quantization) -> Latents:
        """Count from the medians, or from 0 where training did."""
        return (torch.round(latents[0] - _lattice_offset(self.density, quantization)),)

    def from_symbols(self, symbols: Latents, quantization: Quantization) -> Latents:
        """Return the lattice point of integers."""
        return (symbols[0] + _lattice_offset(self.density, quantization),)

    def imitate(self, y: Tensor, quantization: Quantization, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the rate in nats, (batch,), and the latents that the synthesis sees, in training."""
        for_rate, for_synthesis = imitate(y, quantization, generator)
        return -self.log_prior((for_rate,)), for_synthesis


class MeanScaleHyperprior(nn.Module):
    """Prior `p(z) N(y; mean(z), scale(z)^2)` of codecs with latents `(z, y)` (Minnen et al. 2018).

    The raw scales are logarithms, kept between 0.11 and 256, the ends of the literature's scale table.
    """

    def __init__(self, latent_channels: int, width: int) -> None:
        super().__init__()
        self.hyper_analysis = hyper_analysis(latent_channels, width)
        self.hyper_synthesis = hyper_synthesis(latent_channels, width)
        self.density = DeepFactorized(width)
        self.factor = self.hyper_analysis.factor

    def infer(self, y: Tensor) -> Latents:
        """Return `(z, y)` for the output of the analysis."""
        return self.hyper_analysis(y).to(y.dtype), y

    def parameters_of(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and scale of `y` given `z`, each shaped like `y`."""
        mean, raw = self.hyper_synthesis(z).to(z.dtype).chunk(2, dim=1)
        log_scale = -lower_bound(-lower_bound(raw, math.log(SMALLEST_SCALE)), -math.log(LARGEST_SCALE))
        return mean, log_scale.exp()

    def log_prior(self, latents: Latents) -> Tensor:
        """Return the log-density in nats, (batch,)."""
        z, y = latents
        mean, scale = self.parameters_of(z)
        hyper = self.density.log_density(z).flatten(1).sum(1)
        return hyper + gaussian_log_density(y - mean, scale).flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, latents: Latents, generator: torch.Generator) -> Latents:
        """Draw latents shaped like `latents`: `z`, then `y` given `z`."""
        z, y = self.density.sample(latents[0], generator), latents[1]
        mean, scale = self.parameters_of(z)
        draw = {"dtype": y.dtype, "device": y.device, "generator": generator}
        return z, mean + scale * torch.randn(y.shape, **draw) + torch.rand(y.shape, **draw) - 0.5

    def to_symbols(self, latents: Latents, quantization: Quantization) -> Latents:
        """Count `z` from its medians, or from 0 where training did, `y` from the mean that the rounded `z` gives."""
        offset = _lattice_offset(self.density, quantization)
        z_symbols = torch.round(latents[0] - offset)
        mean, _ = self.parameters_of(z_symbols + offset)
        return z_symbols, torch.round(latents[1] - mean)

    def from_symbols(self, symbols: Latents, quantization: Quantization) -> Latents:
        """Return the lattice point of integers."""
        z = symbols[0] + _lattice_offset(self.density, quantization)
        mean, _ = self.parameters_of(z)
        return z, symbols[1] + mean

    def imitate(self, y: Tensor, quantization: Quantization, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the rate in nats, (batch,), and the latents that the synthesis sees, in training."""
        z, _ = self.infer(y)
        z_for_rate, z_for_synthesis = imitate(z, quantization, generator)
        mean, scale = self.parameters_of(z_for_synthesis)
        y_for_rate, y_for_synthesis = imitate(y, quantization, generator, mean)
        hyper = self.density.log_density(z_for_rate).flatten(1).sum(1)
        rate = -hyper - gaussian_log_density(y_for_rate - mean, scale).flatten(1).sum(1)
        return rate, y_for_synthesis


def _lattice_offset(density: DeepFactorized, quantization: Quantization) -> Tensor | float:
    # Models trained with uniform noise never saw the integers, so their lattice may sit where it is cheapest.
    return density.medians()[:, None, None] if quantization == "noise" else 0.0
