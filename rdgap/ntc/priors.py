"""Priors of the latents: the deep factorized density, box-convolved Gaussians, and the codecs' priors made of them.

All log-densities are box-convolved, `p(v) = c(v + 1/2) - c(v - 1/2)`: the density of `y + u`, and on any shifted
lattice a proper probability mass function.

Every prior says in which order latents are coded. The first latent follows `density`, independently in each entry; a
second one follows in steps, each a set of independent Gaussians given all that was coded before. `walk` visits these
steps, and rates, samples, symbols and bitstreams are all what a visitor makes of them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..model import Latents
from .layers import Convolution, lower_bound
from .quantization import Quantization, Share, imitate, unit_noise
from .transforms import Transform, hyper_analysis, hyper_synthesis, jpeg_like_hyper_synthesis

SMALLEST_SCALE = 0.11
LARGEST_SCALE = 256.0


class DeepFactorized(nn.Module):
    """A univariate density per channel with a learned cumulative (Balle et al. 2018, appendix 6.1).

    The logits of the cumulative pass through layers `softplus(M) x + b`, each but the last followed by
    `x + tanh(a) tanh(x)`, hence rise monotonically.
    """

    def __init__(self, channels: int, filters: tuple[int, ...] = (3, 3), init_scale: float = 10.0) -> None:
        super().__init__()
        self.initial_deviation = init_scale * math.pi / math.sqrt(3)  # the density starts as a logistic one
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
    def stretch(self, gain: Tensor) -> None:
        """Make the densities `gain` times as wide before the convolution, in place; (channels,) or a scalar."""
        matrix = self.matrices[0]
        matrix.copy_(torch.log(torch.expm1(functional.softplus(matrix) / gain.reshape(-1, 1, 1))))

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


@dataclass(frozen=True, kw_only=True)
class CodingStep:
    """Entries of `y` that are coded together: independent box-convolved Gaussians given all that was coded before.

    Attributes:
        channels: The channels of `y` that the step is about.
        mask: (height, width), true at the positions that the step codes; means and scales elsewhere mean nothing.
        mean: (batch, channels of the step, height, width). Rounded latents differ from it by integers.
        scale: Standard deviation, shaped like `mean`.
    """

    channels: slice
    mask: Tensor
    mean: Tensor
    scale: Tensor

    def log_density(self, values: Tensor) -> Tensor:
        """Return the log-density in nats, (batch,), of values shaped like `mean`, of which the masked ones count."""
        log_density = gaussian_log_density(values - self.mean, self.scale)
        return torch.where(self.mask, log_density, torch.zeros_like(log_density)).flatten(1).sum(1)


Visitor: TypeAlias = Callable[[CodingStep], Tensor]
"""Gives the values of `y[:, step.channels]`; those outside `step.mask` are not used."""


class Prior(nn.Module, ABC):
    """What all priors have in common: a coding order, which begins with a factorized density."""

    factor: int
    density: DeepFactorized

    @abstractmethod
    def infer(self, y: Tensor) -> Latents:
        """Return the latents for the output of the analysis."""

    @abstractmethod
    def walk(self, first: Tensor, visit: Visitor) -> tuple[Latents, Tensor]:
        """Visit the steps in which the second latent is coded, in coding order.

        Whatever a step says depends on `first` and on the values that `visit` gave in the steps before: a decoder can
        take the very same walk.

        Args:
            first: The first latent, which is coded before all others by `density`.
            visit: Called once for each step. A prior of one latent has no steps.

        Returns:
            All latents, the second made of what `visit` gave, and what the synthesis sees of them.
        """

    @abstractmethod
    def imitate(
        self, y: Tensor, quantization: Quantization, generator: torch.Generator | Share
    ) -> tuple[Tensor, Tensor]:
        """Return the rate in nats, (batch,), and the latents that the synthesis sees, in training."""

    def lattice_offset(self, quantization: Quantization) -> Tensor | float:
        """Return what lattice points of the first latent have in excess of integers, (channels, 1, 1) or 0.

        Models trained with uniform noise never saw the integers, so their lattice may sit where it is cheapest, about
        the medians.
        """
        return self.density.medians()[:, None, None] if quantization == "noise" else 0.0

    def for_synthesis(self, latents: Latents) -> Tensor:
        """Return what the synthesis sees of the latents: the last of them, unless the prior predicts corrections."""
        return latents[-1]

    def log_prior(self, latents: Latents) -> Tensor:
        """Return the log-density in nats, (batch,)."""
        return self._weigh(latents[0], lambda step: latents[1][:, step.channels])[0]

    def read(self, symbols: Latents, offset: Tensor | float) -> tuple[Tensor, Tensor]:
        """Return the log-density of the lattice point of integers in nats, (batch,), and what the synthesis sees of it.

        Args:
            symbols: What `from_symbols` takes.
            offset: The `lattice_offset`, which takes longer to find than to use.
        """
        return self._weigh(symbols[0] + offset, lambda step: symbols[1][:, step.channels] + step.mean)

    def _weigh(self, first: Tensor, values_of: Visitor) -> tuple[Tensor, Tensor]:
        """Return the log-density in nats, (batch,), of what is visited, and what the synthesis sees of it."""
        total = self.density.log_density(first).flatten(1).sum(1)

        def add(step: CodingStep) -> Tensor:
            nonlocal total
            values = values_of(step)
            total = total + step.log_density(values)
            return values

        _, y = self.walk(first, add)
        return total, y

    @torch.no_grad()
    def sample(self, latents: Latents, generator: torch.Generator) -> Latents:
        """Draw latents shaped like `latents`, each step given those before."""

        def draw(step: CodingStep) -> Tensor:
            options = {"dtype": step.mean.dtype, "device": step.mean.device, "generator": generator}
            gaussian = step.mean + step.scale * torch.randn(step.mean.shape, **options)
            return gaussian + torch.rand(step.mean.shape, **options) - 0.5

        return self.walk(self.density.sample(latents[0], generator), draw)[0]

    def to_symbols(self, latents: Latents, quantization: Quantization) -> Latents:
        """Count the first latent from its lattice's offset, the second from the means given what is rounded already."""
        offset = self.lattice_offset(quantization)
        symbols = (torch.round(latents[0] - offset), *(torch.zeros_like(latent) for latent in latents[1:]))

        def count(step: CodingStep) -> Tensor:
            rounded, known = torch.round(latents[1][:, step.channels] - step.mean), symbols[1][:, step.channels]
            symbols[1][:, step.channels] = torch.where(step.mask, rounded, known)
            return rounded + step.mean

        self.walk(symbols[0] + offset, count)
        return symbols

    def from_symbols(self, symbols: Latents, quantization: Quantization) -> Latents:
        """Return the lattice point of integers."""
        first = symbols[0] + self.lattice_offset(quantization)
        return self.walk(first, lambda step: symbols[1][:, step.channels] + step.mean)[0]


