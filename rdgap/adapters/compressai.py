"""CompressAI's models as codecs of the protocol, by the names of their parts.

What is understood: `g_a`, `g_s` with an `entropy_bottleneck` alone; with `h_a`, `h_s` and a `gaussian_conditional`, of
scales or of means and scales; the same with a `context_prediction`; and models with a `latent_codec` made of these,
checkerboards and groups of channels. A model whose own `forward` gives something else is refused.

Rates are the model's own, in nats: its bounds on scales and likelihoods are kept, so that -log p of a latent is never
more than `-log` of the likelihood bound, 21 nats for CompressAI's 1e-9.
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..images import pad_reflect
from ..model import Latents
from ..ntc.priors import DeepFactorized, gaussian_log_density

_PROBE = 64  # side of the image on which a model is compared with its adapter; CompressAI's models divide it
_CONTRASTS = (1, 10, 100, 1000)
_TOLERANCE = 1e-6  # relative, in float64


def from_compressai(model: Any, *, name: str = "", lmbda: float = math.nan) -> CompressAICodec:
    """Return a codec of the protocol that shares nothing with `model`, which stays as it is.

    CompressAI's own `lmbda`, the weight of `255^2 mse` beside bits per pixel, is the one of this package.

    Args:
        model: A CompressAI model, trained or not.
        name: What tables call it.
        lmbda: What it was trained for.

    Raises:
        ValueError: If its parts are not understood, or its own `forward` on an image gives another rate or another
            reconstruction than the adapter.
    """
    codec = CompressAICodec(model, name=name, lmbda=lmbda)
    copy.deepcopy(codec).double().check()  # the model's own probabilities cancel in the tails of float32
    return codec


class CompressAICodec(nn.Module):
    """A CompressAI model; latents are `(z, y)`, or `(y,)` without a hyperprior. Made by `from_compressai`."""

    def __init__(self, model: Any, *, name: str, lmbda: float) -> None:
        super().__init__()
        self.name, self.lmbda = name, lmbda
        with _naming_what_is_missing(model):
            self.model: Any = copy.deepcopy(model).eval().requires_grad_(False)
            _make_bounds_plain(self.model)
            hyper = of_y = self.model
            if hasattr(model, "latent_codec"):
                codec = self.model.latent_codec
                hyper, of_y = getattr(codec, "hyper", codec), getattr(codec, "y", None)
            self.bottleneck = _Bottleneck(hyper.entropy_bottleneck)
            self.h_a: Any = getattr(hyper, "h_a", None)
            self.h_s: Any = getattr(hyper, "h_s", None)
            self.context = None if self.h_a is None else _context(of_y)
            self.factor, scales_alone = self._probe()
        # Without a latent codec, a model of scales alone tells its hyperprior magnitudes: signs say nothing of a scale.
        self.of_magnitudes = scales_alone and not hasattr(model, "latent_codec")

    @torch.no_grad()
    def _probe(self) -> tuple[int, bool]:
        """Return by how much latents are smaller than images, and whether the hyperprior gives scales alone."""
        y = self.model.g_a(torch.zeros(1, 3, _PROBE, _PROBE).to(self.bottleneck.offset))
        if self.h_a is None:
            return _PROBE // y.shape[-1], False
        z = self.h_a(y.clone())
        return _PROBE // z.shape[-1], isinstance(self.context, _Given) and self.h_s(z).shape[1] == y.shape[1]

    def infer(self, images: Tensor) -> Latents:
        """Return the latents before quantization of (batch, 3, height, width) in [0, 1], of any size."""
        y = self.model.g_a(pad_reflect(images, self.factor))
        if self.h_a is None:
            return (y,)
        # A copy, because activations that work in place may be the first of the hyper analysis.
        return self.h_a(y.abs() if self.of_magnitudes else y.clone()), y

    def quantize(self, latents: Latents) -> Latents:
        """Round `z` about the medians and `y` about the means, which depend on what is rounded before."""
        return self.from_symbols(self.to_symbols(latents))

    def to_symbols(self, latents: Latents) -> Latents:
        """Return the integers, as floating-point numbers, of the lattice point that `latents` are rounded to."""
        first = torch.round(latents[0] - self.bottleneck.offset)
        if self.context is None:
            return (first,)
        y = latents[1]
        symbols = torch.empty_like(y)

        def count(channels: slice, scale: Tensor, mean: Tensor) -> Tensor:
            symbols[:, channels] = torch.round(y[:, channels] - mean)
            return symbols[:, channels] + mean

        self.context.solve(self.h_s(first + self.bottleneck.offset), y, count)
        return first, symbols

    def from_symbols(self, symbols: Latents) -> Latents:
        """Return the lattice point of integers."""
        first = symbols[0] + self.bottleneck.offset
        if self.context is None:
            return (first,)
        return first, self.context.solve(
            self.h_s(first), symbols[1], lambda channels, scale, mean: symbols[1][:, channels] + mean
        )

    def log_prior(self, latents: Latents) -> Tensor:
        """Return the box-convolved log-density in nats, (batch,), of all latents at once, context models included."""
        total = self.bottleneck.log_density(latents[0])
        if self.context is None:
            return total
        return total + self.context.log_density(latents[1], self.h_s(latents[0]))

    def decode(self, latents: Latents) -> Tensor:
        """Return images whose height and width are multiples of `factor`; not clipped."""
        return self.model.g_s(latents[-1])

    @torch.no_grad()
    def sample_prior(self, latents: Latents, generator: torch.Generator) -> Latents:
        """Draw latents shaped like `latents` from the prior, the bound on likelihoods left out."""
        first = self.bottleneck.density.sample(latents[0], generator)
        if self.context is None:
            return (first,)
        y = latents[1]
        draw = {"dtype": y.dtype, "device": y.device, "generator": generator}
        normal, noise = torch.randn(y.shape, **draw), torch.rand(y.shape, **draw) - 0.5

        def sample(channels: slice, scale: Tensor, mean: Tensor) -> Tensor:
            return mean + scale * normal[:, channels] + noise[:, channels]

        return first, self.context.solve(self.h_s(first), y, sample)

    @torch.no_grad()
    def check(self) -> None:
        """Compare rate and reconstruction of an image with the model's own forward pass, in the precision of both.

        The image has ever more contrast, until some latent is not rounded to its mean: else nothing would be compared.

        Raises:
            ValueError: If they differ.
        """
        generator = torch.Generator().manual_seed(0)
        image = torch.rand(1, 3, _PROBE, _PROBE, generator=generator).to(self.bottleneck.offset)
        for contrast in _CONTRASTS:
            self._compare(contrast * image)
            if self.to_symbols(self.infer(contrast * image))[-1].any():
                return

    def _compare(self, image: Tensor) -> None:
        try:
            own = self.model(image)
            its_nats = -torch.stack([likelihoods.log().sum() for likelihoods in own["likelihoods"].values()]).sum()
            its_decoded = own["x_hat"]
        except (TypeError, KeyError, RuntimeError, AttributeError) as error:
            raise ValueError(f"`forward` of a CompressAI model must take an image alone, got {error}.") from error
        seen, nats = self._as_forward_does(self.infer(image))
        decoded = self.model.g_s(seen)
        for what, ours, its in (("rate", nats, its_nats), ("reconstruction", decoded, its_decoded)):
            if ours.shape != its.shape or not torch.allclose(ours, its, rtol=_TOLERANCE, atol=_TOLERANCE):
                raise ValueError(
                    f"the {what} of a CompressAI model must be that of its own `forward`, got another: "
                    f"{type(self.model).__name__} does something that its parts do not tell."
                )

    def _as_forward_does(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """Return what the synthesis sees, and the rate in nats, of CompressAI's one-pass estimate."""
        if self.context is None or not isinstance(self.context, _Raster):
            quantized = self.quantize(latents)
            return quantized[-1], -self.log_prior(quantized).sum()
        # With a serial context it rounds to integers, for synthesis and context, and about the means for the rate.
        first, _ = self.quantize(latents)
        side, integers = self.h_s(first), torch.round(latents[1])
        scale, mean = self.context.scales_and_means(integers, side)
        rounded = torch.round(latents[1] - mean) + mean
        log_density = self.bottleneck.log_density(first) + self.context.weigh(rounded, scale, mean)
        return integers, -log_density.sum()


