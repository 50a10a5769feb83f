"""Measuring one image, and a folder of images, at the operating points of codecs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from .. import conventional, metrics
from ..encoding import Encoder
from ..images import read_image, to_8bit
from ..model import Codec, Latents, LatticeCodec
from ..objective import check_lmbda, reconstruct
from ..parallel import map_images
from ..tables import EVALUATION, OWN_ENCODER
from .summary import curve_name

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Rate and distortion of one image.

    Attributes:
        num_pixels: Height times width.
        bits: Size of the image's description.
        rate_kind: "estimated" or "coded".
        mse: Mean squared error of the decoded image rounded to 8 bit, 0..255 scale.
        psnr_db: `10 log10(255^2 / mse)`; `inf` where the decoded image is exact.
        ms_ssim: Multi-scale structural similarity; NaN for images too small for it.
    """

    num_pixels: int
    bits: float
    rate_kind: str
    mse: float
    psnr_db: float
    ms_ssim: float

    @property
    def rate_bpp(self) -> float:
        """Rate in bits per pixel."""
        return self.bits / self.num_pixels


class BitstreamCoder(Protocol):
    """What writes and reads real bitstreams, `rdgap.codec.Coder` for one."""

    def encode(self, image: Tensor, symbols: Latents | None = None) -> bytes:
        """Return the bitstream of an image, (3, height, width) in [0, 1]: of the codec's own choice, or of symbols."""
        ...

    def decode(self, stream: bytes) -> Tensor:
        """Return the image of a bitstream, shaped alike."""
        ...


@dataclass(frozen=True, kw_only=True)
class OperatingPoint:
    """A codec at one setting.

    Attributes:
        codec: Name of the codec.
        setting: What moves it along its curve: `lmbda` of a learned codec, quality of a conventional one.
        rate_kind: "estimated" or "coded": what `measure` finds.
        measure: Maps an image, (3, height, width) in [0, 1], to its rate and distortion.
        encoder: "own" where the codec's own encoder chooses what to send, else a method of `rdgap.encoding`.
        encoder_steps: Steps of that method.
    """

    codec: str
    setting: float
    rate_kind: str
    measure: Callable[[Tensor], Measurement]
    encoder: str = OWN_ENCODER
    encoder_steps: int = 0


class IterativeChoice:
    """What an iterative encoder sends for an image.

    The last image is remembered, because estimated and coded rates ask for the same.

    Args:
        codec: A codec that names its lattice points, trained for `lmbda`.
        lmbda: What the encoder minimizes, `bpp + lmbda * mse`.
        encoder: How it does.
        device: Where the codec is.
    """

    def __init__(self, codec: Codec, lmbda: float, encoder: Encoder, device: torch.device | str = "cpu") -> None:
        self.encoder = encoder
        self._codec, self._lmbda, self._device = codec, lmbda, device
        self._image: Tensor | None = None
        self._symbols: Latents = ()

    def symbols(self, image: Tensor) -> Latents:
        """Return the symbols of an image, (3, height, width) in [0, 1]."""
        if image is not self._image:
            (found,) = self.encoder.encode(self._codec, image[None].to(self._device), self._lmbda)
            self._image, self._symbols = image, found.symbols
        return self._symbols


def learned_point(
    codec: Codec,
    *,
    name: str,
    lmbda: float,
    device: torch.device | str = "cpu",
    choice: IterativeChoice | None = None,
) -> OperatingPoint:
    """Return the operating point of a codec trained for `lmbda`, whose modules are on `device`.

    What is sent is chosen by the codec's own encoder, or by `choice`.
    """
    return _trained_point(name, lmbda, "estimated", partial(_estimate_image, codec, device, choice), choice)


def coded_point(
    coder: BitstreamCoder, *, name: str, lmbda: float, choice: IterativeChoice | None = None
) -> OperatingPoint:
    """Return the operating point of a codec trained for `lmbda` whose images are really coded and decoded again."""
    return _trained_point(name, lmbda, "coded", partial(_code_image, coder, choice), choice)


def _trained_point(
    name: str,
    lmbda: float,
    rate_kind: str,
    measure: Callable[[Tensor], Measurement],
    choice: IterativeChoice | None,
) -> OperatingPoint:
    check_lmbda(lmbda)
    point = OperatingPoint(codec=name, setting=lmbda, rate_kind=rate_kind, measure=measure)
    if choice is None:
        return point
    return replace(point, encoder=choice.encoder.method, encoder_steps=choice.encoder.steps)


def conventional_points(codec: str, qualities: Sequence[int] = conventional.QUALITIES) -> list[OperatingPoint]:
    """Return the operating points of one of `rdgap.conventional.CODECS`."""
    return [
        OperatingPoint(
            codec=codec, setting=float(quality), rate_kind="coded", measure=partial(_transcode_image, codec, quality)
        )
        for quality in qualities
    ]


