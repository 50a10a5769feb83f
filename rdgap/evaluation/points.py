"""Measuring one image, and a folder of images, at the operating points of codecs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from .. import _cli, conventional, metrics
from .._jobs import GrowingTable, growing, kept_rows, placed
from ..encoding import Encoder
from ..images import read_image, read_rgb8, to_8bit
from ..lpips import lpips
from ..model import Codec, Latents, LatticeCodec
from ..objective import check_lmbda, reconstruct
from ..parallel import map_images
from ..schemas import EVALUATION, OWN_ENCODER, curve_name
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
        encoder_seed: Seed of its random numbers.
        encoder_bf16: 1 where it follows slopes in bfloat16, else 0.
        metrics: What `measure` finds beside the squared error.
        in_threads: Whether several images may be measured at once, as conventional codecs, which use one core each.
        command: Exactly what is run, where that says all.
        cache: Where measurements of a `command` are looked up and kept.
    """

    codec: str
    setting: float
    rate_kind: str
    measure: Callable[[Tensor], Measurement]
    encoder: str = OWN_ENCODER
    encoder_steps: int = 0
    encoder_seed: int = 0
    encoder_bf16: int = 0
    metrics: Collection[str] = DEFAULT_METRICS
    in_threads: bool = False
    command: str = ""
    cache: MeasurementCache | None = None

    @property
    def labels(self) -> dict[str, object]:
        """What tells its rows in a table from those of other points."""
        return {name: getattr(self, name) for name in _POINT_LABELS}


_POINT_LABELS = (
    *("codec", "setting", "rate_kind"),
    *("encoder", "encoder_steps", "encoder_seed", "encoder_bf16"),
)
_ROW_LABELS = ("dataset", "image", *_POINT_LABELS)


class IterativeChoice:
    """What an iterative encoder sends for an image.

    The last image is remembered, because estimated and coded rates ask for the same.

    Args:
        codec: A codec that names its lattice points, trained for `lmbda`.
        lmbda: What the encoder minimizes, `bpp + lmbda * mse`.
        encoder: How it does.
        device: Where the codec goes when it is used, as `learned_point` takes it.
    """

    def __init__(self, codec: Codec, lmbda: float, encoder: Encoder, device: torch.device | str = "cpu") -> None:
        self.encoder = encoder
        self._codec, self._lmbda, self._device = codec, lmbda, device
        self._image: Tensor | None = None
        self._symbols: Latents = ()

    def symbols(self, image: Tensor) -> Latents:
        """Return the symbols of an image, (3, height, width) in [0, 1]."""
        if image is not self._image:
            device = _cli.device(self._device)
            (found,) = self.encoder.encode(placed(self._codec, device), image[None].to(device), self._lmbda)
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
    """Return the operating point of a codec trained for `lmbda`, whose modules go to `device` when they are used.

    What is sent is chosen by the codec's own encoder, or by `choice`. The device "auto" is a GPU where there is one,
    wherever the point is measured.
    """
    measure = partial(_estimate_image, codec, device=device, metrics=metrics, choice=choice)
    return _trained_point(name, lmbda, "estimated", measure, metrics, choice)


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
    return _trained_point(name, lmbda, "coded", measure, metrics, choice)


def _trained_point(
    name: str,
    lmbda: float,
    rate_kind: str,
    measure: Callable[[Tensor], Measurement],
    metrics: Collection[str],
    choice: IterativeChoice | None,
) -> OperatingPoint:
    check_lmbda(lmbda)
    point = OperatingPoint(codec=name, setting=lmbda, rate_kind=rate_kind, measure=measure, metrics=metrics)
    if choice is None:
        return point
    settings = {f"encoder_{name}": int(getattr(choice.encoder, name)) for name in ("steps", "seed", "bf16")}
    return replace(point, encoder=choice.encoder.method, **settings)


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
        command = conventional.command(codec, setting)  # what is not there is found out now
        measure = partial(_transcode_image, codec, setting, metrics=metrics)
        points.append(
            OperatingPoint(
                codec=codec,
                setting=float(setting),
                rate_kind="coded",
                measure=measure,
                metrics=metrics,
                in_threads=True,
                command=command,
                cache=cache,
            )
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
    device, symbols = _cli.device(device), choice and choice.symbols(image)
    return evaluate_image(placed(codec, device), image, device=device, metrics=metrics, symbols=symbols)


def _transcode_image(codec: str, setting: int, image: Tensor, *, metrics: Collection[str]) -> Measurement:
    coded = conventional.transcode(codec, image, setting)
    return _measurement(image, coded.decoded, float(coded.bits), "coded", metrics)


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
    points: Sequence[OperatingPoint],
    paths: Sequence[Path],
    *,
    executor: Executor | None = None,
    jobs: int = 1,
    file: Path | None = None,
) -> pd.DataFrame:
    """Measure every operating point on every image; return a table of the schema `rdgap.schemas.EVALUATION`.

    The data set of an image is the name of its folder. `lpips` is NaN where it was not measured.

    Args:
        points: What to measure.
        paths: The images.
        executor: Where to run; by default in this process.
        jobs: How many images points that may run in threads are measured on at once, without an executor.
        file: A table that goes on with what is missing, and is written whenever an image is finished; rows that
            are not asked for are kept in it.

    Raises:
        ValueError: If an operating point or an image (a name in a data set) is given twice, or none is given, or `file`
            is no such table.
    """
    keys = [(curve_name(vars(point)), point.setting, point.rate_kind) for point in points]
    _check_distinct("operating point", keys)
    _check_distinct("image", [_names(path) for path in paths])
    in_threads = [point for point in points if point.in_threads and jobs > 1 and executor is None]
    others = [point for point in points if point not in in_threads]
    wanted = [_labels(path, point) for path in paths for point in points]
    kept = _without_lacking(kept_rows(file, {}, EVALUATION, _ROW_LABELS), points, set(wanted))
    with growing(file, kept, EVALUATION) as table, ThreadPoolExecutor(jobs) as threads:
        done = set() if kept is None else set(_row_labels(kept))
        for some, where, description in (
            (in_threads, threads, "evaluating, conventional"),
            (others, executor, "evaluating"),
        ):
            work = _Work(some, paths, done, table)
            if len(work):
                for result in map_images(_measure, work, executor=where, in_order=False, description=description):
                    work.receive(*result)
    rows = table.rows.set_index(list(_ROW_LABELS)).loc[wanted].reset_index()
    return rows.loc[:, list(EVALUATION)]