# ---- densities


class _Bottleneck(nn.Module):
    """The factorized density of an `EntropyBottleneck` and where its lattice lies."""

    offset: Tensor

    def __init__(self, bottleneck: Any) -> None:
        super().__init__()
        self.density = DeepFactorized(bottleneck.matrices[0].shape[0], tuple(len(b[0]) for b in bottleneck.biases[:-1]))
        names = ("matrices", "biases", "factors")
        weights = {f"{name}.{i}": weight for name in names for i, weight in enumerate(getattr(bottleneck, name))}
        self.density.to(bottleneck.quantiles).load_state_dict(weights)
        self.density.requires_grad_(False)
        self.register_buffer("offset", bottleneck.quantiles.detach()[:, 0, 1][:, None, None].clone())
        self.log_bound = _log_likelihood_bound(bottleneck)

    def log_density(self, latents: Tensor) -> Tensor:
        """Return the log-density in nats, (batch,)."""
        return self.density.log_density(latents).clamp(min=self.log_bound).flatten(1).sum(1)


Update = Callable[[slice, Tensor, Tensor], Tensor]
"""Gives the values of some channels of `y`, told their scales and means."""


class _Context(nn.Module, ABC):
    """How the Gaussians of `y` depend on the hyperprior's output, `side`, and on `y` itself."""

    @abstractmethod
    def log_density(self, y: Tensor, side: Tensor) -> Tensor:
        """Return the log-density in nats, (batch,)."""

    @abstractmethod
    def solve(self, side: Tensor, like: Tensor, update: Update) -> Tensor:
        """Return the `y`, shaped like `like`, that `update` gives back when told the scales and means that `y` has.

        Each latent depends on earlier ones alone, so there is exactly one.
        """


