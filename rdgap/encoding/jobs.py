"""One piece of the command's work, which any process of any machine can do: some images under one codec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .. import _cli, metrics
from .._jobs import placed
from ..codec import Coder
from ..images import center_crop, read_image, to_8bit
from ..model import Latents, LatticeCodec
from ..ntc import NTCCodec
from ..objective import reconstruct
from ..zoo import named_codec, weights_name
from .encoder import Encoder
from .search import Encoding

if TYPE_CHECKING:
    import pandas as pd

_LARGEST = 2**40  # pixels: what can be searched can be coded
_MOST_CODERS = 32  # kept ready for codecs that came from elsewhere


@dataclass(frozen=True, kw_only=True, repr=False)
class Job:
    """Images of equal size to be encoded together under one codec.

    Attributes:
        model: Name or file of the codec.
        lmbda: What it is trained for.
        paths: Image files.
        encoder: How they are encoded.
        crop: Side of the square in the middle of each image; 0 for all of it.
        device: Where the codec goes, as `rdgap._cli.device` reads it.
        codec: The codec itself, for a machine that may not have it; else it is loaded by its name.
    """

    model: str
    lmbda: float
    paths: tuple[Path, ...]
    encoder: Encoder
    crop: int
    device: str
    codec: LatticeCodec | None = None

    def __repr__(self) -> str:
        """Name the job, for the message of an error."""
        return f"{self.model}, lmbda {self.lmbda:g}, {', '.join(path.name for path in self.paths)}"


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Results of a job.

    Attributes:
        table: One row per image, the columns of `rdgap.schemas.ENCODED`.
        streams: Their bitstreams; none of codecs that have no bitstreams here.
    """

    table: pd.DataFrame
    streams: tuple[bytes | None, ...]


def measure(job: Job) -> Encoded:
    """Encode the job's images.

    Distortions are those of the images that bitstreams decode to, bit for bit, where the codec has bitstreams.
    """
    import pandas as pd

    device = _cli.device(job.device)
    coder = _coder_of(placed(job.codec, device)) if job.codec is not None else _coder(job.model, job.lmbda, device)
    images = [read_crop(path, job.crop) for path in job.paths]
    encodings = job.encoder.encode(coder.codec, [image.to(device) for image in images], job.lmbda, batch=len(images))
    rows, streams = zip(
        *(_row(job, *each, coder) for each in zip(job.paths, images, encodings, strict=True)), strict=True
    )
    table = pd.DataFrame(rows).assign(
        model=job.model,
        lmbda=job.lmbda,
        crop=job.crop,
        device=device.type,
        **settings_of(job.encoder),
    )
    return Encoded(table=table, streams=streams)


def settings_of(encoder: Encoder) -> dict[str, object]:
    """Return the settings as they stand in each row."""
    return {**vars(encoder), "bf16": int(encoder.bf16)}


def stream_path(folder: Path, image: str, model: str, lmbda: float) -> Path:
    """Return where the bitstream of an image, a name without its suffix, goes."""
    return folder / f"{image}-{weights_name(Path(model).stem, lmbda)}.rdg"


def read_crop(path: Path, crop: int) -> Tensor:
    """Read an image, (3, height, width), or the square of side `crop` in its middle.

    Raises:
        ValueError: If the file is not an image, or smaller than the crop.
        OSError: If it cannot be read.
    """
    image = read_image(path)
    try:
        return center_crop(image, crop) if crop else image
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _row(
    job: Job, path: Path, image: Tensor, encoding: Encoding, coder: Coder | _Uncoded
) -> tuple[Mapping[str, object], bytes | None]:
    height, width = image.shape[-2:]

    def cost_of(symbols: Latents, bits: float) -> dict[str, float]:
        mse = float(metrics.mse(image[None], coder.reconstruct(symbols, height, width)[None]))
        return {"bits": bits, "mse": mse, "lagrangian_bpp": bits / encoding.num_pixels + job.lmbda * mse}

    own = cost_of(encoding.encoder_symbols, encoding.encoder_bits)
    symbols, found = encoding.symbols, cost_of(encoding.symbols, encoding.bits)
    if found["lagrangian_bpp"] > own["lagrangian_bpp"]:  # by less than fixed point rounds differently
        symbols, found = encoding.encoder_symbols, own
    stream = coder.encode(image, symbols) if isinstance(coder, Coder) else None
    row = (
        {"image": path.stem, "num_pixels": encoding.num_pixels, "seconds": encoding.seconds}
        | {f"encoder_{name}": amount for name, amount in own.items()}
        | found
        | {"saving_percent": 100 * (1 - found["lagrangian_bpp"] / own["lagrangian_bpp"])}
        | {"stream_bits": math.nan if stream is None else 8.0 * len(stream)}
    )
    return row, stream


class _Uncoded:
    """Takes a coder's place for a codec that has no bitstreams here."""

    def __init__(self, codec: LatticeCodec) -> None:
        self.codec = codec

    @torch.no_grad()
    def reconstruct(self, symbols: Latents, height: int, width: int) -> Tensor:
        """Return the image of some symbols, (3, height, width), rounded to 8 bit."""
        return to_8bit(reconstruct(self.codec, self.codec.from_symbols(symbols), (height, width)))[0].cpu()


@cache
def _coder(model: str, lmbda: float, device: torch.device) -> Coder | _Uncoded:
    codec = named_codec(model, lmbda, device=device)
    assert isinstance(codec, LatticeCodec)  # the command has seen to that
    return _coder_of(codec)


@lru_cache(_MOST_CODERS)
def _coder_of(codec: LatticeCodec) -> Coder | _Uncoded:
    return Coder(codec, max_pixels=_LARGEST) if isinstance(codec, NTCCodec) else _Uncoded(codec)
