"""Conventional image codecs, as real files: what learned codecs are measured against.

JPEG, JPEG 2000, WebP and AVIF come with Pillow, HEVC with the extra `[hevc]`, BPG with the programs `bpgenc` and
`bpgdec` on the PATH. Sizes are those of whole files, headers included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..images import to_8bit
from .codecs import CODECS as CODECS
from .codecs import ConventionalCodec as ConventionalCodec


@dataclass(frozen=True, kw_only=True)
class Coded:
    """An image after coding and decoding.

    Attributes:
        decoded: (3, height, width), in [0, 1].
        bits: Length of the whole file, headers included.
    """

    decoded: Tensor
    bits: int


def transcode(codec: str, image: Tensor, setting: int) -> Coded:
    """Code an image by a conventional codec and decode it again.

    Args:
        codec: One of `CODECS`.
        image: (3, height, width), in [0, 1]; rounded to 8 bit.
        setting: Value of the codec's knob.

    Raises:
        ValueError: If there is no such codec, the setting is out of range, or the image is too large for the format.
        ModuleNotFoundError: If this machine lacks the codec; the message says how to get it.
        RuntimeError: If the codec fails.
    """
    chosen = _checked(codec, setting)
    file = chosen.encode(rgb8(image), setting)
    decoded = torch.from_numpy(chosen.decode(file).copy()).permute(2, 0, 1).float() / 255.0
    if decoded.shape != image.shape:
        raise RuntimeError(f"{codec} must decode what it coded, got {tuple(decoded.shape)} for {tuple(image.shape)}.")
    return Coded(decoded=decoded, bits=8 * len(file))


def command(codec: str, setting: int) -> str:
    """Return exactly what `transcode` runs, with versions; errors likewise."""
    return _checked(codec, setting).command(setting)


def listing() -> str:
    """Return a line for each codec, for the help of commands."""
    return "\n".join(f"  {name:12} {codec.what}" for name, codec in CODECS.items())


def rgb8(image: Tensor) -> np.ndarray:
    """Return an image, (3, height, width) in [0, 1], as uint8 RGB, (height, width, 3)."""
    pixels = (to_8bit(image) * 255.0).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return np.ascontiguousarray(pixels)


def codec_called(name: str) -> ConventionalCodec:
    """Return the codec of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in CODECS:
        raise ValueError(f"`codec` must be one of {', '.join(CODECS)}, got {name!r}.")
    return CODECS[name]


def _checked(codec: str, setting: int) -> ConventionalCodec:
    chosen = codec_called(codec)
    if not chosen.lowest <= setting <= chosen.highest:
        raise ValueError(
            f"The {chosen.knob} of {codec} must be from {chosen.lowest} to {chosen.highest}, got {setting}."
        )
    return chosen
