"""Search for the lattice points that describe images best, by gradient descent on relaxed symbols.

The codec stays as it is; only what the encoder sends is chosen anew for each image. All latents move jointly, in units
of symbols: lattice offsets and the means of later latents follow the earlier ones, as they will in the decoder.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import trange

from ..images import to_8bit
from ..model import Codec, Latents, LatticeCodec, ReadSymbols, symbol_reader
from ..objective import Cost, check_lmbda, cost_of_reading
from .methods import METHODS, PAPER_STEPS, Method, learning_rate_factor, temperature

_CHECKS = 25  # how often in a search the rounded symbols are tried
_INSIDE = 0.25  # how far from the integers of a warm start its search begins at most


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """What was found for one image, beside what the codec's own encoder would have sent.

    Rates are estimated, `-log2 P`; distortions are those of the decoded image rounded to 8 bit.

    Attributes:
        symbols: Integers of the lattice point, as floating-point numbers, each (1, ...).
        encoder_symbols: Those of the encoder's own choice.
        bits: Rate.
        mse: Mean squared error over pixels and channels, 0..255 scale.
        encoder_bits: Rate of the encoder's own choice.
        encoder_mse: Its distortion.
        num_pixels: Height times width.
        lmbda: Weight of the MSE in bits per pixel.
        seconds: Wall-clock time, an equal share of that of the images in one batch.
    """

    symbols: Latents
    encoder_symbols: Latents
    bits: float
    mse: float
    encoder_bits: float
    encoder_mse: float
    num_pixels: int
    lmbda: float
    seconds: float

    @property
    def lagrangian_bpp(self) -> float:
        """`bpp + lmbda * mse` of what was found; never more than `encoder_lagrangian_bpp`."""
        return self.bits / self.num_pixels + self.lmbda * self.mse

    @property
    def encoder_lagrangian_bpp(self) -> float:
        """`bpp + lmbda * mse` of the encoder's own choice."""
        return self.encoder_bits / self.num_pixels + self.lmbda * self.encoder_mse

    @property
    def saving_percent(self) -> float:
        """By how much the cost fell."""
        return 100 * (1 - self.lagrangian_bpp / self.encoder_lagrangian_bpp)


def encode_iteratively(
    model: Codec,
    images: Sequence[Tensor] | Tensor,
    lmbda: float,
    *,
    generators: Sequence[torch.Generator],
    method: Method = METHODS["sga"],
    steps: int = PAPER_STEPS,
    learning_rate: float | None = None,
    start: Sequence[Latents] | None = None,
    batch: int = 8,
    bf16: bool = False,
) -> list[Encoding]:
    """Choose the lattice point of each image by minimizing its own cost `bpp + lmbda * mse`.

    Adam on relaxed symbols (`rdgap.encoding.methods`), jointly over all latents, from the encoder's output before
    rounding. Every so often and at the end the symbols are rounded and their true cost is taken; the best point is
    kept. The encoder's own point is among the candidates, so that no image gets worse.

    Images do not influence each other, whichever are searched together, up to the rounding of the codec's convolutions.

    Args:
        model: A codec that names its lattice points (`LatticeCodec`); its parameters are left alone.
        images: Each (channels, height, width) in [0, 1], on the device of the codec; sizes may differ.
        lmbda: Weight of the MSE (0..255 scale) in bits per pixel.
        generators: One for each image, on the device of the images: the source of its random numbers.
        method: One of `METHODS`.
        steps: More of them find better points; the schedule of temperatures and step sizes is run through in any case.
        learning_rate: Step size in symbols; None for the method's own.
        start: Symbols of each image, as in `Encoding.symbols`, to start from instead: the search begins inside their
            cells, as near to the encoder's output as a quarter of a step allows. They are candidates as well.
        batch: Most images of equal size that are searched together; bounds the memory.
        bf16: Follow slopes in bfloat16; costs are in full precision in any case.

    Returns:
        One result per image, in their order.

    Raises:
        ValueError: If the codec does not name its lattice points, or an argument is out of its range or of wrong shape.
        RuntimeError: If the cost of the encoder's own choice is not finite.

    Example:
        >>> import torch
        >>> from rdgap.model import from_modules
        >>> normal = torch.distributions.Normal(0.0, 2.0)
        >>> codec = from_modules(lambda x: 4 * x, lambda y: y / 4, lambda y: normal.log_prob(y).sum((1, 2, 3)))
        >>> generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
        >>> found = encode_iteratively(codec, torch.rand(2, 3, 8, 8), 0.01, steps=20, generators=generators)
        >>> all(one.lagrangian_bpp <= one.encoder_lagrangian_bpp for one in found)
        True
    """
    _check(images, lmbda, generators, steps, learning_rate, start, batch)
    if not isinstance(model, LatticeCodec):
        raise ValueError(
            "iterative encoding needs `to_symbols(latents)` and `from_symbols(symbols)`, "
            f"got {type(model).__name__}, which lacks them."
        )
    by_size: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        by_size.setdefault(image.shape, []).append(index)
    found: dict[int, Encoding] = {}
    for equal in by_size.values():
        for first in range(0, len(equal), batch):
            together = equal[first : first + batch]
            search = _Search(model, torch.stack([images[index] for index in together]), lmbda)
            results = search.run(
                [generators[index] for index in together],
                method,
                steps,
                learning_rate or method.default_learning_rate(steps),
                None if start is None else [start[index] for index in together],
                bf16,
            )
            found.update(zip(together, results, strict=True))
    return [found[index] for index in range(len(found))]


