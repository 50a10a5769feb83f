"""Autoencoders with a diagonal-Gaussian latent, such as those of latent diffusion, as codecs of the protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_pre_hook

from ..images import pad_reflect
from ..model import Latents

_PROBE = 64


def from_autoencoder(
    model: Any,
    *,
    step: float,
    scale: float | None = None,
    shift: float | None = None,
    name: str = "",
    lmbda: float = math.nan,
) -> AutoencoderCodec:
    """Return a codec of the protocol: the autoencoder with its latents on a lattice of width `step`.

    Args:
        model: Has `encode(x).latent_dist.mean` and `decode(z).sample`, images in [-1, 1], as the `AutoencoderKL` of
            diffusers; or `encode(x).mean` and `decode(z)`. It is set to eval mode and frozen.
        step: Width of the quantization bins in units of the scaled latent, whose prior is N(0, 1); at most 1. A choice
            that the model leaves open: rates rise by one bit per latent for each halving.
        scale: What latents are multiplied by to follow the prior; by default `model.config.scaling_factor`.
        shift: What is taken from them before; by default `model.config.shift_factor`, or 0.
        name: What tables call it.
        lmbda: What `step` was chosen for.

    Raises:
        ValueError: If `step` is not in (0, 1], no scale is known, or the model is no such autoencoder.
    """
    if not 0 < step <= 1:
        raise ValueError(f"`step` must lie in (0, 1], in units of the prior's standard deviation, got {step}.")
    config = getattr(model, "config", None)
    scale = getattr(config, "scaling_factor", None) if scale is None else scale
    shift = getattr(config, "shift_factor", None) if shift is None else shift
    if scale is None or scale <= 0:
        raise ValueError(
            f"`scale` must be positive, and given where the model has no `config.scaling_factor`, got {scale}."
        )
    return AutoencoderCodec(model, step=step, scale=scale, shift=shift or 0.0, name=name, lmbda=lmbda)


class AutoencoderCodec(nn.Module):
    """An autoencoder with the prior N(0, 1) of its scaled latents, counted in steps. Made by `from_autoencoder`.

    At lattice points the density is, to within 1e-8 of its sum, a probability: the sum of a Gaussian over a lattice no
    wider than its standard deviation is its integral.
    """

    def __init__(self, model: Any, *, step: float, scale: float, shift: float, name: str, lmbda: float) -> None:
        super().__init__()
        self.model: Any = model.eval().requires_grad_(False)
        self.step, self.scale, self.shift, self.name, self.lmbda = step, scale, shift, name, lmbda
        parameter = next(iter(model.parameters()), torch.zeros(()))
        probe = torch.zeros(1, 3, _PROBE, _PROBE, device=parameter.device, dtype=parameter.dtype)
        try:
            with torch.no_grad():
                mean = self._distribution(probe).mean
                decoded = self._decoded(mean)
        except (AttributeError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"an autoencoder must have `encode(x).latent_dist` and `decode(z).sample`, got {error}."
            ) from error
        if decoded.shape != probe.shape:
            raise ValueError(
                "an autoencoder must decode to the size of its image, "
                f"got {tuple(decoded.shape)} for {tuple(probe.shape)}."
            )
        self.factor = _PROBE // mean.shape[-1]

    def _distribution(self, images: Tensor) -> Any:
        encoded = self.model.encode(2 * images - 1)
        return getattr(encoded, "latent_dist", encoded)

    def _decoded(self, latents: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH), _contiguous_norms():  # the other kernels of attention know no forward mode
            decoded = self.model.decode(latents)
        return decoded if isinstance(decoded, Tensor) else decoded.sample

    def infer(self, images: Tensor) -> Latents:
        """Return the means of the latents in steps, of (batch, 3, height, width) in [0, 1], of any size."""
        mean = self._distribution(pad_reflect(images, self.factor)).mean
        return ((mean - self.shift) * (self.scale / self.step),)

    def infer_std(self, images: Tensor) -> Tensor:
        """Return the standard deviations of the encoder's own Gaussian channel, in steps, shaped like the latents."""
        return self._distribution(pad_reflect(images, self.factor)).std * (self.scale / self.step)

    def quantize(self, latents: Latents) -> Latents:
        """Round to whole steps."""
        return self.to_symbols(latents)

    def to_symbols(self, latents: Latents) -> Latents:
        """Return the number of steps that each latent is rounded to."""
        return (torch.round(latents[0]),)

    def from_symbols(self, symbols: Latents) -> Latents:
        """Return the lattice point of integers: themselves."""
        return symbols

    def log_prior(self, latents: Latents) -> Tensor:
        """Return the log-density of latents counted in steps, in nats, (batch,)."""
        scaled = latents[0] * self.step
        constant = math.log(self.step) - 0.5 * math.log(2 * math.pi)
        return (constant - 0.5 * scaled.square()).flatten(1).sum(1)

    def decode(self, latents: Latents) -> Tensor:
        """Return images whose height and width are multiples of `factor`; not clipped."""
        return (self._decoded(latents[0] * (self.step / self.scale) + self.shift) + 1) / 2

    def sample_prior(self, latents: Latents, generator: torch.Generator) -> Latents:
        """Draw latents shaped like `latents` from the prior."""
        like = latents[0]
        return (torch.randn(like.shape, dtype=like.dtype, device=like.device, generator=generator) / self.step,)


@contextmanager
def _contiguous_norms() -> Iterator[None]:
    """Let group norms see contiguous inputs meanwhile: torch cannot differentiate them in forward mode otherwise."""

    def contiguous(module: nn.Module, inputs: tuple[Tensor, ...]) -> Any:  # torch types its hooks as returning None
        return tuple(each.contiguous() for each in inputs) if isinstance(module, nn.GroupNorm) else None

    handle = register_module_forward_pre_hook(contiguous)
    try:
        yield
    finally:
        handle.remove()
