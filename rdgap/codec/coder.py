"""Images to bytes and back by a codec of `rdgap.ntc`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..images import to_8bit
from ..ntc.codec import NTCCodec
from ..ntc.deployment import deployed
from ..ntc.priors import CodingStep, Prior
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
from .entropy import LARGEST_SYMBOL, Integers, SymbolReader, SymbolWriter
from .fixed_point import in_fixed_point, on_grid, with_children
from .tables import ExactDensity, gaussian_tables, scale_index


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
        max_pixels: Of the largest image, padding included. At the default none of the recipes tried, of the paper's sizes too, takes
            2 GB to decode one.

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
    def encode(self, image: Tensor) -> bytes:
        """Return the bitstream of an image, (3, height, width) in [0, 1], of any size from 1 x 1 up.

        Raises:
            ValueError: If the image has another shape, is not finite or is too large.
            RuntimeError: If the latents are not finite.
        """
        return self.encode_with_latents(image)[0]

    @torch.no_grad()
    def encode_with_latents(self, image: Tensor) -> tuple[bytes, Tensor]:
        """Return the bitstream and the latents, float64, that the decoder's synthesis will see; errors as `encode`."""
        self._check(image)
        with torch.autocast(self._device.type, enabled=False):
            latents = self.codec.infer(image[None].to(self._device))
            if not all(torch.isfinite(latent).all() for latent in latents):
                raise RuntimeError("the latents must be finite, got NaN or infinity.")
        writer = SymbolWriter()
        first, *rest = (latent.cpu().double() for latent in latents)
        offset = self._offset()
        symbols = _nearest(first - offset)
        writer.write(_to_numpy(symbols), _channels(symbols.shape), self.density.tables)

        def visit(step: CodingStep) -> Tensor:
            symbols = _nearest(rest[0][:, step.channels] - step.mean)
            writer.write(_to_numpy(symbols[..., step.mask]), _table_of(step), gaussian_tables())
            return step.mean + symbols

        with torch.autocast("cpu", enabled=False):
            y = on_grid(self.prior.walk(symbols + offset, visit)[1])
        height, width = image.shape[-2:]
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
        """Return the 8-bit image, (3, height, width), of what the synthesis sees."""
        y = y.float().to(self._device).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self._device.type, enabled=False):
            return to_8bit(self.synthesis(y)[0, :, :height, :width] + 0.5).cpu()

    @torch.no_grad()
    def read_latents(self, payload: bytes, header: Header) -> Tensor:
        """Return the latents, float64, that the encoder's `encode_with_latents` gave; errors as `decode`."""
        check_size(header, self.codec.factor, self.max_pixels)
        reader = SymbolReader(payload)
        factor = self.codec.factor
        shape = (1, len(self.density.offset), -(-header.height // factor), -(-header.width // factor))

        def visit(step: CodingStep) -> Tensor:
            symbols = torch.zeros_like(step.mean)
            read = reader.read(_table_of(step), gaussian_tables())
            symbols[..., step.mask] = _to_tensor(read).view_as(symbols[..., step.mask])
            return step.mean + symbols

        with torch.autocast("cpu", enabled=False):
            symbols = _to_tensor(reader.read(_channels(shape), self.density.tables)).view(shape)
            return on_grid(self.prior.walk(symbols + self._offset(), visit)[1])

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