class _Search:
    """Images of equal size under one codec."""

    def __init__(self, codec: LatticeCodec, images: Tensor, lmbda: float) -> None:
        self._began = time.perf_counter()
        self._codec, self._images, self._lmbda = codec, images, lmbda
        self._read: ReadSymbols = symbol_reader(codec)
        with torch.no_grad():
            # One by one: an encoder is often wider than its decoder, and its choice must not depend on the batch.
            self._latents = _joined([codec.infer(image[None]) for image in images])
            self._own = _joined([codec.to_symbols(_row(self._latents, index)) for index in range(len(images))])
            self._at_own = codec.from_symbols(self._own)
        self._best, self._least = self._own, self._hard_nats(self._own)
        if not torch.isfinite(self._least).all():
            raise RuntimeError("the cost of the encoder's own choice must be finite, got NaN or infinity.")

    def run(
        self,
        generators: Sequence[torch.Generator],
        method: Method,
        steps: int,
        learning_rate: float,
        start: Sequence[Latents] | None,
        bf16: bool,
    ) -> list[Encoding]:
        moving = [latent.requires_grad_() for latent in self._beginning(start)]
        optimizer = torch.optim.Adam(moving, lr=learning_rate)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps))
        every = -(-steps // _CHECKS)
        for step in trange(steps, desc="iterative encoding", leave=False, disable=None):
            relaxed = tuple(method.relax(latent, temperature(step, steps), generators) for latent in moving)
            with torch.autocast(self._images.device.type, torch.bfloat16, enabled=bf16):
                reading = self._read(relaxed)
            nats = self._cost(*reading).lagrangian_nats.sum()
            for latent, slope in zip(moving, torch.autograd.grad(nats, moving), strict=True):
                latent.grad = slope
            optimizer.step()
            schedule.step()
            if (step + 1) % every == 0 or step + 1 == steps:
                self._try(tuple(latent.detach().round() for latent in moving))
        return self._results()

    def _beginning(self, start: Sequence[Latents] | None) -> Latents:
        """Return where the search begins: between the integers, because relaxations have no slope at one."""
        if start is None:
            pairs = zip(self._own, self._latents, self._at_own, strict=True)
            return tuple(own + (latent - at_own) for own, latent, at_own in pairs)
        given = _joined([_checked(symbols, self._own) for symbols in start])
        self._try(given)
        with torch.no_grad():
            here = self._codec.from_symbols(given)
        pairs = zip(given, self._latents, here, strict=True)
        return tuple(point + (latent - at).clamp(-_INSIDE, _INSIDE) for point, latent, at in pairs)

    def _cost(self, log_prior: Tensor, decoded: Tensor) -> Cost:
        return cost_of_reading(log_prior, decoded, self._images, self._lmbda)

    @torch.no_grad()
    def _hard_nats(self, symbols: Latents) -> Tensor:
        """Return the true cost of integers in nats, (images,), double precision."""
        log_prior, decoded = self._read(symbols)
        cost = self._cost(log_prior, to_8bit(decoded))
        return cost.rate_nats.double() + cost.distortion_nats.double()

    def _try(self, symbols: Latents) -> None:
        """Keep integers of the images whose cost is the least so far; NaN never is."""
        nats = self._hard_nats(symbols)
        better = nats < self._least
        self._least = torch.where(better, nats, self._least)
        self._best = tuple(
            torch.where(better.view(-1, *[1] * (new.ndim - 1)), new, old)
            for new, old in zip(symbols, self._best, strict=True)
        )

    def _results(self) -> list[Encoding]:
        seconds = (time.perf_counter() - self._began) / len(self._images)
        return [self._result(index, seconds) for index in range(len(self._images))]

    def _result(self, index: int, seconds: float) -> Encoding:
        own, best = _row(self._own, index), _row(self._best, index)
        of_own, of_best = self._alone(own, index), self._alone(best, index)
        if of_best.lagrangian_nats > of_own.lagrangian_nats:
            # By less than convolutions round differently in a batch.
            best, of_best = own, of_own
        return Encoding(
            symbols=best,
            encoder_symbols=own,
            bits=_bits(of_best),
            mse=float(of_best.mse),
            encoder_bits=_bits(of_own),
            encoder_mse=float(of_own.mse),
            num_pixels=of_own.num_pixels,
            lmbda=self._lmbda,
            seconds=seconds,
        )

    @torch.no_grad()
    def _alone(self, symbols: Latents, index: int) -> Cost:
        """Return the true cost of one image's integers, double precision, whatever was searched beside it."""
        log_prior, decoded = self._read(symbols)
        images = self._images[index : index + 1]
        return cost_of_reading(log_prior.double(), to_8bit(decoded).double(), images.double(), self._lmbda)


def _bits(cost: Cost) -> float:
    return float(cost.rate_nats) / math.log(2) + 0.0  # + 0.0 makes -0.0 a zero


def _joined(rows: Sequence[Latents]) -> Latents:
    """Return latents of single images as those of a batch."""
    return tuple(torch.cat(parts) for parts in zip(*rows, strict=True))


def _row(latents: Latents, index: int) -> Latents:
    return tuple(latent[index : index + 1] for latent in latents)


def _checked(symbols: Latents, like: Latents) -> Latents:
    """Return the symbols of one image to start from, or refuse them."""
    shapes, expected = [tuple(each.shape) for each in symbols], [(1, *each.shape[1:]) for each in like]
    if shapes != expected:
        raise ValueError(f"`start` must have symbols of the shapes {expected}, got {shapes}.")
    if any(bool((each != each.round()).any()) for each in symbols):
        raise ValueError("`start` must have whole numbers, got others.")
    return tuple(each.to(own) for each, own in zip(symbols, like, strict=True))


def _check(
    images: Sequence[Tensor] | Tensor,
    lmbda: float,
    generators: Sequence[torch.Generator],
    steps: int,
    learning_rate: float | None,
    start: Sequence[Latents] | None,
    batch: int,
) -> None:
    check_lmbda(lmbda)
    if not len(images) or any(image.ndim != 3 or 0 in image.shape for image in images):
        raise ValueError(
            f"`images` must each be (channels, height, width), got {[tuple(image.shape) for image in images]}."
        )
    if not all(torch.isfinite(image).all() for image in images):
        raise ValueError("`images` must be finite, got NaN or infinity.")
    for name, given in (("generators", generators), ("start", start)):
        if given is not None and len(given) != len(images):
            raise ValueError(f"`{name}` must have one entry for each of {len(images)} images, got {len(given)}.")
    for name, number in (("steps", steps), ("batch", batch)):
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, got {number}.")
    if learning_rate is not None and not (learning_rate > 0 and math.isfinite(learning_rate)):
        raise ValueError(f"`learning_rate` must be positive and finite, got {learning_rate}.")