@torch.inference_mode()
def evaluate_image(
    codec: Codec, image: Tensor, *, device: torch.device | str = "cpu", symbols: Latents | None = None
) -> Measurement:
    """Measure a learned codec on one image, with latents rounded as they would be coded.

    Args:
        codec: Any codec of the protocol in `rdgap.model`.
        image: (3, height, width), in [0, 1], of any size.
        device: Where the codec is.
        symbols: What is sent for the image, each (1, ...), if the codec is a `LatticeCodec`; by default what its own
            encoder chooses.

    Raises:
        RuntimeError: If the rate is negative or not finite, or the decoded image is not finite.
    """
    images = image.unsqueeze(0).to(device)
    if symbols is None:
        latents = codec.quantize(codec.infer(images))
    else:
        assert isinstance(codec, LatticeCodec)
        latents = codec.from_symbols(symbols)
    bits = estimated_bits(codec, latents)
    decoded = reconstruct(codec, latents, (image.shape[-2], image.shape[-1]))
    return _measurement(image, to_8bit(decoded)[0].cpu(), bits, "estimated")


def estimated_bits(codec: Codec, latents: Latents) -> float:
    """Return -log2 of the prior at the rounded latents of one image.

    Raises:
        RuntimeError: If that is negative or not finite.
    """
    bits = float(-codec.log_prior(latents).double() / math.log(2)) + 0.0  # + 0.0 makes -0.0 a zero
    if not (bits >= 0 and math.isfinite(bits)):
        raise RuntimeError(f"`-log_prior` of rounded latents must be finite and not negative, got {bits} bits.")
    return bits


def _estimate_image(
    codec: Codec, device: torch.device | str, choice: IterativeChoice | None, image: Tensor
) -> Measurement:
    return evaluate_image(codec, image, device=device, symbols=choice and choice.symbols(image))


def _transcode_image(codec: str, quality: int, image: Tensor) -> Measurement:
    coded = conventional.transcode(codec, image, quality)
    return _measurement(image, coded.decoded, float(coded.bits), "coded")


def _code_image(coder: BitstreamCoder, choice: IterativeChoice | None, image: Tensor) -> Measurement:
    stream = coder.encode(image, choice and choice.symbols(image))
    return _measurement(image, coder.decode(stream).cpu(), 8.0 * len(stream), "coded")


def _measurement(image: Tensor, decoded: Tensor, bits: float, rate_kind: str) -> Measurement:
    images, decoded = image.unsqueeze(0).cpu(), decoded.unsqueeze(0)
    mse = metrics.mse(images, decoded)
    if not torch.isfinite(mse).all():
        raise RuntimeError("The decoded image must be finite, got NaN or infinity.")
    return Measurement(
        num_pixels=image.shape[-2] * image.shape[-1],
        bits=bits,
        rate_kind=rate_kind,
        mse=float(mse),
        psnr_db=float(metrics.psnr_db(mse)),
        ms_ssim=float(metrics.ms_ssim(images, decoded)),
    )


def evaluate(
    points: Sequence[OperatingPoint], paths: Sequence[Path], *, executor: Executor | None = None
) -> pd.DataFrame:
    """Measure every operating point on every image; return a table of the schema `rdgap.tables.EVALUATION`.

    The data set of an image is the name of its folder.

    Raises:
        ValueError: If an operating point or an image (a name in a data set) is given twice, or none is given.
    """
    import pandas as pd

    keys = [(curve_name(vars(point)), point.setting, point.rate_kind) for point in points]
    _check_distinct("operating point", keys)
    _check_distinct("image", [_names(path) for path in paths])
    rows = map_images(partial(_rows, points), paths, executor=executor, description="evaluating")
    return pd.DataFrame([row for of_image in rows for row in of_image], columns=list(EVALUATION))


def _rows(points: Sequence[OperatingPoint], path: Path) -> list[dict[str, object]]:
    image = read_image(path)
    dataset, name = _names(path)
    return [
        {"codec": point.codec, "setting": point.setting, "dataset": dataset, "image": name}
        | asdict(point.measure(image))
        | {"encoder": point.encoder, "encoder_steps": point.encoder_steps}
        for point in points
    ]


def _names(path: Path) -> tuple[str, str]:
    """Return the names of the data set and of the image."""
    return path.resolve().parent.name or "/", path.stem


def _check_distinct(noun: str, keys: Sequence[tuple[object, ...]]) -> None:
    if not keys:
        raise ValueError(f"At least one {noun} must be given, got none.")
    key, count = Counter(keys).most_common(1)[0]
    if count > 1:
        raise ValueError(f"Each {noun} must be given once, got {' '.join(map(str, key))} {count} times.")
