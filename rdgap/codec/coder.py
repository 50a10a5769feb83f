"""Images to bytes and back by a codec of `rdgap.ntc`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from ..images import to_8bit
from ..model import Latents
from ..ntc.codec import NTCCodec
from ..ntc.deployment import deployed
from ..ntc.priors import CodingStep, Hyperprior, Prior, Visitor, gaussian_log_density
from .bitstream import (
    IDENTITY_BYTES,
    MAX_PIXELS,
    BitstreamError,
    Header,
    check_size,
    pack,
    padded_pixels,
    unpack,
)
from .entropy import LARGEST_SYMBOL, Integers, SymbolReader, SymbolWriter, bits_of
from .fixed_point import in_fixed_point, on_grid, with_children
from .tables import PROBABILITY_BITS, ExactDensity, Tables, gaussian_tables, scale_index

_LIKELY_BITS = PROBABILITY_BITS - 4
"""Charge up to which the counts of tables, then 16 or more, are close to the prior's probabilities."""


class Coder:
    """A codec made ready to write and read bitstreams.

    Why decoding is exact. The latents that the synthesis sees are `mean + symbol`, `symbol` an integer from the
    payload and `mean` the result of networks. Encoder and decoder both take the prior's own walk (`Prior.walk`)
    through a copy of it in fixed point (`fixed_point`), on the CPU, where every mean is a multiple of 2^-12 and the
    same on every machine and with any number of threads; the encoder rounds about these means and feeds `mean +
    symbol` back. Scales are only compared with thresholds that none can come near (`tables.scale_index`), and all
    probabilities are integers from correctly rounded arithmetic (`elementary`). So symbols and latents are exact
    everywhere. What remains floating point is the analysis, which the decoder never runs, and the synthesis: its
    pixels are equal bit for bit on one machine with one setting of threads, and elsewhere up to the rounding of the
    convolutions.

    Making one takes a fraction of a second; later changes of the codec's weights are not seen.

    Args:
        codec: Any codec of `rdgap.ntc`, on the CPU or a GPU.
        max_pixels: Of the largest image, padding included. At the default decoding takes less than 2 GB, for the
            deep synthesis of the paper's size as well.

    Raises:
        ValueError: If a layer of the prior cannot be evaluated in fixed point.
    """

    def __init__(self, codec: NTCCodec, *, max_pixels: int = MAX_PIXELS) -> None:
        self.codec, self.max_pixels = codec, max_pixels
        about_medians = codec.quantization == "noise"
        self.density = ExactDensity(codec.prior.density, about_medians=about_medians)
        self.prior = _exact(codec.prior)
        self.identity = identity_of(codec)
        self.synthesis = deployed(codec.synthesis)
        self._device = next(codec.parameters()).device

    @torch.no_grad()
    def encode(self, image: Tensor, symbols: Latents | None = None) -> bytes:
        """Return the bitstream of an image, (3, height, width) in [0, 1], of any size from 1 x 1 up.

        Args:
            image: What to code.
            symbols: What to send for it, integers as floating-point numbers, such as `rdgap.encoding` finds; the
                codec's own choice where none are given. The stream decodes to `reconstruct(symbols, ...)`.

        Raises:
            ValueError: If the image has another shape, is not finite or is too large, or the symbols are not those of
                an image of its size.
            RuntimeError: If the latents are not finite.
        """
        return self.encode_with_latents(image, symbols)[0]

    @torch.no_grad()
    def encode_with_latents(self, image: Tensor, symbols: Latents | None = None) -> tuple[bytes, Tensor]:
        """Return the bitstream and the latents, float64, that the decoder's synthesis will see; errors as `encode`."""
        self._check(image)
        height, width = image.shape[-2:]
        writer = SymbolWriter()
        if symbols is None:
            first, symbols_of = self._infer(image)
        else:
            first, symbols_of = self._given(symbols, height, width)
        writer.write(_to_numpy(first), _channels(first.shape), self.density.tables)

        def visit(step: CodingStep) -> Tensor:
            here = symbols_of(step)
            writer.write(_to_numpy(here[..., step.mask]), _table_of(step), gaussian_tables())
            return step.mean + here

        y = self._walk(first, visit)
        stream = pack(
            writer.payload(),
            identity=self.identity,
            lmbda=self.codec.lmbda,
            height=height,
            width=width,
            factor=self.codec.factor,
        )
        return stream, y

    @torch.no_grad()
    def tail_saving_bits(self, image: Tensor) -> float:
        """Return how many bits fewer an image's unlikely symbols take in its stream than the prior charges for them.

        Far out in a tail the prior's charge grows with the square of the distance, but no symbol of a table takes more
        than 24 bits, and what an escape takes grows with a logarithm. Summed over the symbols charged more than 20
        bits; all others take what the prior charges, up to the rounding of tables. So a stream is as long as its
        estimate less this. Errors as `encode`.
        """
        self._check(image)
        first, symbols_of = self._infer(image)
        savings = []

        def add(symbols: Tensor, table: Integers, tables: Tables, log_prior: Tensor) -> None:
            charged_bits = -log_prior.flatten().double().numpy() / math.log(2)
            unlikely = charged_bits > _LIKELY_BITS
            bits = bits_of(_to_numpy(symbols)[unlikely], table[unlikely], tables)
            savings.append(float((charged_bits[unlikely] - bits).sum()))

        def visit(step: CodingStep) -> Tensor:
            here = symbols_of(step)
            log_prior = gaussian_log_density(here, step.scale)[..., step.mask]
            add(here[..., step.mask], _table_of(step), gaussian_tables(), log_prior)
            return step.mean + here

        values = (first + self._offset()).float().to(self._device)
        of_first = self.codec.prior.density.log_density(values).cpu()
        add(first, _channels(first.shape), self.density.tables, of_first)
        self._walk(first, visit)
        return sum(savings)

    @torch.no_grad()
    def reconstruct(self, symbols: Latents, height: int, width: int) -> Tensor:
        """Return the 8-bit image, (3, height, width), that the stream of these symbols decodes to, bit for bit.

        Raises:
            ValueError: If the symbols are not those of an image of this size.
        """
        first, symbols_of = self._given(symbols, height, width)
        return self.synthesize(self._walk(first, lambda step: step.mean + symbols_of(step)), height, width)

    @torch.no_grad()
    def decode(self, stream: bytes) -> Tensor:
        """Return the image of a bitstream, (3, height, width) in [0, 1], rounded to 8 bit.

        Raises:
            BitstreamError: If the stream is damaged, of another model, or asks for too large an image. A stream that
                was made up, checksum and all, gives that error or some image.
        """
        header, payload = unpack(stream)
        if header.identity != self.identity:
            raise BitstreamError(
                f"the model must have the weights that the bitstream was written with, {header.identity.hex()} at "
                f"lmbda {header.lmbda:g}, got {self.identity.hex()}, {self.codec.name or 'a model without name'} at "
                f"lmbda {self.codec.lmbda:g}."
            )
        image = self.synthesize(self.read_latents(payload, header), header.height, header.width)
        if not torch.isfinite(image).all():
            raise BitstreamError("the bitstream must decode to finite pixels, got NaN or infinity.")
        return image

    @torch.no_grad()
    def synthesize(self, y: Tensor, height: int, width: int) -> Tensor:
        """Return the 8-bit image, (3, height, width), of what the synthesis sees.

        In one thread, because the order of a convolution's sums depends on their number, and with it the last bits.
        """
        y = y.float().to(self._device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, enabled=False), _one_thread():
            return to_8bit(self.synthesis(y)[0, :, :height, :width] + 0.5).cpu()

    @torch.no_grad()
    def read_latents(self, payload: bytes, header: Header) -> Tensor:
        """Return the latents, float64, that the encoder's `encode_with_latents` gave; errors as `decode`."""
        check_size(header, self.codec.factor, self.max_pixels)
        reader = SymbolReader(payload)
        shape = self._shapes(header.height, header.width)[0]

        def visit(step: CodingStep) -> Tensor:
            symbols = torch.zeros_like(step.mean)
            read = reader.read(_table_of(step), gaussian_tables())
            symbols[..., step.mask] = _to_tensor(read).view_as(symbols[..., step.mask])
            return step.mean + symbols

        with torch.autocast("cpu", enabled=False):
            symbols = _to_tensor(reader.read(_channels(shape), self.density.tables)).view(shape)
        return self._walk(symbols, visit)

    def _walk(self, first: Tensor, visit: Visitor) -> Tensor:
        """Return what the synthesis sees after the first symbols and what `visit` gives for the others."""
        with torch.autocast("cpu", enabled=False):
            return on_grid(self.prior.walk(first + self._offset(), visit)[1])

    def _infer(self, image: Tensor) -> tuple[Tensor, Visitor]:
        """Return the first latent's symbols and those of each step by the codec's own encoder."""
        with torch.autocast(self._device.type, enabled=False):
            latents = self.codec.infer(image[None].to(self._device))
        if not all(torch.isfinite(latent).all() for latent in latents):
            raise RuntimeError("the latents must be finite, got NaN or infinity.")
        first, *rest = (latent.cpu().double() for latent in latents)
        return _nearest(first - self._offset()), lambda step: _nearest(rest[0][:, step.channels] - step.mean)

    def _given(self, symbols: Latents, height: int, width: int) -> tuple[Tensor, Visitor]:
        """Return the same of symbols that were chosen elsewhere."""
        shapes, expected = [tuple(each.shape) for each in symbols], self._shapes(height, width)
        if shapes != expected:
            raise ValueError(
                f"`symbols` of an image of {height} x {width} must have the shapes {expected}, got {shapes}."
            )
        if any(bool((each != _nearest(each)).any()) for each in symbols):
            raise ValueError(f"`symbols` must be whole numbers of at most {LARGEST_SYMBOL} in size, got others.")
        first, *rest = (each.cpu().double() for each in symbols)
        return first, lambda step: rest[0][:, step.channels]

    def _shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Return the shapes of the latents of an image."""
        prior = self.codec.prior
        rows, columns = (-(-side // self.codec.factor) for side in (height, width))
        shapes: list[tuple[int, ...]] = [(1, len(self.density.offset), rows, columns)]
        if isinstance(prior, Hyperprior):
            shapes.append((1, prior.readers()[0].layer.in_channels, rows * prior.factor, columns * prior.factor))
        return shapes

    def _offset(self) -> Tensor:
        return torch.from_numpy(self.density.offset)[:, None, None]

    def _check(self, image: Tensor) -> None:
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(f"`image` must be (3, height, width), got {tuple(image.shape)}.")
        if not torch.isfinite(image).all():
            raise ValueError("`image` must be finite, got NaN or infinity.")
        pixels = padded_pixels(image.shape[1], image.shape[2], self.codec.factor)
        if pixels > self.max_pixels:
            raise ValueError(
                f"an image must have at most {self.max_pixels} pixels with its padding to be coded, got {pixels}."
            )


def encode(model: NTCCodec, image: Tensor) -> bytes:
    """Return the bitstream of an image, (3, height, width) in [0, 1]; for several images make one `Coder`.

    Raises:
        ValueError: If the image has another shape, is not finite or is too large.
    """
    return Coder(model).encode(image)


def decode(model: NTCCodec, stream: bytes) -> Tensor:
    """Return the image of a bitstream, (3, height, width) in [0, 1]; for several streams make one `Coder`.

    Raises:
        BitstreamError: If the stream is damaged, of another model, or asks for too large an image.
    """
    return Coder(model).decode(stream)


def _exact(prior: Prior) -> Prior:
    """Return a copy of the prior whose walk is exact."""
    walked = {
        name: in_fixed_point(child)
        for name, child in prior.named_children()
        if name not in ("density", "hyper_analysis")  # no walk goes there
    }
    exact = with_children(prior, walked)
    assert isinstance(exact, Prior)
    return exact


def _nearest(x: Tensor) -> Tensor:
    return torch.round(x).clamp(-LARGEST_SYMBOL, LARGEST_SYMBOL)


def _channels(shape: Sequence[int]) -> Integers:
    """Return the channel of each entry of a (1, channels, height, width) tensor, flat."""
    return np.repeat(np.arange(shape[1]), shape[2] * shape[3])


def _to_numpy(symbols: Tensor) -> Integers:
    return symbols.flatten().numpy().astype(np.int64)


def _to_tensor(symbols: Integers) -> Tensor:
    return torch.from_numpy(symbols.astype(np.float64))


def _table_of(step: CodingStep) -> Integers:
    return _to_numpy(scale_index(step.scale[..., step.mask]))


def identity_of(codec: NTCCodec) -> bytes:
    """Return a hash of all that decoding depends on: the weights and where the lattice lies."""
    digest = hashlib.sha256(codec.quantization.encode())
    for name, weight in sorted(codec.state_dict().items()):
        array = weight.detach().float().cpu().contiguous().numpy().astype("<f4")
        digest.update(f"{name} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.digest()[:IDENTITY_BYTES]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
