"""The protocol that every analysis consumes: a prior `P_Z`, a decoder `g` and an encoder (Eq. 7).

Gaps, curvature, encoding and evaluation know nothing of a codec but these four methods, so a codec
of yours, or a toy with a closed form, goes through the very same code as the trained ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

Latents = tuple[Tensor, ...]
"""A tuple of tensors, each (batch, ...): `(z, y)` for a hyperprior, `(y,)` for a factorized prior."""


@runtime_checkable
class Codec(Protocol):
    """A lossy image codec as the theory sees it."""

    def infer(self, images: Tensor) -> Latents:
        """Return the location of the encoder's distribution, before quantization.

        Args:
            images: (batch, channels, height, width), in [0, 1].
        """
        ...

    def quantize(self, latents: Latents) -> Latents:
        """Round latents to the codec's lattice; not differentiable."""
        ...

    def log_prior(self, latents: Latents) -> Tensor:
        """Return the log-density of `P_Z` in nats, (batch,).

        For codecs trained with unit uniform noise the density is box-convolved, so that its value on a
        lattice point is the log-probability of that point: one function serves both channels.
        """
        ...

    def decode(self, latents: Latents) -> Tensor:
        """Map latents to images, (batch, channels, height, width): the differentiable `g`.

        In [0, 1] up to over- and undershoot, which is not clipped here. Rows and columns beyond the
        image's own, from padding at the bottom and right, may be returned.
        """
        ...


@runtime_checkable
class GenerativeCodec(Codec, Protocol):
    """A codec whose prior can be sampled, so that images can be simulated from it."""

    def sample_prior(self, latents: Latents, generator: torch.Generator) -> Latents:
        """Draw from `P_Z` latents of the shapes, dtype and device of `latents`, whose values do not matter."""
        ...


@runtime_checkable
class LatticeCodec(Codec, Protocol):
    """A codec that says which integers stand for its lattice points: what the hard-rounded codec transmits.

    `from_symbols(to_symbols(latents))` is `quantize(latents)`.
    """

    def to_symbols(self, latents: Latents) -> Latents:
        """Return the integers, as floating-point numbers, of the lattice point that `latents` are rounded to."""
        ...

    def from_symbols(self, symbols: Latents) -> Latents:
        """Return the lattice point of integers; differentiable, and defined between the integers as well."""
        ...


ReadSymbols = Callable[[Latents], tuple[Tensor, Tensor]]
"""Maps symbols, integers or between them, to `log_prior` and `decode` of their lattice point; differentiable."""


@runtime_checkable
class ReadableCodec(LatticeCodec, Protocol):
    """A codec that reads symbols in one pass, where `from_symbols`, `log_prior` and `decode` would each repeat it."""

    def symbol_reader(self) -> ReadSymbols:
        """Return the reader of the codec as it is now; later changes of its weights may not be seen."""
        ...


def symbol_reader(codec: LatticeCodec) -> ReadSymbols:
    """Return what reads symbols of a codec, in one pass where it can."""
    if isinstance(codec, ReadableCodec):
        return codec.symbol_reader()

    def read(symbols: Latents) -> tuple[Tensor, Tensor]:
        latents = codec.from_symbols(symbols)
        return codec.log_prior(latents), codec.decode(latents)

    return read


class _Modules:
    """A codec with one latent, assembled from plain functions."""

    def __init__(
        self,
        analysis: Callable[[Tensor], Tensor],
        synthesis: Callable[[Tensor], Tensor],
        log_prior: Callable[[Tensor], Tensor],
    ) -> None:
        self._analysis, self._synthesis, self._log_prior = analysis, synthesis, log_prior

    def infer(self, images: Tensor) -> Latents:
        return (self._analysis(images),)

    def quantize(self, latents: Latents) -> Latents:
        return self.to_symbols(latents)

    def to_symbols(self, latents: Latents) -> Latents:
        return (torch.round(latents[0]),)

    def from_symbols(self, symbols: Latents) -> Latents:
        return symbols

    def log_prior(self, latents: Latents) -> Tensor:
        return self._log_prior(latents[0])

    def decode(self, latents: Latents) -> Tensor:
        return self._synthesis(latents[0])


class _GenerativeModules(_Modules):
    """The same with a prior that can be sampled."""

    def __init__(
        self,
        analysis: Callable[[Tensor], Tensor],
        synthesis: Callable[[Tensor], Tensor],
        log_prior: Callable[[Tensor], Tensor],
        sample_prior: Callable[[Tensor, torch.Generator], Tensor],
    ) -> None:
        super().__init__(analysis, synthesis, log_prior)
        self._sample_prior = sample_prior

    def sample_prior(self, latents: Latents, generator: torch.Generator) -> Latents:
        return (self._sample_prior(latents[0], generator),)


def from_modules(
    analysis: Callable[[Tensor], Tensor],
    synthesis: Callable[[Tensor], Tensor],
    log_prior: Callable[[Tensor], Tensor],
    sample_prior: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> Codec:
    """Make a codec of the protocol from three functions or modules, quantizing to the integers.

    Args:
        analysis: (batch, channels, height, width) in [0, 1] to (batch, ...): the encoder's location.
        synthesis: (batch, ...) to (batch, channels, height, width): the decoder `g`.
        log_prior: (batch, ...) to (batch,): log-density of the prior in nats.
        sample_prior: Draws from the prior a tensor of the shape of its first argument; bidirectional Monte Carlo
            needs it, nothing else.

    Example:
        >>> import torch
        >>> from rdgap.model import from_modules
        >>> normal = torch.distributions.Normal(0.0, 1.0)
        >>> codec = from_modules(lambda x: 4 * x, lambda y: y / 4, lambda y: normal.log_prob(y).sum((1, 2, 3)))
        >>> codec.decode(codec.infer(torch.rand(2, 3, 8, 8))).shape
        torch.Size([2, 3, 8, 8])
    """
    if sample_prior is None:
        return _Modules(analysis, synthesis, log_prior)
    return _GenerativeModules(analysis, synthesis, log_prior, sample_prior)
