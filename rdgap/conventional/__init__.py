"""Conventional image codecs, as real files in memory: what learned codecs are measured against.

- `jpeg`: Pillow's (libjpeg-turbo), chroma 4:2:0, optimised Huffman tables.
- `webp`: Pillow's (libwebp), lossy, method 4.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..images import to_8bit

_ENCODERS: Mapping[str, Mapping[str, Any]] = {
    "jpeg": {"format": "JPEG", "subsampling": "4:2:0", "optimize": True},
    "webp": {"format": "WEBP", "method": 4},
}

CODECS = tuple(_ENCODERS)
"""Names of the conventional codecs."""

QUALITIES = (2, 5, 8, 10, 12, *range(15, 100, 5))
"""The grid of qualities that draws a codec's curve; dense where the rate falls fastest."""


@dataclass(frozen=True, kw_only=True)
class Coded:
    """An image after coding and decoding.

    Attributes:
        decoded: (3, height, width), in [0, 1].
        bits: Length of the whole file, headers included.
    """

    decoded: Tensor
    bits: int


def transcode(codec: str, image: Tensor, quality: int) -> Coded:
    """Code an image by a conventional codec and decode it again.

    Args:
        codec: One of `CODECS`.
        image: (3, height, width), in [0, 1]; rounded to 8 bit.
        quality: From 1 (small files) to 100.

    Raises:
        ValueError: If there is no such codec, the quality is out of range, or the image is too large for the format.
    """
    if codec not in CODECS:
        raise ValueError(f"`codec` must be one of {', '.join(CODECS)}, got {codec!r}.")
    if not 1 <= quality <= 100:
        raise ValueError(f"`quality` must be from 1 to 100, got {quality}.")
    pixels = (to_8bit(image) * 255.0).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, quality=quality, **_ENCODERS[codec])
    with Image.open(file) as opened:
        decoded = torch.from_numpy(np.array(opened.convert("RGB")))
    return Coded(decoded=decoded.permute(2, 0, 1).float() / 255.0, bits=8 * file.getbuffer().nbytes)
