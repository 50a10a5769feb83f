"""Measuring one image, and a folder of images, at the operating points of codecs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from .. import conventional, metrics
from ..images import read_image, to_8bit
from ..lpips import lpips
from ..model import Codec
from ..objective import check_lmbda, reconstruct
from ..parallel import map_images
from ..tables import EVALUATION
from .cache import MeasurementCache
from .measurement import DEFAULT_METRICS, Measurement

if TYPE_CHECKING:
    import pandas as pd


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
        in_threads: Whether several images may be measured at once, as conventional codecs, which use one core each.
    """

    codec: str
    setting: float
    rate_kind: str
    measure: Callable[[Tensor], Measurement]
    in_threads: bool = False


def learned_point(
    codec: Codec,
    *,
    name: str,
    lmbda: float,
    device: torch.device | str = "cpu",
    metrics: Collection[str] = DEFAULT_METRICS,
) -> OperatingPoint:
    """Return the operating point of a codec trained for `lmbda`, whose modules are on `device`."""
    check_lmbda(lmbda)
    measure = partial(evaluate_image, codec, device=device, metrics=metrics)
    return OperatingPoint(codec=name, setting=lmbda, rate_kind="estimated", measure=measure)


def coded_point(
    coder: BitstreamCoder, *, name: str, lmbda: float, metrics: Collection[str] = DEFAULT_METRICS
) -> OperatingPoint:
    """Return the operating point of a codec trained for `lmbda` whose images are really coded and decoded again."""
    check_lmbda(lmbda)
    measure = partial(_code_image, coder, metrics=metrics)
    return OperatingPoint(codec=name, setting=lmbda, rate_kind="coded", measure=measure)


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
) -> Measurement:
    """Measure a learned codec on one image, with latents rounded as they would be coded.

    Args:
        codec: Any codec of the protocol in `rdgap.model`.
        image: (3, height, width), in [0, 1], of any size.
        device: Where the codec is.
        metrics: What to measure beside the squared error, of `METRICS`.

    Raises:
        RuntimeError: If the rate is negative or not finite, or the decoded image is not finite.
    """
    images = image.unsqueeze(0).to(device)
    latents = codec.quantize(codec.infer(images))
    bits = float(-codec.log_prior(latents).double() / math.log(2)) + 0.0  # + 0.0 makes -0.0 a zero
    if not (bits >= 0 and math.isfinite(bits)):
        raise RuntimeError(f"`-log_prior` of rounded latents must be finite and not negative, got {bits} bits.")
    decoded = reconstruct(codec, latents, (image.shape[-2], image.shape[-1]))
    return _measurement(image, to_8bit(decoded)[0].cpu(), bits, "estimated", metrics)


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


def _code_image(coder: BitstreamCoder, image: Tensor, *, metrics: Collection[str] = DEFAULT_METRICS) -> Measurement:
    stream = coder.encode(image)
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

    The data set of an image is the name of its folder. The column `lpips` is there only if it was measured.

    Args:
        points: What to measure.
        paths: The images.
        executor: Where to run; by default in this process.
        jobs: How many images points that may run in threads are measured on at once, without an executor.

    Raises:
        ValueError: If an operating point or an image (a name in a data set) is given twice, or none is given.
    """
    import pandas as pd

    _check_distinct("operating point", [(point.codec, point.setting, point.rate_kind) for point in points])
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
    asked = [name for name in EVALUATION.optional if any(row[name] == row[name] for row in rows)]
    return pd.DataFrame(rows, columns=[*EVALUATION, *asked])


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