class FactorizedPrior(Prior):
    """Prior of codecs with one latent `(y,)`: a deep factorized density (Balle et al. 2017)."""

    factor = 1

    def __init__(self, latent_channels: int) -> None:
        super().__init__()
        self.density = DeepFactorized(latent_channels)

    def infer(self, y: Tensor) -> Latents:
        """Return the latents for the output of the analysis."""
        return (y,)

    def walk(self, first: Tensor, visit: Visitor) -> tuple[Latents, Tensor]:
        """Return `(y,)` and `y`: nothing follows the first latent."""
        return (first,), first

    def imitate(
        self, y: Tensor, quantization: Quantization, generator: torch.Generator | Share
    ) -> tuple[Tensor, Tensor]:
        """Return the rate in nats, (batch,), and the latents that the synthesis sees, in training."""
        for_rate, for_synthesis = imitate(y, quantization, unit_noise(y, generator))
        return -self.log_prior((for_rate,)), for_synthesis


class Reader(NamedTuple):
    """Input channels of a layer that are channels of `y`."""

    layer: nn.Conv2d
    inputs: slice
    channels: slice


Quantity = Literal["mean", "log-scale", "correction"]


class Head(NamedTuple):
    """Outputs of a network that say something about channels of `y`."""

    network: nn.Sequential
    outputs: slice
    channels: slice
    quantity: Quantity

    @property
    def layer(self) -> Convolution:
        """The convolution that the network ends in."""
        return last_layer(self.network)

    def parameters(self) -> tuple[Tensor, Tensor]:
        """Return the kernels and biases of the output channels, to be changed in place."""
        layer = self.layer
        assert layer.bias is not None
        weight = layer.weight if isinstance(layer, nn.Conv2d) else layer.weight.transpose(0, 1)
        return weight[self.outputs], layer.bias[self.outputs]