class _Gaussians(_Context):
    """One set of Gaussians for all channels."""

    def __init__(self, conditional: Any, chunks: Sequence[str]) -> None:
        super().__init__()
        self.chunks = tuple(chunks)
        self.scale_bound = float(conditional.lower_bound_scale.bound)
        self.log_bound = _log_likelihood_bound(conditional)

    @abstractmethod
    def joined(self, y: Tensor, side: Tensor) -> Tensor:
        """Return scales and means of `y`, one above the other."""

    @abstractmethod
    def depth(self, height: int, width: int) -> int:
        """Return the length of the longest chain of latents of which each depends on the one before."""

    def scales_and_means(self, y: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        """Return scales and means of `y`, all at once."""
        joined = self.joined(y, side)
        parts = dict(zip(self.chunks, joined.chunk(len(self.chunks), 1), strict=True))
        mean = parts["means"] if "means" in parts else torch.zeros_like(joined)
        return parts["scales"].clamp(min=self.scale_bound), mean

    def weigh(self, y: Tensor, scale: Tensor, mean: Tensor) -> Tensor:
        """Return the log-density in nats, (batch,), given scales and means."""
        return gaussian_log_density(y - mean, scale).clamp(min=self.log_bound).flatten(1).sum(1)

    def log_density(self, y: Tensor, side: Tensor) -> Tensor:
        return self.weigh(y, *self.scales_and_means(y, side))

    def solve(self, side: Tensor, like: Tensor, update: Update) -> Tensor:
        # Jacobi's iteration on a triangular system: exact after as many steps as the longest chain has latents, and
        # mostly long before, because what a latent does to its followers fades.
        y = torch.zeros_like(like)
        for _ in range(self.depth(*like.shape[-2:])):
            found = update(slice(None), *self.scales_and_means(y, side))
            if torch.equal(found, y):
                break
            y = found
        return y


class _Given(_Gaussians):
    """Scales, or scales and means, that the hyperprior alone gives."""

    def __init__(self, conditional: Any, chunks: Sequence[str], entropy_parameters: Any = None) -> None:
        super().__init__(conditional, chunks)
        self.entropy_parameters: Any = entropy_parameters or nn.Identity()

    def joined(self, y: Tensor, side: Tensor) -> Tensor:
        return self.entropy_parameters(side)

    def scales_and_means(self, y: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        joined = self.joined(y, side)
        if joined.shape[1] == y.shape[1]:  # a model of scales alone
            return joined.clamp(min=self.scale_bound), torch.zeros_like(joined)
        return super().scales_and_means(y, side)

    def depth(self, height: int, width: int) -> int:
        return 1


class _Raster(_Gaussians):
    """A masked convolution over what lies above and to the left."""

    def __init__(self, parts: Any) -> None:
        super().__init__(parts.gaussian_conditional, ("scales", "means"))
        self.context_prediction: Any = parts.context_prediction
        self.entropy_parameters: Any = parts.entropy_parameters

    def joined(self, y: Tensor, side: Tensor) -> Tensor:
        return self.entropy_parameters(torch.cat((side, self.context_prediction(y)), dim=1))

    def depth(self, height: int, width: int) -> int:
        # A latent sees `reach` columns beyond itself in the rows above.
        reach = self.context_prediction.kernel_size[1] // 2
        return width + (height - 1) * (reach + 1)


class _Checkerboard(_Gaussians):
    """Anchors without a context, then the fields between them, which see the anchors alone."""

    def __init__(self, parts: Any) -> None:
        super().__init__(parts.y.gaussian_conditional, parts.y.chunks)
        self.inner: Any = parts.y.entropy_parameters
        self.parts: Any = parts
        self.anchors = ("even", "odd").index(parts.anchor_parity)

    def joined(self, y: Tensor, side: Tensor) -> Tensor:
        rows, columns = (torch.arange(size, device=y.device) for size in y.shape[-2:])
        is_anchor = (rows[:, None] + columns) % 2 == self.anchors
        seen = self.parts.context_prediction(torch.where(is_anchor, y, torch.zeros_like(y)))
        context = torch.where(is_anchor, torch.zeros_like(seen), seen)
        return self.inner(self.parts.entropy_parameters(self.parts.merge(context, side)))

    def depth(self, height: int, width: int) -> int:
        return 2


class _Groups(_Context):
    """Groups of channels, each of which sees the groups before."""

    def __init__(self, parts: Any) -> None:
        super().__init__()
        self.parts: Any = parts
        self.groups = nn.ModuleList(_context(parts.latent_codec[f"y{k}"]) for k in range(len(parts.groups)))
        bounds = pairwise(accumulate(parts.groups, initial=0))
        self.channels = [slice(start, stop) for start, stop in bounds]

    def _side(self, k: int, side: Tensor, before: Sequence[Tensor]) -> Tensor:
        if k == 0:
            return side
        seen = self.parts.channel_context[f"y{k}"](self.parts.merge_y(*before))
        return self.parts.merge_params(seen, side)

    def log_density(self, y: Tensor, side: Tensor) -> Tensor:
        split = [y[:, channels] for channels in self.channels]
        return torch.stack(
            [group.log_density(split[k], self._side(k, side, split[:k])) for k, group in enumerate(self._contexts)]
        ).sum(0)

    def solve(self, side: Tensor, like: Tensor, update: Update) -> Tensor:
        found: list[Tensor] = []
        for k, group in enumerate(self._contexts):
            channels = self.channels[k]

            def of_group(_: slice, scale: Tensor, mean: Tensor, channels: slice = channels) -> Tensor:
                return update(channels, scale, mean)

            found.append(group.solve(self._side(k, side, found), like[:, channels], of_group))
        return torch.cat(found, dim=1)

    @property
    def _contexts(self) -> list[_Context]:
        return [group for group in self.groups if isinstance(group, _Context)]


def _context(parts: Any) -> _Context:
    """Return the context model that some of a model's parts make."""
    if hasattr(parts, "channel_context"):
        return _Groups(parts)
    if hasattr(parts, "anchor_parity"):
        return _Checkerboard(parts)
    if hasattr(parts, "context_prediction"):
        return _Raster(parts)
    if hasattr(parts, "chunks"):
        return _Given(parts.gaussian_conditional, parts.chunks, parts.entropy_parameters)
    return _Given(parts.gaussian_conditional, ("scales", "means"))


def _log_likelihood_bound(entropy_model: Any) -> float:
    bound = float(entropy_model.likelihood_lower_bound.bound) if entropy_model.use_likelihood_bound else 0.0
    return math.log(bound) if bound > 0 else -math.inf


# ---- what CompressAI's modules need before they can be differentiated in any mode


class _PlainBound(nn.Module):
    """The larger of a number and a bound, with no gradient of its own making."""

    def __init__(self, bound: Tensor) -> None:
        super().__init__()
        self.register_buffer("bound", bound)

    def forward(self, values: Tensor) -> Tensor:
        return torch.maximum(values, self.get_buffer("bound"))


def _make_bounds_plain(model: nn.Module) -> None:
    """Replace each `LowerBound`, whose gradient is made for training and unknown to forward mode."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "LowerBound":
                setattr(module, name, _PlainBound(child.get_buffer("bound").detach().clone()))


@contextmanager
def _naming_what_is_missing(model: object) -> Iterator[None]:
    """Turn a part that a model lacks into a sentence."""
    try:
        yield
    except (AttributeError, KeyError, IndexError, TypeError, RuntimeError) as error:
        raise ValueError(f"the parts of {type(model).__name__} must be CompressAI's, got {error}.") from error