def _labels(path: Path, point: OperatingPoint) -> tuple[object, ...]:
    """Return what `_ROW_LABELS` are in the row of an image."""
    return (*_names(path), *point.labels.values())


def _row_labels(rows: pd.DataFrame) -> list[tuple[object, ...]]:
    return list(rows[list(_ROW_LABELS)].itertuples(index=False, name=None))


def _without_lacking(
    kept: pd.DataFrame | None, points: Sequence[OperatingPoint], wanted: Container[object]
) -> pd.DataFrame | None:
    """Leave out wanted rows that lack what is measured now; images below a size have no MS-SSIM."""
    if kept is None:
        return None
    asked = {metric for point in points for metric in point.metrics}
    lpips, ms_ssim, num_pixels = (kept[name].to_numpy() for name in ("lpips", "ms_ssim", "num_pixels"))
    lacking = np.isnan(lpips) & ("lpips" in asked)
    lacking |= np.isnan(ms_ssim) & ("ms_ssim" in asked) & (num_pixels >= metrics.MS_SSIM_MIN_SIDE**2)
    lacking &= np.array([labels in wanted for labels in _row_labels(kept)])
    return None if lacking.all() else kept.loc[~lacking, :]


@dataclass(frozen=True, kw_only=True, repr=False)
class _Job:
    """Operating points to be measured on an image; there is no path where there are none."""

    number: int
    name: str
    path: Path | None
    points: tuple[OperatingPoint, ...]

    def __repr__(self) -> str:
        return self.name


def _measure(job: _Job) -> tuple[int, list[Measurement]]:
    image = None if job.path is None else read_image(job.path)
    return job.number, [] if image is None else [point.measure(image) for point in job.points]


class _Work:
    """What has no row yet, a job for each image, less what a cache knows; results go to a table, and to the cache."""

    def __init__(
        self, points: Sequence[OperatingPoint], paths: Sequence[Path], done: Container[object], table: GrowingTable
    ) -> None:
        missing = [(path, [point for point in points if _labels(path, point) not in done]) for path in paths]
        self._missing = [(path, some) for path, some in missing if some]
        self._sent: dict[int, tuple[Path, list[tuple[OperatingPoint, str | None]]]] = {}
        self._table = table

    def __len__(self) -> int:
        return len(self._missing)

    def __iter__(self) -> Iterator[_Job]:
        for number, (path, points) in enumerate(self._missing):
            keys = _cache_keys(path, points)
            known = [point.cache.get(key, point.metrics) if point.cache and key else None for point, key in keys]
            self._add(path, [(point, found) for point, found in zip(points, known, strict=True) if found])
            asked = [each for each, found in zip(keys, known, strict=True) if not found]
            self._sent[number] = (path, asked)
            some = tuple(point for point, _ in asked)
            yield _Job(number=number, name=str(path), path=path.absolute() if some else None, points=some)

    def receive(self, number: int, measurements: Sequence[Measurement]) -> None:
        """Take the results of a job."""
        path, asked = self._sent.pop(number)
        for (point, key), measurement in zip(asked, measurements, strict=True):
            if point.cache and key:
                point.cache.put(key, measurement, point.metrics)
        self._add(path, [(point, measurement) for (point, _), measurement in zip(asked, measurements, strict=True)])

    def _add(self, path: Path, measured: Sequence[tuple[OperatingPoint, Measurement]]) -> None:
        import pandas as pd

        dataset, image = _names(path)
        rows = [{"dataset": dataset, "image": image} | asdict(found) | point.labels for point, found in measured]
        if rows:
            self._table.add(pd.DataFrame(rows, columns=list(EVALUATION)))


def _cache_keys(path: Path, points: Sequence[OperatingPoint]) -> list[tuple[OperatingPoint, str | None]]:
    """Return the points, each with the name of its measurement in its cache where it has one."""
    if not any(point.cache for point in points):
        return [(point, None) for point in points]
    pixels = read_rgb8(path)
    return [(point, point.cache.key(pixels, point.command) if point.cache else None) for point in points]


def _names(path: Path) -> tuple[str, str]:
    """Return the names of the data set and of the image."""
    return path.resolve().parent.name or "/", path.stem


def _check_distinct(noun: str, keys: Sequence[tuple[object, ...]]) -> None:
    if not keys:
        raise ValueError(f"At least one {noun} must be given, got none.")
    key, count = Counter(keys).most_common(1)[0]
    if count > 1:
        raise ValueError(f"Each {noun} must be given once, got {' '.join(map(str, key))} {count} times.")