class Hyperprior(Prior):
    """Prior `p(z) p(y | z)` of codecs with latents `(z, y)`, `y` Gaussian step by step."""

    def __init__(self, hyper_analysis: Transform, hyper_channels: int) -> None:
        super().__init__()
        self.hyper_analysis = hyper_analysis
        self.density = DeepFactorized(hyper_channels)
        self.factor = hyper_analysis.factor

    def infer(self, y: Tensor) -> Latents:
        """Return `(z, y)` for the output of the analysis."""
        return self.hyper_analysis(y).to(y.dtype), y

    def imitate(
        self, y: Tensor, quantization: Quantization, generator: torch.Generator | Share
    ) -> tuple[Tensor, Tensor]:
        """Return the rate in nats, (batch,), and the latents that the synthesis sees, in training."""
        z, _ = self.infer(y)
        z_for_rate, z_for_walk = imitate(z, quantization, unit_noise(z, generator))
        noise = unit_noise(y, generator)
        rate = -self.density.log_density(z_for_rate).flatten(1).sum(1)

        def quantize(step: CodingStep) -> Tensor:
            nonlocal rate
            here = step.channels
            for_rate, for_walk = imitate(y[:, here], quantization, noise[:, here], step.mean)
            rate = rate - step.log_density(for_rate)
            return for_walk

        _, y_for_synthesis = self.walk(z_for_walk, quantize)
        return rate, y_for_synthesis

    def readers(self) -> list[Reader]:
        """Return the layers that `y` enters; all respond to its sign and size in proportion."""
        first = self.hyper_analysis[0]
        assert isinstance(first, nn.Conv2d)
        return [Reader(first, slice(None), slice(None))]

    @abstractmethod
    def heads(self) -> list[Head]:
        """Return where means, logarithms of scales and corrections of `y` come from, for each step in this order."""


class ScaleHyperprior(Hyperprior):
    """Prior `p(z) N(y; 0, scale(z)^2)` of codecs with latents `(z, y)` (Balle et al. 2018).

    The hyper analysis sees magnitudes. The hyper synthesis ends in logarithms of scales instead of a ReLU.
    """

    def __init__(self, latent_channels: int, width: int) -> None:
        super().__init__(hyper_analysis(latent_channels, (width, width, width)), width)
        self.hyper_synthesis = hyper_synthesis((width, width, width, latent_channels))

    def infer(self, y: Tensor) -> Latents:
        """Return `(z, y)` for the output of the analysis."""
        return self.hyper_analysis(y.abs()).to(y.dtype), y

    def walk(self, first: Tensor, visit: Visitor) -> tuple[Latents, Tensor]:
        """Visit one step, all of `y`; the synthesis sees `y`."""
        scale = bounded_scale(self.hyper_synthesis(first).to(first.dtype))
        y = visit(_whole(torch.zeros_like(scale), scale))
        return (first, y), y

    def heads(self) -> list[Head]:
        """Return the hyper synthesis."""
        return [Head(self.hyper_synthesis, slice(None), slice(None), "log-scale")]


HyperSynthesis = Literal["minnen2018", "jpeg-like"]


class MeanScaleHyperprior(Hyperprior):
    """Prior `p(z) N(y; mean(z), scale(z)^2)` of codecs with latents `(z, y)` (Minnen et al. 2018).

    Args:
        latent_channels: Of `y`.
        width: Of the hyper transforms; the second layer of Minnen's hyper synthesis has half as many channels again.
        synthesis: Minnen's three layers, or one transposed convolution.
    """

    def __init__(self, latent_channels: int, width: int, synthesis: HyperSynthesis = "minnen2018") -> None:
        super().__init__(hyper_analysis(latent_channels, (width, width, width)), width)
        self.hyper_synthesis = (
            hyper_synthesis((width, width, width * 3 // 2, 2 * latent_channels))
            if synthesis == "minnen2018"
            else jpeg_like_hyper_synthesis(width, 2 * latent_channels)
        )

    def parameters_of(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and scale of `y` given `z`, each shaped like `y`."""
        mean, raw = self.hyper_synthesis(z).to(z.dtype).chunk(2, dim=1)
        return mean, bounded_scale(raw)

    def walk(self, first: Tensor, visit: Visitor) -> tuple[Latents, Tensor]:
        """Visit one step, all of `y`; the synthesis sees `y`."""
        y = visit(_whole(*self.parameters_of(first)))
        return (first, y), y

    def heads(self) -> list[Head]:
        """Return both halves of the outputs of the hyper synthesis."""
        half = last_layer(self.hyper_synthesis).out_channels // 2
        return [
            Head(self.hyper_synthesis, slice(0, half), slice(None), "mean"),
            Head(self.hyper_synthesis, slice(half, 2 * half), slice(None), "log-scale"),
        ]


def bounded_scale(raw: Tensor) -> Tensor:
    """Return scales from their logarithms, between 0.11 and 256, the ends of the literature's scale table."""
    log_scale = -lower_bound(-lower_bound(raw, math.log(SMALLEST_SCALE)), -math.log(LARGEST_SCALE))
    return log_scale.exp()


def last_layer(transform: nn.Sequential) -> Convolution:
    """Return the convolution that a transform ends in."""
    layer = transform[-1]
    assert isinstance(layer, Convolution)
    return layer


def everywhere(y: Tensor) -> Tensor:
    """Return the mask of all positions of (batch, channels, height, width)."""
    return torch.ones(y.shape[-2:], dtype=torch.bool, device=y.device)


def _whole(mean: Tensor, scale: Tensor) -> CodingStep:
    return CodingStep(channels=slice(0, mean.shape[1]), mask=everywhere(mean), mean=mean, scale=scale)
