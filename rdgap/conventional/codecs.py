"""The conventional codecs: what is run, with which settings, and how a user's machine comes by it."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, features

from ..images import read_rgb8

Pixels = NDArray[np.uint8]
"""RGB, (height, width, 3)."""


@dataclass(frozen=True, kw_only=True)
class ConventionalCodec:
    """A codec that writes real files.

    Attributes:
        what: The codec and its fixed settings, for people.
        knob: What moves it along its curve: "quality", "QP" or "ratio".
        lowest: Least value of the knob that is allowed.
        highest: Greatest value.
        grid: Values that draw its curve.
        encode: Maps pixels and a value of the knob to the bytes of a file.
        decode: Maps the bytes to pixels.
        command: Maps a value of the knob to exactly what is run, versions included.
    """

    what: str
    knob: str
    lowest: int
    highest: int
    grid: tuple[int, ...]
    encode: Callable[[Pixels, int], bytes]
    decode: Callable[[bytes], Pixels]
    command: Callable[[int], str]


def _pillow(
    what: str,
    form: str,
    library: str,
    grid: tuple[int, ...],
    knob: str = "quality",
    lowest: int = 1,
    highest: int = 100,
    options: Callable[[int], Mapping[str, Any]] = lambda quality: {"quality": quality},
    **fixed: object,
) -> ConventionalCodec:
    """Return a codec of Pillow's: `options` has the knob in it, `fixed` the rest."""

    def encode(pixels: Pixels, value: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, form, **options(value), **fixed)
        return file.getvalue()

    def command(value: int) -> str:
        arguments = ", ".join(f"{name}={setting!r}" for name, setting in {**options(value), **fixed}.items())
        return f"Pillow {PIL.__version__}, {library} {_library_version(library)}: save({form!r}, {arguments})"

    return ConventionalCodec(
        what=what,
        knob=knob,
        lowest=lowest,
        highest=highest,
        grid=grid,
        encode=encode,
        decode=_open_with_pillow,
        command=command,
    )


def _open_with_pillow(content: bytes) -> Pixels:
    with Image.open(io.BytesIO(content)) as image:
        return np.array(image.convert("RGB"))


def _library_version(library: str) -> str:
    names = {"libjpeg-turbo": "libjpeg_turbo", "libwebp": "webp", "libavif": "avif", "OpenJPEG": "jpg_2000"}
    return str(features.version(names[library]) or "of unknown version")


# ---- HEVC intra, a still image in a HEIF file


def _heif() -> ModuleType:
    try:
        import pillow_heif
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("HEVC needs pillow-heif: pip install 'rdgap[hevc]'", name=error.name) from error
    return pillow_heif


_HEVC = {"preset": "slow", "tune": "psnr"}


def _encode_hevc(pixels: Pixels, quality: int) -> bytes:
    heif = _heif()
    file = io.BytesIO()
    image = heif.from_bytes(mode="RGB", size=pixels.shape[1::-1], data=pixels.tobytes())
    image.save(file, quality=quality, chroma=444, enc_params=_HEVC)
    return file.getvalue()


def _decode_hevc(content: bytes) -> Pixels:
    image = _heif().open_heif(content, convert_hdr_to_8bit=False)
    return np.asarray(image.to_pillow().convert("RGB"))


def _hevc_command(quality: int) -> str:
    heif = _heif()
    encoder = heif.libheif_info()["encoders"].get("x265", "an unknown encoder")
    parameters = ", ".join(f"{name}={value}" for name, value in _HEVC.items())
    return (
        f"pillow-heif {heif.__version__}, libheif {heif.libheif_version()} ({encoder}): "
        f"HEVC, quality={quality}, chroma=444, {parameters}"
    )


# ---- BPG, by Fabrice Bellard's programs


def _bpg_programs() -> tuple[str, str]:
    found = [shutil.which(name) for name in ("bpgenc", "bpgdec")]
    if found[0] is None or found[1] is None:
        raise ModuleNotFoundError(
            "BPG needs the programs bpgenc and bpgdec on the PATH: build libbpg from https://bellard.org/bpg/"
        )
    return found[0], found[1]


