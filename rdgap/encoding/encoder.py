"""Iterative encoding with its settings, as commands and tables know it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _cli
from ..model import Codec
from ..schemas import OWN_ENCODER
from .methods import METHODS, PAPER_STEPS
from .search import Encoding, encode_iteratively


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """Iterative encoding, the same for every image: what it finds depends on the image and these settings alone.

    Attributes:
        method: A name in `METHODS`.
        steps: Of the search.
        seed: Of the random numbers of each image.
        bf16: Whether slopes are followed in bfloat16.
    """

    method: str
    steps: int = PAPER_STEPS
    seed: int = 0
    bf16: bool = False

    def encode(
        self, codec: Codec, images: Sequence[Tensor] | Tensor, lmbda: float, *, batch: int = 8
    ) -> list[Encoding]:
        """Encode images, each (3, height, width) in [0, 1] on the device of the codec; see `encode_iteratively`."""
        generators = [torch.Generator(image.device).manual_seed(self.seed) for image in images]
        return encode_iteratively(
            codec,
            images,
            lmbda,
            generators=generators,
            method=METHODS[self.method],
            steps=self.steps,
            batch=batch,
            bf16=self.bf16,
        )


def add_steps(arguments: argparse.ArgumentParser) -> None:
    """Add `--steps` and `--bf16`."""
    arguments.add_argument(
        "--steps",
        type=_cli.positive_int,
        default=PAPER_STEPS,
        help="of iterative encoding: more take longer and find better (default: %(default)s, the paper's)",
    )
    arguments.add_argument(
        "--bf16", action="store_true", help="of iterative encoding: follow slopes in bfloat16; costs stay in float32"
    )


def add_encoder(arguments: argparse.ArgumentParser) -> None:
    """Add `--encoder`, `--steps`, `--bf16` and `--seed`, read by `encoder`."""
    arguments.add_argument(
        "--encoder",
        choices=(OWN_ENCODER, *METHODS),
        default=OWN_ENCODER,
        help="what chooses the latents: the codec's own encoder, or iterative encoding (default: %(default)s)",
    )
    add_steps(arguments)
    _cli.add_seed(arguments)


def encoder(options: argparse.Namespace) -> Encoder | None:
    """Return the encoder that the options name; None for the codec's own."""
    if options.encoder == OWN_ENCODER:
        return None
    return Encoder(method=options.encoder, steps=options.steps, seed=options.seed, bf16=options.bf16)
