"""Measuring one image, and a folder of images, at the operating points of codecs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from .. import conventional, metrics
from ..images import read_image, to_8bit
from ..model import Codec, Latents
from ..objective import check_lmbda, reconstruct
from ..parallel import map_images
from ..tables import EVALUATION

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

    def encode(self, image: Tensor) -> bytes:
        """Return the bitstream of an image, (3, height, width) in [0, 1]."""
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
    """

    codec: str
    setting: float
    rate_kind: str
    measure: Callable[[Tensor], Measurement]


def learned_point(codec: Codec, *, name: str, lmbda: float, device: torch.device | str = "cpu") -> OperatingPoint:
    """Return the operating point of a codec trained for `lmbda`, whose modules are on `device`."""
    check_lmbda(lmbda)
    measure = partial(evaluate_image, codec, device=device)
    return OperatingPoint(codec=name, setting=lmbda, rate_kind="estimated", measure=measure)


def coded_point(coder: BitstreamCoder, *, name: str, lmbda: float) -> OperatingPoint:
    """Return the operating point of a codec trained for `lmbda` whose images are really coded and decoded again."""
    check_lmbda(lmbda)
    return OperatingPoint(codec=name, setting=lmbda, rate_kind="coded", measure=partial(_code_image, coder))


def conventional_points(codec: str, qualities: Sequence[int] = conventional.QUALITIES) -> list[OperatingPoint]:
    """Return the operating points of one of `rdgap.conventional.CODECS`."""
    return [
        OperatingPoint(
            codec=codec, setting=float(quality), rate_kind="coded", measure=partial(_transcode_image, codec, quality)
        )
        for quality in qualities
    ]


@torch.inference_mode()
def evaluate_image(codec: Codec, image: Tensor, *, device: torch.device | str = "cpu") -> Measurement:
    """Measure a learned codec on one image, with latents rounded as they would be coded.

    Args:
        codec: Any codec of the protocol in `rdgap.model`.
        image: (3, height, width), in [0, 1], of any size.
        device: Where the codec is.

    Raises:
        RuntimeError: If the rate is negative or not finite, or the decoded image is not finite.
    """
    images = image.unsqueeze(0).to(device)
    latents = codec.quantize(codec.infer(images))
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


def _transcode_image(codec: str, quality: int, image: Tensor) -> Measurement:
    coded = conventional.transcode(codec, image, quality)
    return _measurement(image, coded.decoded, float(coded.bits), "coded")


def _code_image(coder: BitstreamCoder, image: Tensor) -> Measurement:
    stream = coder.encode(image)
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

    _check_distinct("operating point", [(point.codec, point.setting, point.rate_kind) for point in points])
    _check_distinct("image", [_names(path) for path in paths])
    rows = map_images(partial(_rows, points), paths, executor=executor, description="evaluating")
    return pd.DataFrame([row for of_image in rows for row in of_image], columns=list(EVALUATION))


def _rows(points: Sequence[OperatingPoint], path: Path) -> list[dict[str, object]]:
    image = read_image(path)
    dataset, name = _names(path)
    return [
        {"codec": point.codec, "setting": point.setting, "dataset": dataset, "image": name}
        | asdict(point.measure(image))
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