def _bpg_arguments(qp: int) -> list[str]:
    return ["-q", str(qp), "-f", "444", "-c", "ycbcr", "-b", "8", "-e", "x265", "-m", "8"]


def _encode_bpg(pixels: Pixels, qp: int) -> bytes:
    encoder, _ = _bpg_programs()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "image.png"), Path(folder, "image.bpg")
        Image.fromarray(pixels).save(source, compress_level=1)
        _run([encoder, *_bpg_arguments(qp), "-o", str(target), str(source)], target)
        return target.read_bytes()


def _decode_bpg(content: bytes) -> Pixels:
    _, decoder = _bpg_programs()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "image.bpg"), Path(folder, "image.png")
        source.write_bytes(content)
        _run([decoder, "-o", str(target), str(source)], target)
        return read_rgb8(target)


def _run(command: list[str], target: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode != 0 or not target.is_file():
        said = " ".join((done.stderr or done.stdout).split()) or "nothing"
        raise RuntimeError(f"`{' '.join(command)}` failed with exit code {done.returncode} and said: {said[:300]}")


def _bpg_command(qp: int) -> str:
    encoder, _ = _bpg_programs()
    return f"bpgenc {_bpg_version(encoder)}: bpgenc {' '.join(_bpg_arguments(qp))} -o OUT.bpg IN.png"


@cache
def _bpg_version(encoder: str) -> str:
    usage = subprocess.run([encoder, "-h"], capture_output=True, text=True, check=False, errors="replace")
    version = re.search(r"version (\S+)", usage.stdout + usage.stderr)
    return version[1] if version else "of unknown version"


# ---- the list

_QUALITIES = (2, 5, 8, 10, 12, *range(15, 100, 5))  # dense where the rate of JPEG and WebP falls fastest

CODECS: Mapping[str, ConventionalCodec] = {
    "jpeg": _pillow(
        "JPEG, chroma 4:2:0, optimised Huffman tables",
        "JPEG",
        "libjpeg-turbo",
        _QUALITIES,
        subsampling="4:2:0",
        optimize=True,
    ),
    "jpeg-default": _pillow(
        "JPEG, chroma 4:2:0, the standard's Huffman tables: the one of published curves",
        "JPEG",
        "libjpeg-turbo",
        _QUALITIES,
        subsampling="4:2:0",
        optimize=False,
    ),
    "jpeg2000": _pillow(
        "JPEG 2000, 9/7 wavelet, colours decorrelated, at a given ratio of compression",
        "JPEG2000",
        "OpenJPEG",
        (5, 7, *range(10, 100, 10), 120, 150, 190),
        knob="ratio",
        lowest=2,
        highest=1000,
        options=lambda ratio: {"quality_mode": "rates", "quality_layers": [ratio]},
        irreversible=True,
        mct=1,
    ),
    "webp": _pillow("WebP, lossy, method 4", "WEBP", "libwebp", _QUALITIES, method=4),
    "avif": _pillow(
        "AVIF, chroma 4:4:4, speed 6",
        "AVIF",
        "libavif",
        tuple(range(10, 100, 10)),
        lowest=0,
        subsampling="4:4:4",
        speed=6,
        max_threads=1,
    ),
    "hevc": ConventionalCodec(
        what="HEVC intra (x265) in HEIF, chroma 4:4:4, preset slow, tuned for PSNR",
        knob="quality",
        lowest=1,
        highest=99,
        grid=(5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 60, 70),
        encode=_encode_hevc,
        decode=_decode_hevc,
        command=_hevc_command,
    ),
    "bpg": ConventionalCodec(
        what="BPG, chroma 4:4:4, x265 at the default effort -m 8: the anchor of the literature",
        knob="QP",
        lowest=0,
        highest=51,
        grid=(17, 22, 27, 32, 37, 42, 47, 51),
        encode=_encode_bpg,
        decode=_decode_bpg,
        command=_bpg_command,
    ),
}
"""Every conventional codec by name."""
