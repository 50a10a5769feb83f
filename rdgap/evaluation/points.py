"""Measuring one image, and a folder of images, at the operating points of codecs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from .. import conventional, metrics
from ..encoding import Encoder
from ..images import read_image, to_8bit
from ..lpips import lpips
from ..model import Codec, Latents, LatticeCodec
from ..objective import check_lmbda, reconstruct
from ..parallel import map_images
from ..tables import EVALUATION, OWN_ENCODER, curve_name
from .cache import MeasurementCache
from .measurement import DEFAULT_METRICS, Measurement

if TYPE_CHECKING:
    import pandas as pd


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
        in_threads: Whether several images may be measured at once, as conventional codecs, which use one core each.
    """

    codec: str
    setting: float
    rate_kind: str
    measure: Callable[[Tensor], Measurement]
    encoder: str = OWN_ENCODER
    encoder_steps: int = 0
    in_threads: bool = False


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
    metrics: Collection[str] = DEFAULT_METRICS,
    choice: IterativeChoice | None = None,
) -> OperatingPoint:
    """Return the operating point of a codec trained for `lmbda`, whose modules are on `device`.

    What is sent is chosen by the codec's own encoder, or by `choice`.
    """
    measure = partial(_estimate_image, codec, device=device, metrics=metrics, choice=choice)
    return _trained_point(name, lmbda, "estimated", measure, choice)


def coded_point(
    coder: BitstreamCoder,
    *,
    name: str,
    lmbda: float,
    metrics: Collection[str] = DEFAULT_METRICS,
    choice: IterativeChoice | None = None,
) -> OperatingPoint:
    """Return the operating point of a codec trained for `lmbda` whose images are really coded and decoded again."""
    measure = partial(_code_image, coder, metrics=metrics, choice=choice)
    return _trained_point(name, lmbda, "coded", measure, choice)


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


def conventional_points(
    codec: str,
    settings: Sequence[int] | None = None,
    *,
    metrics: Collection[str] = DEFAULT_METRICS,
    cache: MeasurementCache | None = None,
) -> list[OperatingPoint]:
    """Return the operating points of one of `rdgap.conventional.CODECS`.

    Args:
        codec: Its name.
        settings: Values of its knob; by default the grid that draws its curve.
        metrics: What to measure beside the squared error.
        cache: Where measurements are looked up and kept.

    Raises:
        ValueError: If there is no such codec or setting.
        ModuleNotFoundError: If this machine lacks the codec.
    """
    points = []
    for setting in conventional.codec_called(codec).grid if settings is None else settings:
        conventional.command(codec, setting)  # what is not there is found out now
        measure = partial(_transcode_image, codec, setting, metrics=metrics, cache=cache)
        points.append(
            OperatingPoint(codec=codec, setting=float(setting), rate_kind="coded", measure=measure, in_threads=True)
        )
    return points


@torch.inference_mode()
def evaluate_image(
    codec: Codec,
    image: Tensor,
    *,
    device: torch.device | str = "cpu",
    metrics: Collection[str] = DEFAULT_METRICS,
    symbols: Latents | None = None,
) -> Measurement:
    """Measure a learned codec on one image, with latents rounded as they would be coded.

    Args:
        codec: Any codec of the protocol in `rdgap.model`.
        image: (3, height, width), in [0, 1], of any size.
        device: Where the codec is.
        metrics: What to measure beside the squared error, of `METRICS`.
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
    return _measurement(image, to_8bit(decoded)[0].cpu(), bits, "estimated", metrics)


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
    codec: Codec,
    image: Tensor,
    *,
    device: torch.device | str,
    metrics: Collection[str],
    choice: IterativeChoice | None,
) -> Measurement:
    return evaluate_image(codec, image, device=device, metrics=metrics, symbols=choice and choice.symbols(image))


def _transcode_image(
    codec: str, setting: int, image: Tensor, *, metrics: Collection[str], cache: MeasurementCache | None
) -> Measurement:
    def measure() -> Measurement:
        coded = conventional.transcode(codec, image, setting)
        return _measurement(image, coded.decoded, float(coded.bits), "coded", metrics)

    if cache is None:
        return measure()
    key = cache.key(conventional.rgb8(image), conventional.command(codec, setting))
    known = cache.get(key, metrics)
    if known is None:
        known = measure()
        cache.put(key, known, metrics)
    return known


def _code_image(
    coder: BitstreamCoder, image: Tensor, *, metrics: Collection[str], choice: IterativeChoice | None
) -> Measurement:
    stream = coder.encode(image, choice and choice.symbols(image))
    return _measurement(image, coder.decode(stream).cpu(), 8.0 * len(stream), "coded", metrics)


@torch.inference_mode()
def _measurement(
    image: Tensor, decoded: Tensor, bits: float, rate_kind: str, of_metrics: Collection[str] = DEFAULT_METRICS
) -> Measurement:
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
        ms_ssim=float(metrics.ms_ssim(images, decoded)) if "ms_ssim" in of_metrics else math.nan,
        lpips=float(lpips(images, decoded)) if "lpips" in of_metrics else math.nan,
    )


def evaluate(
    points: Sequence[OperatingPoint], paths: Sequence[Path], *, executor: Executor | None = None, jobs: int = 1
) -> pd.DataFrame:
    """Measure every operating point on every image; return a table of the schema `rdgap.tables.EVALUATION`.

    The data set of an image is the name of its folder. `lpips` is NaN where it was not measured.

    Args:
        points: What to measure.
        paths: The images.
        executor: Where to run; by default in this process.
        jobs: How many images points that may run in threads are measured on at once, without an executor.

    Raises:
        ValueError: If an operating point or an image (a name in a data set) is given twice, or none is given.
    """
    import pandas as pd

    keys = [(curve_name(vars(point)), point.setting, point.rate_kind) for point in points]
    _check_distinct("operating point", keys)
    _check_distinct("image", [_names(path) for path in paths])
    in_threads = [point for point in points if point.in_threads and jobs > 1 and executor is None]
    others = [point for point in points if point not in in_threads]
    rows: list[dict[str, object]] = []
    if in_threads:
        with ThreadPoolExecutor(jobs) as threads:
            fn = partial(_rows, in_threads)
            for of_image in map_images(fn, paths, executor=threads, description="evaluating, conventional"):
                rows += of_image
    if others:
        for of_image in map_images(partial(_rows, others), paths, executor=executor, description="evaluating"):
            rows += of_image
    return pd.DataFrame(rows, columns=list(EVALUATION))


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
