"""One piece of the command's work: some pairs of images of equal size under one codec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from .. import _cli, zoo
from .._jobs import placed
from ..model import Codec, Latents, from_modules
from .curve import Decode, image_decoder, members
from .geodesic import geodesic
from .length import CurveLength, curve_length
from .pairs import Pair
from .quadrature import Rule

if TYPE_CHECKING:
    import pandas as pd

_PIXELS_TOGETHER = 2**19
_SCALE_SEED = 0
GEODESIC_COLUMNS = ("zeta_lower", "zeta_error", "geodesic_length", "geodesic_converged")

Hyper = Literal["moving", "held"]
"""Whether the hyper latents `z` of `(z, y)` move with the others, or stay at those of the first image."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What defines a measurement besides codec and pair; see `curve_length` and `rdgap.schemas.CURVATURE`."""

    rule: Rule
    num_points: int
    hyper: Hyper
    geodesics: bool
    crop: int
    seed: int

    @property
    def columns(self) -> dict[str, object]:
        """The settings as they stand in each row."""
        return {name: setting for name, setting in vars(self).items() if name != "geodesics"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a codec comes from.

    Attributes:
        model: Name or file of a trained codec, or `package.module:name` of a decoder.
        lmbda: Of a trained codec; None for the one in the file, and for a decoder.
        encoder: `package.module:name` of a decoder's encoder; "" where the decoder is a codec itself.
    """

    model: str
    lmbda: float | None = None
    encoder: str | None = None


@dataclass(frozen=True, kw_only=True, repr=False)
class Job:
    """Pairs of equal size, with their numbers, to be measured together under one codec.

    Attributes:
        source: Where the codec comes from.
        pairs: What is measured.
        settings: How.
        device: Where, as `rdgap._cli.device` reads it.
        codec: The codec itself, for a machine that may not have it; else it is loaded from its source.
    """

    source: Source
    pairs: tuple[tuple[int, Pair], ...]
    settings: Settings
    device: str
    codec: Codec | None = None

    def __repr__(self) -> str:
        """Name the job, for the message of an error."""
        numbers = [number for number, _ in self.pairs]
        return f"{self.source.model}, pairs {numbers[0]} to {numbers[-1]}"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Results of a job.

    Attributes:
        table: One row per pair, the columns of `rdgap.schemas.CURVATURE`.
        paths: One row per pair and t, the columns of `rdgap.schemas.CURVATURE_PATHS`.
        result: What both are made of.
    """

    table: pd.DataFrame
    paths: pd.DataFrame
    result: CurveLength


def groups(pairs: Sequence[Pair]) -> Iterator[tuple[tuple[int, Pair], ...]]:
    """Put crops together, as many as fill a batch; whole images stay alone, because their sizes may differ."""
    numbered = list(enumerate(pairs))
    while numbered:
        crop = numbered[0][1].crop
        most = max(1, _PIXELS_TOGETHER // crop**2) if crop else 1
        yield tuple(numbered[:most])
        numbered = numbered[most:]


def measure(job: Job) -> Measured:
    """Measure the decoded lines of the job's pairs."""
    device = _cli.device(job.device)
    codec = load(job.source, device) if job.codec is None else placed(job.codec, device)
    return measure_pairs(codec, job.source.model, job.pairs, job.settings, device)


def measure_pairs(
    codec: Codec, model: str, pairs: Sequence[tuple[int, Pair]], settings: Settings, device: torch.device
) -> Measured:
    """Measure the decoded lines of pairs of equal size, with their numbers, under a codec that tables call `model`."""
    import pandas as pd

    images = [pair.read() for _, pair in pairs]
    originals = tuple(torch.cat(column).to(device) for column in zip(*images, strict=True))
    assert len(originals) == 2
    height, width = originals[0].shape[-2:]
    start, end = latent_ends(codec, originals, settings.hyper)
    decodes = len(images) * (settings.num_points + (settings.rule != "hermite") * settings.num_points // 2 + 2)
    with tqdm(total=decodes, unit="decode", disable=None, leave=False, desc=model) as bar:
        decode = counted(image_decoder(codec, (height, width)), bar)
        result = curve_length(
            decode, start, end, num_points=settings.num_points, rule=settings.rule, originals=originals
        )
    columns = _columns(result)
    if settings.geodesics:
        columns |= _geodesics(codec, (height, width), start, end)
    labels = {
        "model": model,
        "lmbda": lmbda_of(codec),
        "pair": [number for number, _ in pairs],
        "first": [pair.first.stem for _, pair in pairs],
        "second": [pair.second.stem for _, pair in pairs],
        "num_pixels": height * width,
    }
    unmeasured = dict.fromkeys(GEODESIC_COLUMNS, float("nan"))
    table = pd.DataFrame(unmeasured | labels | settings.columns | columns)
    return Measured(table=table, paths=_paths(result, table), result=result)


def lmbda_of(codec: Codec) -> float:
    """Return what a codec is trained for as tables have it; NaN where it does not say."""
    return float(getattr(codec, "lmbda", float("nan")))


def latent_ends(codec: Codec, originals: tuple[Tensor, ...], hyper: Hyper) -> tuple[Latents, Latents]:
    """Return the latents of both images without quantization, each (pairs, ...)."""
    with torch.no_grad():
        start, end = (codec.infer(images) for images in originals)
    return start, (end if hyper == "moving" else (*start[:-1], end[-1]))


def counted(decode: Decode, bar: tqdm) -> Decode:
    """Let `bar` follow the decodes, so that the computations know of no progress bar."""

    def count(latents: Latents) -> Tensor:
        images = decode(latents)
        bar.update(len(latents[0]))
        return images

    return count


def load(source: Source, device: torch.device) -> Codec:
    """Load a codec.

    Raises:
        ValueError: If there is none of that name, or what it names is no decoder.
    """
    return _loaded(source, device)


@cache
def _loaded(source: Source, device: torch.device) -> Codec:
    if source.encoder is None:
        return zoo.named_codec(source.model, source.lmbda, device=device)
    decoder = zoo.imported("--decoder", source.model)
    if source.encoder:
        encoder = zoo.imported("--encoder", source.encoder)
        return from_modules(zoo.frozen(encoder, device), zoo.frozen(decoder, device), _no_prior)
    codec: object = decoder
    if isinstance(decoder, type) or not isinstance(decoder, Codec):  # a class has the methods, too
        codec = decoder()
    if not isinstance(codec, Codec):
        raise ValueError(
            "`--decoder` without `--encoder` must name a codec (rdgap/model.py) or a function that returns one, "
            f"got {type(codec).__name__} from {source.model}."
        )
    return zoo.frozen(codec, device)


def _no_prior(latents: Tensor) -> Tensor:
    raise RuntimeError("A decoder without a prior has no rate.")


def _columns(result: CurveLength) -> dict[str, Any]:
    """Return the columns of `rdgap.schemas.CURVATURE` that `curve_length` measures."""
    assert result.mse_to_originals is not None
    return {
        **{name: getattr(result, name).numpy() for name in ("length", "length_error", "chord", "eta", "eta_error")},
        **{name: getattr(result, name).numpy() for name in ("polyline_length", "speed_variation")},
        "max_deviation_over_chord": result.max_deviation_over_chord.numpy(),
        "max_mse_to_reconstructions": result.mse_to_reconstructions.amax(1).numpy(),
        "max_mse_to_originals": result.mse_to_originals.amax(1).numpy(),
    }


def _geodesics(codec: Codec, size: tuple[int, int], start: Latents, end: Latents) -> dict[str, list[float]]:
    """Return the columns about geodesics; where the hyper latents are held, they stay so."""
    columns: dict[str, list[float]] = {name: [] for name in GEODESIC_COLUMNS}
    moving = [not torch.equal(z0, z1) for z0, z1 in zip(start, end, strict=True)]
    pairs = tqdm(range(len(start[0])), unit="geodesic", disable=None, leave=False)
    for index in pairs:
        found = geodesic(
            image_decoder(codec, size),
            members(start, index),
            members(end, index),
            moving=moving,
            generator=torch.Generator().manual_seed(_SCALE_SEED),
        )
        entries = (found.zeta_lower, found.zeta_error, float(found.measured.length), float(found.converged))
        for name, entry in zip(GEODESIC_COLUMNS, entries, strict=True):
            columns[name].append(entry)
    return columns


def _paths(result: CurveLength, table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per pair and t."""
    import pandas as pd

    assert result.mse_to_originals is not None
    per_t = (result.speed, result.mse_to_reconstructions, result.mse_to_originals)
    frames = []
    for index, row in enumerate(table.to_dict("records")):
        described = {name: row[name] for name in ("model", "lmbda", "pair", "crop", "hyper")}
        columns = dict(zip(("speed", "mse_to_reconstructions", "mse_to_originals"), per_t, strict=True))
        samples = {name: entries[index].numpy() for name, entries in columns.items()}
        frames.append(pd.DataFrame(described | {"t": result.ts.numpy()} | samples))
    return pd.concat(frames, ignore_index=True)
